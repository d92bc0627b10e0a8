// channel_layer/asio.hpp with callbacks and futures, in C++17.

#include "net.hpp"

#include <algorithm>
#include <atomic>
#include <fcntl.h>
#include <functional>
#include <future>
#include <set>

using namespace channel_layer;
using namespace std::chrono_literals;

/// On both brokers.
#define BOTH(name)                                                                                 \
    static void name(const std::string &host);                                                     \
    TEST(name##_memory) { name(check::memory()); }                                                 \
    TEST(name##_rabbitmq) { name(check::rabbitmq()); }                                             \
    static void name(const std::string &host)

BOTH(callbacks_get_what_becomes_of_each_operation) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string group = check::unique("group-"), channel = home.new_channel();
    asio_driver driver(io, home);
    std::vector<std::uint32_t> received;
    int done = 0;
    const auto receive = [&](auto again) -> void {
        driver.async_receive(channel, [&, again](net_error problem, message next) {
            CHECK(!problem && next);
            received.push_back(check::number_of(next));
            CHECK(next.channel() == channel);
            again(again);
        });
    };
    driver.async_group_add(group, channel, [&](net_error added) {
        CHECK(!added);
        driver.async_group_send(group, check::numbered(0), [&](net_error sent) {
            CHECK(!sent);
            done++;
        });
    });
    check::run_until(io, [&] { return done == 1; });
    receive(receive);
    for (std::uint32_t i = 1; i <= 300; i++) {
        driver.async_send(channel, check::numbered(i), [&](net_error sent) {
            CHECK(!sent);
            done++;
        });
    }
    check::run_until(io, [&] { return done == 301 && received.size() == 301; });
    for (std::uint32_t i = 0; i <= 300; i++) {
        CHECK(received[i] == i);
    }
}

BOTH(a_failure_is_its_status_as_a_code_and_its_text_is_told) {
    net::io_context io;
    layer home = check::open_polled(host);
    asio_driver driver(io, home);
    std::vector<std::string> told;
    driver.on_failure([&](const char *operation, status_code status, const char *text) {
        CHECK(*text != '\0');
        told.push_back(std::string(operation) + " " + to_string(status));
    });
    std::vector<net_error> codes;
    const auto keep = [&](net_error problem) { codes.push_back(problem); };
    driver.async_send(check::unique("channels_") + "!gone", check::numbered(1), keep);
    check::run_until(io, [&] { return codes.size() == 1; });
    driver.async_send("not a name", check::numbered(1), keep);
    CHECK(codes.size() == 1); // never inside the call
    check::run_until(io, [&] { return codes.size() == 2; });
    driver.async_group_send("group", bytes_view(), keep);
    check::run_until(io, [&] { return codes.size() == 3; });

    CHECK(codes[0] == status_code::no_channel && codes[0] != status_code::full);
    CHECK(status_of(codes[0]) == status_code::no_channel);
    CHECK(codes[1] == status_code::invalid && codes[2] == status_code::invalid);
    CHECK(std::error_code(codes[1]) == std::errc::invalid_argument);
    CHECK(std::string(codes[0].category().name()) == "channel_layer");
    check::holds(codes[0].message(), "LAYER_NO_CHANNEL");
    CHECK(
        (told == std::vector<std::string>{"async_send LAYER_NO_CHANNEL", "async_send LAYER_INVALID",
                                          "async_group_send LAYER_INVALID"}));
}

BOTH(futures_of_other_threads_get_results_and_exceptions) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    std::thread worker([&] { io.run(); });
    std::exception_ptr problem;
    try {
        auto next = driver.async_receive(channel, net::use_future);
        driver.async_send(channel, check::numbered(7), net::use_future).get();
        CHECK(next.wait_for(check::deadline) == std::future_status::ready);
        CHECK(check::number_of(next.get()) == 7);
        bool thrown = false;
        try {
            driver.async_send("not a name", check::numbered(1), net::use_future).get();
        } catch (const net_exception &why) {
            thrown = why.code() == status_code::invalid;
        }
        CHECK(thrown);
        driver.async_group_add("futures", channel, net::use_future).get();
        driver.async_send_json(channel, R"({"n":8})", net::use_future).get();
        driver.async_group_send_json("futures", R"({"n":9})", net::use_future).get();
        CHECK(check::number_of(driver.async_receive(channel, net::use_future).get()) == 8);
        CHECK(check::number_of(driver.async_receive(channel, net::use_future).get()) == 9);
        auto closed = driver.async_close(20s, net::use_future);
        CHECK(closed.wait_for(check::deadline) == std::future_status::ready);
        closed.get();
        CHECK(home.state() == connection_state::closed);
    } catch (...) {
        problem = std::current_exception();
    }
    driver.stop();
    worker.join();
    if (problem) {
        std::rethrow_exception(problem);
    }
}

BOTH(json_text_is_sent_to_a_channel_and_to_a_group) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string group = check::unique("group-"), channel = home.new_channel();
    asio_driver driver(io, home);
    std::vector<std::string> told;
    driver.on_failure([&](const char *operation, status_code status, const char *text) {
        told.push_back(std::string(operation) + " " + to_string(status));
        check::holds(text, "message.");
    });
    home.group_add(group, channel);
    std::vector<net_error> codes;
    const auto keep = [&](net_error problem) { codes.push_back(problem); };
    {
        std::string text = R"({"n":1})"; // of the caller until the call returns
        driver.async_send_json(channel, text, keep);
        text = R"({"n":2})";
        driver.async_group_send_json(group, text, keep);
        text.assign(text.size(), ' ');
    }
    driver.async_send_json(channel, R"({"twin":1,"twin":2})", keep);
    driver.async_group_send_json(group, R"({"large":1e999})", keep);
    CHECK(codes.empty()); // never inside the call
    std::vector<std::string> received;
    for (int i = 0; i < 2; i++) {
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!problem);
            received.push_back(std::string(next.json()) + (next.group() ? " of the group" : ""));
        });
        check::run_until(io, [&, i] { return received.size() == std::size_t(i) + 1; });
    }
    check::run_until(io, [&] { return codes.size() == 4; });
    CHECK((received == std::vector<std::string>{R"({"n":1})", R"({"n":2} of the group)"}));
    CHECK(std::count(codes.begin(), codes.end(), status_code::ok) == 2);
    CHECK(std::count(codes.begin(), codes.end(), status_code::invalid) == 2);
    CHECK((told == std::vector<std::string>{"async_send_json LAYER_INVALID",
                                            "async_group_send_json LAYER_INVALID"}));
}

BOTH(a_close_is_reported_after_all_other_operations) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel(), silent = home.new_channel();
    home.wait_ready(check::deadline);
    asio_driver driver(io, home);
    int sent = 0;
    std::vector<std::string> ended;
    driver.async_receive(silent, [&](net_error problem, message) {
        ended.push_back(problem == status_code::closed ? "receive" : problem.message());
    });
    for (std::uint32_t i = 0; i < 20; i++) {
        driver.async_send(channel, check::numbered(i), [&](net_error problem) {
            CHECK(!problem);
            sent++;
        });
    }
    driver.async_close(20s, [&](net_error problem) {
        CHECK(sent == 20);
        ended.push_back(problem ? problem.message() : "close");
    });
    CHECK(home.try_send(channel, check::numbered(0)).status() == status_code::closed);
    driver.async_close(20s, [&](net_error problem) { // again, while it closes
        ended.push_back(problem ? problem.message() : "close");
    });
    check::run(io); // which returns, since nothing can come of the layer any more
    CHECK((ended == std::vector<std::string>{"receive", "close", "close"}));
    CHECK(home.state() == connection_state::closed);

    std::vector<net_error> after;
    const auto keep = [&](net_error problem) { after.push_back(problem); };
    driver.async_close(20s, keep); // and again, when it was closed
    driver.async_send_json(channel, "{}", keep);
    check::run(io);
    CHECK(after.size() == 2 && !after[0] && after[1] == status_code::closed);
}

TEST(a_close_that_a_callback_holds_up_times_out_and_the_layer_is_closed) {
    net::io_context io;
    net::thread_pool other(1);
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    std::promise<void> inside, leave;
    auto left = leave.get_future();
    auto held_up = home.receive(channel, [&](message_view) {
        inside.set_value();
        left.wait();
    });
    asio_driver driver(io, home);
    home.send(channel, check::numbered(1));
    net::post(other, [&] { (void)home.try_poll(1, check::deadline); });
    inside.get_future().wait();
    std::optional<net_error> code;
    driver.async_close(50ms, [&](net_error problem) { code = problem; });
    std::exception_ptr problem;
    try {
        check::run_until(io, [&] { return code.has_value(); });
    } catch (...) {
        problem = std::current_exception();
    }
    leave.set_value();
    other.join();
    if (problem) {
        std::rethrow_exception(problem);
    }
    CHECK(*code == status_code::timeout);
    CHECK(home.state() == connection_state::closed);
}

TEST(the_handler_of_a_close_may_destroy_the_layer) {
    net::io_context io;
    std::optional<layer> home(check::open_polled(check::memory()));
    asio_driver driver(io, *home);
    bool ended = false;
    driver.async_close(20s, [&](net_error problem) {
        home.reset();
        ended = !problem;
    });
    check::run(io);
    CHECK(ended && !home);
    std::optional<net_error> again;
    driver.async_close(20s, [&](net_error problem) { again = problem; });
    check::run(io);
    CHECK(again && !*again);
}

TEST(a_driver_that_was_stopped_closes_nothing) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    asio_driver driver(io, home);
    driver.stop();
    std::optional<net_error> code;
    driver.async_close(20s, [&](net_error problem) { code = problem; });
    check::run(io);
    CHECK(code && *code == net::error::operation_aborted);
    home.send(home.new_channel(), check::numbered(1));
}

TEST(a_handler_runs_on_its_associated_executor_and_may_call_what_waits) {
    net::io_context io;
    net::thread_pool pool(1);
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    std::promise<std::string> first, second;
    int ended = 0;
    driver.async_receive(channel, net::bind_executor(pool, [&](net_error problem, message next) {
                             const bool there = pool.get_executor().running_in_this_thread();
                             first.set_value(problem || !there ? "elsewhere"
                                                               : std::string(next.json()));
                             net::post(io, [&] { ended++; });
                         }));
    driver.async_send(channel, check::numbered(1), [&](net_error problem) {
        // Neither inside a callback, where this would be would_deadlock.
        const auto waited = home.try_receive_next(home.new_channel(), 0ms);
        second.set_value(problem ? "failed" : to_string(waited.status()));
        ended++;
    });
    // Either may be first: the message, or the outcome of its send.
    check::run_until(io, [&] { return ended == 2; });
    CHECK(second.get_future().get() == "LAYER_TIMEOUT");
    CHECK(first.get_future().get() == "{\"n\":1}");
    driver.stop();
    pool.join();
}

TEST(the_executor_of_a_handler_has_work_until_it_was_called) {
    net::io_context loop, other;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    asio_driver driver(loop, home);
    bool called = false;
    driver.async_receive(
        channel, net::bind_executor(other, [&](net_error problem, message) { called = !problem; }));
    CHECK(other.poll() == 0 && !other.stopped());
    driver.async_send(channel, check::numbered(1), [](net_error) {});
    check::run_until(loop, [&] { return other.poll() > 0; });
    CHECK(called);
    CHECK(other.run() == 0); // which returns: it has no work any more
}

TEST(handlers_may_be_move_only_and_are_destroyed_after_their_call) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    auto sentinel = std::make_shared<int>(0);
    const std::weak_ptr<int> watched = sentinel;
    int calls = 0;
    driver.async_receive(channel, [&, kept = std::make_unique<std::shared_ptr<int>>(
                                          std::move(sentinel))](net_error problem, message) {
        CHECK(!problem);
        calls++;
    });
    driver.async_send(channel, check::numbered(1),
                      [&, kept = std::make_unique<int>(1)](net_error problem) {
                          CHECK(!problem && *kept == 1);
                          calls++;
                      });
    check::run_until(io, [&] { return calls == 2; });
    CHECK(watched.expired());
}

TEST(stop_ends_the_operations_and_lets_run_return) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    std::vector<net_error> codes;
    driver.async_receive(channel, [&](net_error problem, message next) {
        CHECK(!next);
        codes.push_back(problem);
    });
    driver.stop();
    CHECK(codes.empty());
    check::run(io);
    driver.async_send(channel, check::numbered(1),
                      [&](net_error problem) { codes.push_back(problem); });
    driver.async_receive(channel, [&](net_error problem, message) { codes.push_back(problem); });
    check::run(io);
    CHECK(codes.size() == 3);
    for (const auto &code : codes) {
        CHECK(code == net::error::operation_aborted);
    }
}

BOTH(a_receive_that_is_cancelled_leaves_the_messages_in_the_channel) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel(), other = home.new_channel();
    asio_driver driver(io, home);
    int cancelled = 0;
    bool untouched = true;
    driver.async_receive(other, [&](net_error, message) { untouched = false; });
    for (int i = 0; i < 3; i++) {
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(problem == net::error::operation_aborted && !next);
            cancelled++;
        });
    }
    driver.cancel_receive(channel);
    check::run_until(io, [&] { return cancelled == 3; });
    CHECK(untouched);
    for (std::uint32_t i = 0; i < 3; i++) {
        home.send(channel, check::numbered(i));
    }
    std::vector<std::uint32_t> received;
    for (int i = 0; i < 3; i++) {
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!problem);
            received.push_back(check::number_of(next));
        });
        check::run_until(io, [&, i] { return received.size() == std::size_t(i) + 1; });
    }
    CHECK((received == std::vector<std::uint32_t>{0, 1, 2}));
}

TEST(a_channel_that_is_discarded_and_a_layer_that_closes_end_a_receive_with_their_status) {
    net::io_context io;
    std::optional<layer> home(check::open_polled(check::memory()));
    const std::string channel = home->new_channel();
    asio_driver driver(io, *home);
    std::vector<net_error> codes;
    const auto keep = [&](net_error problem, message) { codes.push_back(problem); };
    driver.async_receive(channel, keep);
    home->channel_discard(channel);
    check::run_until(io, [&] { return codes.size() == 1; });
    CHECK(codes[0] == status_code::cancelled);
    driver.async_receive(channel, keep);
    home->close(10s);
    check::run_until(io, [&] { return codes.size() == 2; });
    CHECK(codes[1] == status_code::closed);
    home.reset(); // before its driver, which is not as documented, and must not crash
    driver.async_receive(channel, keep);
    check::run_until(io, [&] { return codes.size() == 3; });
    CHECK(codes[2] == status_code::closed);
}

BOTH(a_discard_ends_each_receive_that_waits_for_its_channel) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel(), other = home.new_channel();
    asio_driver driver(io, home);
    std::vector<net_error> codes;
    bool untouched = true;
    driver.async_receive(other, [&](net_error, message) { untouched = false; });
    for (int i = 0; i < 3; i++) {
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!next);
            codes.push_back(problem);
        });
    }
    driver.channel_discard(channel);
    CHECK(codes.empty()); // never inside the call
    check::run_until(io, [&] { return codes.size() == 3; });
    CHECK(std::count(codes.begin(), codes.end(), status_code::cancelled) == 3);
    CHECK(untouched);
}

TEST(a_layer_may_be_moved_under_its_driver) {
    net::io_context io;
    layer first = check::open_polled(check::memory());
    asio_driver driver(io, first);
    const layer home = std::move(first);
    bool sent = false;
    driver.async_send(home.new_channel(), check::numbered(1),
                      [&](net_error problem) { sent = !problem; });
    check::run_until(io, [&] { return sent; });
}

/// One operation of each kind, all of which end with a code alone.
template <class Handler>
static void begin_each(const asio_driver &driver, const std::string &channel, Handler handler) {
    driver.async_send(channel, check::numbered(1), handler);
    driver.async_send_json(channel, "{}", handler);
    driver.async_group_add("group", channel, handler);
    driver.async_group_send("group", check::numbered(1), handler);
    driver.async_group_send_json("group", "{}", handler);
    driver.async_close(20s, handler);
}
static constexpr int kinds = 6;

BOTH(operations_of_a_driver_that_was_moved_from_end_with_closed) {
    net::io_context io;
    net::thread_pool pool(1);
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    for (const bool assigned : {false, true}) {
        std::optional<asio_driver> moved;
        if (assigned) {
            moved.emplace(io, home);
            *moved = std::move(driver);
        } else {
            moved.emplace(std::move(driver));
        }
        std::vector<net_error> codes;
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!next);
            codes.push_back(problem);
        });
        begin_each(driver, channel, [&](net_error problem) { codes.push_back(problem); });
        CHECK(codes.empty()); // never inside the call
        check::run_until(io, [&] { return codes.size() == 1 + kinds; });
        CHECK(std::count(codes.begin(), codes.end(), status_code::closed) == 1 + kinds);

        std::promise<bool> there;
        driver.async_send(channel, check::numbered(1), net::bind_executor(pool, [&](net_error) {
                              there.set_value(pool.get_executor().running_in_this_thread());
                          }));
        CHECK(there.get_future().get());
        CHECK(driver.get_executor() == moved->get_executor());
        CHECK(driver.try_channel_discard(channel).status() == status_code::closed);
        check::raises(status_code::closed, {}, [&] { driver.channel_discard(channel); });
        driver.cancel_receive(channel);
        driver.on_failure([](const char *, status_code, const char *) {});
        driver.stop();

        // Nothing of that reached the layer or the driver that it was moved to.
        bool sent = false;
        moved->async_send(channel, check::numbered(2), [&](net_error problem) { sent = !problem; });
        std::uint32_t got = 0;
        moved->async_receive(channel, [&](net_error problem, message next) {
            CHECK(!problem);
            got = check::number_of(next);
        });
        check::run_until(io, [&] { return sent && got == 2; });
        driver = std::move(*moved); // and it is a driver again
    }
    pool.join();
    std::optional<net_error> code;
    driver.async_close(20s, [&](net_error problem) { code = problem; });
    check::run(io);
    CHECK(code && !*code && home.state() == connection_state::closed);
}

static std::set<int> open_descriptors() {
    std::set<int> found;
    for (int each = 0; each < 1024; each++) {
        if (::fcntl(each, F_GETFD) >= 0) {
            found.insert(each);
        }
    }
    return found;
}

TEST(a_driver_closes_its_own_descriptor_and_not_the_one_of_its_layer) {
    net::io_context io;
    const layer home = check::open_polled(check::memory());
    { const asio_driver driver(io, home); } // with it the context opens those of its own
    const auto before = open_descriptors();
    { const asio_driver driver(io, home); }
    check::run(io);
    CHECK(open_descriptors() == before);
    CHECK(::fcntl(home.fd(), F_GETFD) >= 0);
    const std::string channel = home.new_channel();
    std::vector<std::uint32_t> received;
    auto receiver = home.receive(
        channel, [&](message_view next) { received.push_back(check::number_of(next)); });
    home.send(channel, check::numbered(3));
    check::eventually("the receiver's call", [&] { return home.poll(64, 100ms) == 1; });
    CHECK(received.size() == 1);
}

TEST(a_layer_that_runs_callbacks_on_its_own_threads_has_no_driver) {
    net::io_context io;
    const layer home = check::open(check::memory());
    check::raises(status_code::invalid, {"dispatch"}, [&] { const asio_driver driver(io, home); });
    CHECK(home.try_fd_dup().status() == status_code::invalid);
}

TEST(a_context_may_end_with_operations_in_it) {
    for (const bool aborted_before : {false, true}) {
        auto sentinel = std::make_shared<int>(0);
        const std::weak_ptr<int> watched = sentinel;
        int calls = 0;
        std::optional<net::io_context> io(std::in_place);
        layer home = check::open_polled(check::memory());
        std::optional<asio_driver> driver(std::in_place, *io, home);
        driver->async_receive(home.new_channel(),
                              [sentinel, &calls](net_error, message) { calls++; });
        begin_each(*driver, home.new_channel(), [sentinel, &calls](net_error problem) {
            CHECK(problem == net::error::operation_aborted);
            calls++;
        });
        sentinel.reset();
        if (aborted_before) {
            driver.reset(); // they are ready, and nobody runs them
            io.reset();
            CHECK(watched.expired());
        } else {
            driver.reset();
            check::run(*io);
            CHECK(calls == 1 + kinds);
            CHECK(watched.expired());
        }
        home.close(10s); // what is left in the layer touches nothing of Asio
        CHECK(calls == (aborted_before ? 0 : 1 + kinds));
    }
}

BOTH(outcomes_that_come_after_the_end_of_the_driver_call_no_handler) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    std::vector<net_error> codes;
    bool destroyed = false;
    {
        const asio_driver driver(io, home);
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!next && destroyed);
            codes.push_back(problem);
        });
        begin_each(driver, channel, [&](net_error problem) {
            CHECK(destroyed); // posted by the destruction, and not called inside it
            codes.push_back(problem);
        });
    }
    destroyed = true;
    // All outcomes come, to a loop that the program runs itself.
    while (home.try_poll(64, check::deadline)) {
    }
    CHECK(home.state() == connection_state::closed && codes.empty());
    check::run(io);
    CHECK(codes.size() == 1 + kinds);
    for (const auto &code : codes) {
        CHECK(code == net::error::operation_aborted);
    }
}

BOTH(several_threads_may_run_the_context) {
    constexpr std::uint32_t count = 400, threads = 4;
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    std::mutex mutex;
    std::set<std::uint32_t> received;
    std::atomic<std::uint32_t> sent{0}, failed{0}, left{count * 2};
    const auto one_less = [&] {
        if (--left == 0) {
            driver.stop();
        }
    };
    for (std::uint32_t i = 0; i < count; i++) {
        net::post(io, [&, i] {
            driver.async_receive(channel, [&](net_error problem, message next) {
                {
                    const std::lock_guard<std::mutex> held(mutex);
                    if (problem || !received.insert(check::number_of(next)).second) {
                        failed++;
                    }
                }
                one_less();
            });
            driver.async_send(channel, check::numbered(i), [&](net_error problem) {
                problem ? failed++ : sent++;
                one_less();
            });
        });
    }
    std::vector<std::thread> workers;
    for (std::uint32_t i = 0; i < threads; i++) {
        workers.emplace_back([&] { io.run_for(check::deadline); });
    }
    for (auto &each : workers) {
        each.join();
    }
    CHECK(left == 0 && failed == 0 && sent == count && received.size() == count);
}

/// Has been added to a driver, and has not asked the layer for messages yet.
class unknown_receive final : public asio_detail::operation {
  public:
    using operation::operation;
    bool end(net_error code) override {
        codes.push_back(code);
        return codes.size() == 1;
    }
    void cancel(bool) override {}
    bool receives() const noexcept override { return codes.empty(); }

    std::vector<net_error> codes;
};

TEST(a_discard_ends_a_receive_that_the_layer_does_not_know_yet) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    const auto engine =
        std::make_shared<asio_detail::engine>(net::any_io_executor(io.get_executor()), home);
    const auto begun = std::make_shared<unknown_receive>(engine, channel);
    const auto other = std::make_shared<unknown_receive>(engine, home.new_channel());
    CHECK(engine->add(begun) && engine->add(other));
    CHECK(engine->discard(channel).ok());
    CHECK(begun->codes.size() == 1 && begun->codes[0] == status_code::cancelled);
    CHECK(other->codes.empty());
}

/// Waits for a message until it is offered one. It refuses that, and the next receive begins
/// between its refusal and what becomes of the message.
class refusing_receive final : public asio_detail::operation {
  public:
    refusing_receive(std::weak_ptr<asio_detail::engine> driver, std::string from,
                     std::function<void()> begin)
        : operation(std::move(driver), std::move(from)), begin_next(std::move(begin)) {}

    bool end(net_error) override { return false; }
    void cancel(bool) override {}
    bool receives() const noexcept override { return !refused; }
    bool offer(message &, std::uint64_t) override {
        refused = true;
        begin_next();
        return false;
    }

    bool refused = false;

  private:
    const std::function<void()> begin_next;
};

TEST(a_message_that_comes_back_goes_to_a_receive_that_begins_meanwhile) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    home.send(channel, check::numbered(1));
    message first = std::move(*home.receive_next(channel, check::deadline));
    const auto engine =
        std::make_shared<asio_detail::engine>(net::any_io_executor(io.get_executor()), home);
    std::vector<std::uint32_t> received;
    const auto receive = [&] {
        asio_detail::receive_initiation{engine, io.get_executor(),
                                        channel}([&](net_error problem, message next) {
            CHECK(!problem);
            received.push_back(check::number_of(next));
        });
    };
    const auto refusing = std::make_shared<refusing_receive>(engine, channel, receive);
    CHECK(engine->add(refusing));
    CHECK(engine->take_back(*refusing, std::move(first), engine->next_number()));
    CHECK(refusing->refused);
    io.poll(); // its handler was posted, or else it waits
    CHECK((received == std::vector<std::uint32_t>{1}));
}

#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)

/// Lets the layer hand the messages it has to receives, and runs none of their handlers.
static void hand_over(const layer &home, std::uint64_t messages) {
    const auto before = home.stat(statistic::received);
    check::eventually("the receives have messages", [&] {
        home.poll(64, 10ms);
        return home.stat(statistic::received) == before + messages;
    });
}

BOTH(a_slot_that_is_used_before_a_message_leaves_it_in_the_channel) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    for (const auto type : {net::cancellation_type::terminal, net::cancellation_type::partial,
                            net::cancellation_type::total}) {
        net::cancellation_signal signal;
        std::optional<net_error> code;
        driver.async_receive(channel, net::bind_cancellation_slot(
                                          signal.slot(), [&](net_error problem, message next) {
                                              CHECK(!next);
                                              code = problem;
                                          }));
        signal.emit(type);
        check::run_until(io, [&] { return code.has_value(); });
        CHECK(*code == net::error::operation_aborted);
    }
    home.send(channel, check::numbered(5));
    std::uint32_t got = 0;
    driver.async_receive(channel, [&](net_error problem, message next) {
        CHECK(!problem);
        got = check::number_of(next);
    });
    check::run_until(io, [&] { return got == 5; });
}

BOTH(a_message_that_comes_before_its_cancelled_handler_runs_is_kept_for_the_next_receive) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    net::cancellation_signal signals[3];
    int aborted = 0;
    const auto cancelled_late = [&](std::size_t count) {
        const int before = aborted;
        for (std::size_t i = 0; i < count; i++) {
            driver.async_receive(channel,
                                 net::bind_cancellation_slot(
                                     signals[i].slot(), [&](net_error problem, message next) {
                                         CHECK(problem == net::error::operation_aborted);
                                         CHECK(!next);
                                         aborted++;
                                     }));
        }
        return before + static_cast<int>(count);
    };
    int wanted = cancelled_late(3);
    for (std::uint32_t i = 1; i <= 4; i++) {
        home.send(channel, check::numbered(i));
    }
    hand_over(home, 3);
    for (auto &each : signals) {
        each.emit(net::cancellation_type::terminal);
    }
    check::run_until(io, [&] { return aborted == wanted; });
    // One of them again: what comes back twice keeps its place.
    wanted = cancelled_late(1);
    signals[0].emit(net::cancellation_type::total);
    check::run_until(io, [&] { return aborted == wanted; });

    std::vector<std::uint32_t> received;
    for (std::size_t i = 0; i < 4; i++) {
        driver.async_receive(channel, [&](net_error problem, message next) {
            CHECK(!problem);
            received.push_back(check::number_of(next));
        });
        check::run_until(io, [&] { return received.size() == i + 1; });
    }
    CHECK((received == std::vector<std::uint32_t>{1, 2, 3, 4}));
}

TEST(a_message_that_comes_back_goes_to_a_receive_that_waits) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    net::cancellation_signal signal;
    bool aborted = false;
    std::uint32_t got = 0;
    driver.async_receive(
        channel, net::bind_cancellation_slot(signal.slot(), [&](net_error problem, message) {
            aborted = problem == net::error::operation_aborted;
        }));
    home.send(channel, check::numbered(9));
    hand_over(home, 1);
    driver.async_receive(channel, [&](net_error problem, message next) {
        CHECK(!problem);
        got = check::number_of(next);
    });
    signal.emit(net::cancellation_type::terminal);
    check::run_until(io, [&] { return aborted && got == 9; });
    // And that one waits no more: the channel keeps the next message.
    home.send(channel, check::numbered(10));
    check::eventually("a message waits",
                      [&] { return home.stat(statistic::backlog) == 1 || home.poll() > 0; });
    CHECK(check::number_of(*home.receive_next(channel, 10s)) == 10);
}

/// A receive that has message `number` of its channel, and whose handler has not been called.
static void receive_without_its_handler(const layer &home, const asio_driver &driver,
                                        const std::string &channel, std::uint32_t number,
                                        net::cancellation_signal &signal, bool &aborted) {
    driver.async_receive(channel, net::bind_cancellation_slot(
                                      signal.slot(), [&aborted](net_error problem, message next) {
                                          CHECK(problem == net::error::operation_aborted && !next);
                                          aborted = true;
                                      }));
    home.send(channel, check::numbered(number));
    hand_over(home, 1);
}

/// What the next receive gets once `number` was sent.
static std::uint32_t sent_and_received(net::io_context &io, const layer &home,
                                       const asio_driver &driver, const std::string &channel,
                                       std::uint32_t number) {
    home.send(channel, check::numbered(number));
    std::optional<std::uint32_t> got;
    driver.async_receive(channel, [&](net_error problem, message next) {
        CHECK(!problem);
        got = check::number_of(next);
    });
    check::run_until(io, [&] { return got.has_value(); });
    return *got;
}

BOTH(a_discard_drops_the_messages_that_came_back) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel(), other = home.new_channel();
    asio_driver driver(io, home);
    net::cancellation_signal signals[2];
    bool aborted[2] = {false, false};
    receive_without_its_handler(home, driver, channel, 1, signals[0], aborted[0]);
    receive_without_its_handler(home, driver, other, 11, signals[1], aborted[1]);
    signals[0].emit(net::cancellation_type::terminal);
    signals[1].emit(net::cancellation_type::terminal);
    check::run_until(io, [&] { return aborted[0] && aborted[1]; });
    driver.channel_discard(channel);
    CHECK(sent_and_received(io, home, driver, channel, 2) == 2);
    CHECK(sent_and_received(io, home, driver, other, 12) == 11);
}

BOTH(a_message_that_comes_back_after_a_discard_is_dropped) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    net::cancellation_signal signal;
    bool aborted = false;
    receive_without_its_handler(home, driver, channel, 1, signal, aborted);
    driver.channel_discard(channel);
    signal.emit(net::cancellation_type::terminal);
    check::run_until(io, [&] { return aborted; });
    CHECK(sent_and_received(io, home, driver, channel, 2) == 2);
}

TEST(a_discard_that_fails_drops_nothing) {
    net::io_context io;
    std::optional<layer> home(check::open_polled(check::memory()));
    const std::string channel = home->new_channel();
    asio_driver driver(io, *home);
    net::cancellation_signal signal;
    bool aborted = false;
    receive_without_its_handler(*home, driver, channel, 1, signal, aborted);
    signal.emit(net::cancellation_type::terminal);
    check::run_until(io, [&] { return aborted; });
    check::raises(status_code::invalid, {}, [&] { driver.channel_discard("no mark"); });
    CHECK(driver.try_channel_discard(std::string_view("a!b\0", 4)).status() ==
          status_code::invalid);
    home->close(check::deadline);
    CHECK(driver.try_channel_discard(channel).status() == status_code::closed);
    std::uint32_t got = 0;
    driver.async_receive(channel, [&](net_error problem, message next) {
        CHECK(!problem);
        got = check::number_of(next);
    });
    check::run_until(io, [&] { return got == 1; });
}

TEST(a_send_is_ended_by_a_slot_of_type_terminal_alone) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    asio_driver driver(io, home);
    const std::string channel = home.new_channel();
    net::cancellation_signal signal;
    std::vector<net_error> codes;
    const auto send = [&] {
        driver.async_send(channel, check::numbered(1),
                          net::bind_cancellation_slot(
                              signal.slot(), [&](net_error problem) { codes.push_back(problem); }));
    };
    send();
    signal.emit(net::cancellation_type::total);
    signal.emit(net::cancellation_type::partial);
    check::run_until(io, [&] { return codes.size() == 1; });
    CHECK(!codes[0]);
    send();
    signal.emit(net::cancellation_type::terminal);
    check::run_until(io, [&] { return codes.size() == 2; });
    CHECK(codes[1] == net::error::operation_aborted);
}

/// Begins each kind of operation with a slot of its own.
template <class Signals>
static void begin_each_with_slots(const asio_driver &driver, const std::string &channel,
                                  Signals &signals, std::vector<net_error> &codes) {
    auto signal = std::begin(signals);
    const auto keep = [&] {
        return net::bind_cancellation_slot((signal++)->slot(),
                                           [&](net_error problem) { codes.push_back(problem); });
    };
    driver.async_send(channel, check::numbered(1), keep());
    driver.async_send_json(channel, "{}", keep());
    driver.async_group_add("group", channel, keep());
    driver.async_group_send("group", check::numbered(1), keep());
    driver.async_group_send_json("group", "{}", keep());
    driver.async_close(20s, keep());
}

BOTH(an_operation_that_a_slot_has_ended_is_done_all_the_same_and_completes_once) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    net::cancellation_signal signals[kinds];
    std::vector<net_error> codes;
    begin_each_with_slots(driver, channel, signals, codes);
    for (auto &each : signals) {
        each.emit(net::cancellation_type::terminal);
        each.emit(net::cancellation_type::terminal);
    }
    CHECK(codes.empty()); // never inside the signal
    check::run(io);       // until the layer is closed: the outcome of each has come by then
    CHECK(home.state() == connection_state::closed);
    CHECK(codes.size() == kinds);
    for (const auto &code : codes) {
        CHECK(code == net::error::operation_aborted);
    }
}

BOTH(a_slot_that_is_used_once_the_outcome_is_there_changes_nothing) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    home.wait_ready(check::deadline);
    asio_driver driver(io, home);
    net::cancellation_signal signals[kinds];
    std::vector<net_error> codes;
    begin_each_with_slots(driver, channel, signals, codes);
    // The outcomes are posted here, and no handler runs.
    while (home.try_poll(64, check::deadline)) {
    }
    for (auto &each : signals) {
        each.emit(net::cancellation_type::terminal);
    }
    check::run_until(io, [&] { return codes.size() == kinds; });
    CHECK(io.poll() == 0); // and none is called again
    // All were done, but for a membership that the close was faster than.
    for (const auto &code : codes) {
        CHECK(!code || code == status_code::closed);
    }
    CHECK(std::count(codes.begin(), codes.end(), status_code::ok) >= kinds - 1);
}

TEST(a_close_is_ended_by_a_slot_of_type_terminal_alone) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    asio_driver driver(io, home);
    net::cancellation_signal signal;
    std::vector<net_error> codes;
    driver.async_close(20s, net::bind_cancellation_slot(signal.slot(), [&](net_error problem) {
                           codes.push_back(problem);
                       }));
    signal.emit(net::cancellation_type::total);
    signal.emit(net::cancellation_type::partial);
    check::run(io);
    CHECK(codes.size() == 1 && !codes[0]);
}

#endif

int main(int argc, char **argv) { return check::run(argc, argv); }
