// What C++ adds to the C API: ownership, callables, exceptions, the two forms of a call.

#include <atomic>
#include <future>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel_layer_json.hpp"
#include "check.hpp"

using namespace channel_layer;
using namespace std::chrono_literals;
using nlohmann::json;

/// Counts how often what holds it was destroyed; moved-from ones do not count.
class counted {
  public:
    explicit counted(std::atomic<int> &destroyed) : count(&destroyed) {}
    counted(counted &&other) noexcept : count(std::exchange(other.count, nullptr)) {}
    counted &operator=(counted &&) = delete;
    ~counted() {
        if (count != nullptr) {
            ++*count;
        }
    }

  private:
    std::atomic<int> *count;
};

static_assert(!std::is_copy_constructible_v<layer> && std::is_nothrow_move_constructible_v<layer>);
static_assert(!std::is_copy_constructible_v<message> && std::is_nothrow_move_assignable_v<message>);
static_assert(!std::is_copy_constructible_v<receiver> &&
              std::is_nothrow_move_assignable_v<receiver>);
static_assert(!std::is_copy_constructible_v<options> &&
              std::is_nothrow_move_constructible_v<options>);
static_assert(!std::is_convertible_v<std::string, bytes_view>);
static_assert(std::is_convertible_v<std::vector<std::uint8_t>, bytes_view>);

// --- callables ------------------------------------------------------------------------------

TEST(a_move_only_callable_is_destroyed_once_after_its_last_call) {
    std::atomic<int> destroyed{0}, called{0};
    {
        const auto layer = check::open(check::memory());
        const auto channel = layer.new_channel();
        layer.send_async(channel, json::object(),
                         [held = counted(destroyed), &called, &destroyed](const outcome &given) {
                             called += given.ok() && destroyed == 0;
                         });
        check::eventually("the end of the callable", [&] { return destroyed == 1; });
        CHECK(called == 1);
        auto receiver = layer.receive(
            channel, [held = counted(destroyed)](message_view) {},
            [held = counted(destroyed)](status_code) {});
        receiver.cancel();
        CHECK(destroyed == 3);
        receiver.cancel();
        layer.receive(channel, [held = counted(destroyed)](message_view) {}).detach();
        CHECK(destroyed == 3);
    }
    CHECK(destroyed == 4);
}

TEST(a_check_of_options_fails_as_opening_does) {
    const struct {
        std::vector<std::pair<const char *, const char *>> options;
        status_code expected;
    } rows[] = {
        {{}, status_code::ok},
        {{{"host", "memory://check"}, {"expiry", "30"}}, status_code::ok},
        {{{"tls_ca_file", "/dev/null"}}, status_code::invalid}, // nothing would be encrypted
        {{{"host", "amqps://nowhere.invalid/"}, {"tls_ca_file", "/dev/null"}},
         status_code::invalid},
        {{{"host", "amqps://nowhere.invalid/"}, {"tls_ca_pem", "none"}}, status_code::invalid},
        {{{"host", "amqps://nowhere.invalid/"}, {"tls_cert_file", "/no/file"}},
         status_code::invalid},
    };
    for (const auto &row : rows) {
        options given;
        for (const auto &[name, value] : row.options) {
            given.set(name, value);
        }
        const auto checked = given.try_check();
        const auto opened = layer::try_open(given);
        CHECK(checked.status() == row.expected && opened.status() == row.expected);
        CHECK(std::string(checked.message()) == opened.message());
        if (!checked.ok()) {
            check::raises(row.expected, {}, [&] { given.check(); });
        }
    }
    options moved;
    const options taken = std::move(moved);
    CHECK(moved.try_check().status() == status_code::invalid);
    CHECK(&taken.check() == &taken);
}

TEST(json_text_that_is_sent_without_waiting_arrives_in_order) {
    check::queue<status_code> outcomes;
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    layer.group_add("g", channel);
    const auto done = [&](const outcome &given) { outcomes.put(given.status()); };
    for (int i = 0; i < 20; i++) {
        const auto text = json{{"n", i}}.dump();
        if (i % 2 == 0) {
            layer.send_json_async(channel, text, done);
        } else {
            layer.group_send_json_async("g", text, done);
        }
    }
    for (int i = 0; i < 20; i++) {
        const auto message = layer.receive_next(channel, 20s);
        CHECK(message->as<json>().at("n") == i);
        CHECK(message->group().has_value() == (i % 2 == 1));
        CHECK(outcomes.get() == status_code::ok);
    }
    layer.send_json_async("channels_none!gone", "{}", done);
    CHECK(outcomes.get() == status_code::no_channel);
}

TEST(a_close_without_waiting_is_told_once_after_all_other_callables) {
    for (const char *dispatch : {"thread", "poll"}) {
        check::queue<status_code> closed;
        std::atomic<int> destroyed{0}, outcomes{0}, ended{0};
        const channel_layer::layer layer(
            options().set("host", check::memory()).set("dispatch", dispatch));
        const auto channel = layer.new_channel();
        layer
            .receive(
                channel, [](message_view) {}, [&](status_code) { ended++; })
            .detach();
        for (int i = 0; i < 20; i++) {
            layer.send_async(channel, json::object(), [&](const outcome &) { outcomes++; });
        }
        layer.close_async(20s, [&, held = counted(destroyed)](const outcome &given) {
            closed.put(outcomes == 20 && ended == 1 ? given.status() : status_code::internal);
        });
        check::raises(status_code::closed, {}, [&] { (void)layer.new_channel(); });
        if (std::string_view(dispatch) == "poll") {
            while (layer.try_poll(64, 20s)) {
            }
        }
        CHECK(closed.get() == status_code::ok);
        layer.close(20s); // it has waited for the other's end
        CHECK(destroyed == 1);
    }
}

TEST(a_callable_is_destroyed_once_by_a_call_that_fails) {
    std::atomic<int> destroyed{0};
    const auto layer = check::open(check::memory());
    const auto done = [&] {
        return [held = counted(destroyed)](const outcome &) { std::abort(); };
    };
    check::raises(status_code::invalid, {"no mark"},
                  [&] { layer.send_async("no mark", json::object(), done()); });
    CHECK(destroyed == 1);
    check::raises(status_code::invalid, {"a group"},
                  [&] { layer.group_send_async("a group", json::object(), done()); });
    CHECK(destroyed == 2);
    check::raises(status_code::invalid, {}, [&] { layer.group_add_async("g", "x!y", done()); });
    CHECK(destroyed == 3);
    const auto own = layer.new_channel();
    check::raises(status_code::invalid, {"twin"},
                  [&] { layer.send_json_async(own, R"({"twin": 1, "twin": 2})", done()); });
    CHECK(destroyed == 4);
    check::raises(status_code::invalid, {"NUL"},
                  [&] { layer.group_send_json_async("g", std::string_view("{}\0", 3), done()); });
    CHECK(destroyed == 5);
    CHECK(layer.try_receive_next(own, 0ms).status() == status_code::timeout);
    check::raises(status_code::invalid, {}, [&] {
        (void)layer.receive("x!y", [held = counted(destroyed)](message_view) {});
    });
    CHECK(destroyed == 6);
}

TEST(a_callable_that_is_no_temporary_is_copied) {
    check::queue<status_code> outcomes;
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    std::function<void(const outcome &)> done = [&](const outcome &given) {
        outcomes.put(given.status());
    };
    layer.send_async(channel, json::object(), done);
    layer.group_add_async("g", channel, done);
    layer.group_send_async("g", json::object(), done);
    layer.send_json_async(channel, "{}", done);
    layer.group_send_json_async("g", "{}", done);
    for (int i = 0; i < 5; i++) {
        CHECK(outcomes.get() == status_code::ok);
    }
    CHECK(done);
}

TEST(a_receiver_may_end_itself_and_outlive_its_layer) {
    check::queue<status_code> ended;
    check::queue<int> called;
    receiver kept, own;
    {
        const auto layer = check::open(check::memory());
        kept = layer.receive(
            layer.new_channel(), [](message_view) {},
            [&](status_code status) { ended.put(status); });
        const auto channel = layer.new_channel();
        std::promise<void> assigned;
        own = layer.receive(channel, [&](message_view) {
            assigned.get_future().wait();
            own = receiver();
            called.put(1);
        });
        assigned.set_value();
        layer.send_json(channel, "{}");
        called.get();
        check::eventually("the end of one receiver",
                          [&] { return layer.stat(statistic::receivers) == 1; });
    }
    CHECK(ended.get("the end of the other") == status_code::closed);
    kept.cancel();
}

TEST(a_stopped_receiver_takes_one_message_and_a_message_can_be_kept) {
    std::vector<message> kept;
    check::queue<int> called;
    {
        const auto layer = check::open(check::memory());
        const auto channel = layer.new_channel();
        layer.group_add("g", channel);
        const auto receiver = layer.receive(channel, [&](message_view lent) {
            kept.push_back(lent.keep());
            called.put(1);
            return flow::stop;
        });
        layer.group_send(std::string_view("g"), json{{"type", "t"}, {"n", 1}});
        layer.send(channel, json{{"n", 2}});
        called.get();
        CHECK(layer.receive_next(channel, 5s)->as<json>() == json({{"n", 2}}));
        CHECK(!layer.receive_next(channel, -1ms));
    }
    CHECK(kept.size() == 1 && kept[0].as<json>()["n"] == 1);
    CHECK(kept[0].group() == "g" && kept[0].type() == "t");
    const message moved = std::move(kept[0]);
    CHECK(kept[0].data().empty() && !kept[0].group() && kept[0].channel().empty());
    check::raises(status_code::invalid, {}, [&] { (void)kept[0].json(); });
    CHECK(moved.json() == R"({"n":1,"type":"t"})");
}

// --- exceptions -----------------------------------------------------------------------------

static std::string text_of(const std::exception_ptr &problem) {
    try {
        std::rethrow_exception(problem);
    } catch (const std::exception &known) {
        return known.what();
    }
}

TEST(an_exception_in_a_callback_goes_to_the_hook_and_ends_the_receiver) {
    check::queue<std::string> caught;
    options chosen;
    chosen.set("host", check::memory())
        .on_state([](connection_state, std::uint64_t) { throw std::runtime_error("of the state"); })
        .on_log([](log_level, std::string_view, std::string_view, std::string_view) {
            throw std::runtime_error("of the log");
        })
        .on_exception([&](std::exception_ptr problem, const char *where) {
            caught.put(std::string(where) + ": " + text_of(problem));
        });
    const layer layer(chosen);
    std::vector<std::string> first = {caught.get(), caught.get()};
    std::sort(first.begin(), first.end());
    CHECK(first[0] == "on_log: of the log");
    CHECK(first[1] == "on_state: of the state");
    const auto channel = layer.new_channel();
    const auto receiver =
        layer.receive(channel, [](message_view lent) { (void)lent.as<json>().at("absent"); });
    layer.send(channel, json{{"n", 1}});
    check::holds(caught.get(), "receive: [json.exception");
    check::eventually("its end", [&] { return layer.stat(statistic::receivers) == 0; });
    layer.send(channel, json{{"n", 2}});
    CHECK(layer.receive_next(channel, 5s)->as<json>()["n"] == 2);
    layer.send_async(channel, json::object(),
                     [](const outcome &) { throw std::runtime_error("of done"); });
    CHECK(caught.get() == "send_async: of done");
}

TEST(an_exception_without_a_hook_is_written_to_standard_error) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    const int before = dup(STDERR_FILENO);
    CHECK(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
    {
        const auto layer = check::open(check::memory());
        layer.send_async(layer.new_channel(), json::object(),
                         [](const outcome &) { throw std::runtime_error("nobody hears"); });
        check::eventually("the outcome", [&] { return layer.stat(statistic::in_flight) == 0; });
    }
    {
        options chosen;
        chosen.set("host", check::memory()).on_exception([](std::exception_ptr, const char *) {
            throw std::runtime_error("the hook fails");
        });
        const layer layer(chosen);
        layer.send_async(layer.new_channel(), json::object(), [](const outcome &) { throw 7; });
        check::eventually("the outcome", [&] { return layer.stat(statistic::in_flight) == 0; });
    }
    dup2(before, STDERR_FILENO);
    close(before);
    std::string written;
    char part[512];
    for (ssize_t count; (count = read(ends[0], part, sizeof part)) > 0;) {
        written.append(part, static_cast<std::size_t>(count));
    }
    close(ends[0]);
    check::holds(written, "an exception left a callback of send_async: nobody hears\n");
    check::holds(written, "an exception left a callback of send_async\n");
    check::holds(written, "an exception left a callback of on_exception: the hook fails\n");
}

// --- misuse ---------------------------------------------------------------------------------

TEST(both_forms_of_a_call_say_the_same) {
    const auto layer = check::open(check::memory());
    const auto outcome = layer.try_send("no mark", json::object());
    CHECK(!outcome && !outcome.ok() && outcome.status() == status_code::invalid);
    check::raises(status_code::invalid, {outcome.message()},
                  [&] { layer.send("no mark", json::object()); });
    check::raises(status_code::invalid, {outcome.message()}, [&] { outcome.value(); });
    CHECK(layer.try_send(layer.new_channel(), json::object()));
    auto name = layer.try_new_channel("x.");
    CHECK(name && name->find("!x.") != std::string::npos && *name.message() == '\0');
    CHECK(layer.try_receive_next(*name, 0ms).status() == status_code::timeout);
    CHECK(layer.try_stat(static_cast<statistic>(9999)).status() == status_code::invalid);
}

TEST(a_layer_that_was_moved_from_or_closed_says_so) {
    auto first = check::open(check::memory());
    const auto layer = std::move(first);
    const auto channel = layer.new_channel();
    const auto all = [&](const channel_layer::layer &used, const char *says) {
        const auto done = [](const outcome &) { std::abort(); };
        const auto closed = [&](auto &&call) { check::raises(status_code::closed, {says}, call); };
        closed([&] { used.send(channel, json::object()); });
        closed([&] { used.send_json(channel, "{}"); });
        closed([&] { used.group_send("g", json::object()); });
        closed([&] { used.group_send_json("g", "{}"); });
        closed([&] { used.send_async(channel, json::object(), done); });
        closed([&] { used.group_send_async("g", json::object(), done); });
        closed([&] { used.send_json_async(channel, "{}", done); });
        closed([&] { used.group_send_json_async("g", "{}", done); });
        closed([&] { used.group_add("g", channel); });
        closed([&] { used.group_add_async("g", channel, done); });
        closed([&] { used.group_discard("g", channel); });
        closed([&] { used.channel_discard(channel); });
        closed([&] { (void)used.receive(channel, [](message_view) {}); });
        closed([&] { (void)used.receive_next(channel, 0ms); });
        closed([&] { (void)used.new_channel(); });
        closed([&] { used.wait_ready(0ms); });
    };
    all(first, "moved from");
    CHECK(first.fd() == -1);
    check::raises(status_code::closed, {"moved from"}, [&] { first.close(0ms); });
    check::raises(status_code::closed, {"moved from"},
                  [&] { first.close_async(0ms, [](const outcome &) { std::abort(); }); });
    check::raises(status_code::closed, {"moved from"}, [&] { (void)first.poll(); });
    check::raises(status_code::closed, {"moved from"}, [&] { (void)first.state(); });
    layer.close(10s);
    all(layer, "closed");
    layer.close(10s);
    CHECK(layer.state() == connection_state::closed);
}

TEST(a_duration_too_long_for_its_unit_is_as_long_as_there_is) {
    constexpr auto endless = std::chrono::hours::max();
    options chosen;
    const auto refused = chosen.try_set("expiry", endless);
    CHECK(refused.status() == status_code::invalid);
    check::holds(refused.message(), "\"9223372036.");
    check::raises(status_code::invalid, {"\"-9223372036."},
                  [&] { chosen.set("expiry", std::chrono::hours::min()); });
    CHECK(chosen.try_set("expiry", std::chrono::duration<std::uint64_t>(30)));

    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    std::atomic<bool> waits{false};
    auto next = std::async(std::launch::async, [&] {
        waits = true;
        return layer.receive_next(channel, endless);
    });
    check::eventually("the wait", [&] { return waits.load(); });
    CHECK(next.wait_for(100ms) == std::future_status::timeout);
    layer.send_json(channel, R"({"type": "late"})");
    const auto given = next.get();
    CHECK(given && given->type() == "late");
    layer.wait_ready(endless);
    layer.close(endless);
}

TEST(a_negative_timeout_does_not_wait) {
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    for (const auto negative : {std::chrono::hours(-1), std::chrono::hours::min()}) {
        const auto began = std::chrono::steady_clock::now();
        CHECK(!layer.receive_next(channel, negative));
        CHECK(layer.try_receive_next(channel, negative).status() == status_code::timeout);
        CHECK(std::chrono::steady_clock::now() - began < 10s);
        layer.send_json(channel, R"({"type": "there"})");
        check::eventually("the message",
                          [&] { return layer.receive_next(channel, negative).has_value(); });
    }
}

TEST(a_wrong_argument_is_refused_with_its_text) {
    options chosen;
    check::raises(status_code::invalid, {"no_such"}, [&] { chosen.set("no_such", "1"); });
    check::raises(status_code::invalid, {"expiry", "-1.5"}, [&] { chosen.set("expiry", -1500ms); });
    check::raises(status_code::invalid, {"remote_capacity", "-7"},
                  [&] { chosen.set("remote_capacity", -7); });
    check::raises(status_code::invalid, {"NUL"},
                  [&] { chosen.set("host", std::string_view("a\0b", 3)); });
    CHECK(!chosen.try_set("timeout", 0s));
    chosen.set("expiry", 250ms).set("timeout", 3s).set("remote_capacity", 5u);
    const auto moved = std::move(chosen);
    check::raises(status_code::invalid, {"moved from"}, [&] { chosen.set("expiry", 1s); });
    check::raises(status_code::invalid, {"moved from"}, [&] { const layer none(chosen); });
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    check::raises(status_code::invalid, {"NUL"},
                  [&] { layer.send(channel + std::string(1, '\0'), json::object()); });
    check::raises(status_code::invalid, {},
                  [&] { layer.send(std::string(100000, 'x') + "!y", json::object()); });
    check::raises(status_code::invalid, {"__asgi_group__"}, [&] {
        layer.send(channel, json{{"__asgi_group__", "x"}});
    });
    check::raises(status_code::invalid, {}, [&] { layer.send(channel, json::array()); });
    check::raises(status_code::invalid, {}, [&] { layer.send(channel, bytes_view()); });
    check::raises(status_code::invalid, {"poll"}, [&] { (void)layer.poll(); });
    CHECK(layer.fd() == -1);
}

TEST(a_call_that_waits_is_refused_in_a_callback) {
    const auto layer = check::open(check::memory());
    check::queue<status_code> said;
    const auto channel = layer.new_channel();
    const auto receiver = layer.receive(channel, [&](message_view) {
        said.put(layer.try_send(channel, json::object()).status());
        said.put(layer.try_receive_next(channel, 1s).status());
    });
    layer.send_json(channel, "{}");
    CHECK(said.get() == status_code::would_deadlock);
    CHECK(said.get() == status_code::would_deadlock);
}

TEST(a_handle_from_before_a_fork_says_so_and_the_child_opens_its_own) {
    for (const auto &host : {check::memory(), check::rabbitmq()}) {
        auto layer = check::open(host);
        layer.wait_ready(check::deadline);
        const auto channel = layer.new_channel();
        auto receiver = layer.receive(channel, [](message_view) {});
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            // No exception may lead the child back into the tests of its parent.
            int failed = 1;
            try {
                check::raises(status_code::forked, {"fork"},
                              [&] { layer.send(channel, json::object()); });
                check::raises(status_code::forked, {"fork"}, [&] { (void)layer.state(); });
                check::raises(status_code::forked, {"fork"}, [&] { receiver.cancel(); });
                const auto own = check::open(host);
                const auto mine = own.new_channel();
                own.send_json(mine, "{}");
                CHECK(own.receive_next(mine, check::deadline));
                { const auto dropped = std::move(layer); }
                failed = 0;
            } catch (const std::exception &problem) {
                std::fprintf(stderr, "child: %s\n", problem.what());
            }
            _exit(failed);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        receiver.cancel();
        layer.send_json(channel, "{}");
        CHECK(layer.receive_next(channel, check::deadline));
    }
}

// --- JSON -----------------------------------------------------------------------------------

TEST(json_values_keep_their_types) {
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    json big = json::object();
    for (int i = 0; i < 70000; i++) {
        big[std::to_string(i)] = i;
    }
    const json sent = {{"double", 1.0},
                       {"integer", 1},
                       {"bytes", json::binary({0, 255})},
                       {"list", json(std::vector<int>(20, 7))},
                       {"more", json(std::vector<int>(70000, 7))},
                       {"big", big}};
    layer.send(channel, sent);
    const auto next = layer.receive_next(channel, 5s);
    const auto arrived = next->as<json>();
    CHECK(arrived == sent);
    CHECK(arrived["double"].is_number_float() && arrived["integer"].is_number_integer());
    CHECK(arrived["bytes"].is_binary());
    const nlohmann::ordered_json ordered = {{"z", 1}, {"a", 2.0}};
    layer.send(channel, ordered);
    const auto kept = layer.receive_next(channel, 5s)->as<nlohmann::ordered_json>();
    CHECK(kept == ordered && kept.begin().key() == "z" && kept["a"].is_number_float());
}

TEST(integers_of_64_bits_arrive_with_and_without_a_sign) {
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    const json sent = {{"least", std::numeric_limits<std::int64_t>::min()},
                       {"signed", std::numeric_limits<std::int64_t>::max()},
                       {"above", std::uint64_t(1) << 63},
                       {"most", std::numeric_limits<std::uint64_t>::max()}};
    layer.send(channel, sent);
    layer.send_json(channel, sent.dump());
    for (int i = 0; i < 2; i++) {
        const auto next = layer.receive_next(channel, 5s);
        const auto arrived = next->as<json>();
        CHECK(arrived == sent && json::parse(next->json()) == sent);
        CHECK(arrived["most"].get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
        CHECK(arrived["least"].is_number_integer() && !arrived["least"].is_number_unsigned());
    }
    for (const char *beyond : {"18446744073709551616", "-9223372036854775809"}) {
        check::raises(status_code::invalid, {"message.v[1]"}, [&] {
            layer.send_json(channel, R"({"v": [0, )" + std::string(beyond) + "]}");
        });
    }
}

TEST(json_that_no_message_can_hold_is_refused) {
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    check::raises(status_code::invalid, {"typed"}, [&] {
        layer.send(channel, json{{"typed", json::binary({1}, 5)}});
    });
    check::raises(status_code::invalid, {}, [&] { layer.send(channel, json{{"text", "\xff"}}); });
    json deep = json::array();
    for (int i = 0; i < 5000; i++) {
        deep = json::array({std::move(deep)});
    }
    check::raises(status_code::invalid, {"deep"}, [&] {
        layer.send(channel, json{{"deep", deep}});
    });
    const std::vector<std::uint8_t> numbered = {0x81, 0x01, 0x02};
    bool refused = false;
    try {
        (void)packer<json>::unpack(numbered);
    } catch (const json::exception &) {
        refused = true;
    }
    CHECK(refused);
}

/// {"a": …} with `levels` - 1 times what opens an array or a map of one value around a nil.
static std::vector<std::uint8_t> nested(std::size_t levels,
                                        const std::vector<std::uint8_t> &opening = {0x91}) {
    std::vector<std::uint8_t> bytes = {0x81, 0xa1, 'a'};
    for (std::size_t level = 1; level < levels; level++) {
        bytes.insert(bytes.end(), opening.begin(), opening.end());
    }
    bytes.push_back(0xc0);
    return bytes;
}

template <class Json> static void a_depth_of_128_at_most() {
    // Each head of an array and a map, and in front of the value that nests one of each other kind,
    // with bytes that would be heads of arrays elsewhere.
    const std::vector<std::vector<std::uint8_t>> openings = {
        {0x91},
        {0x81, 0xa1, 'k'},
        {0xdc, 0, 1},
        {0xdd, 0, 0, 0, 1},
        {0xde, 0, 1, 0xd9, 1, 'k'},
        {0xdf, 0, 0, 0, 1, 0xda, 0, 1, 'k'},
        {0x81, 0xdb, 0, 0, 0, 1, 'k'},
        {0x92, 0x7f},
        {0x92, 0xff},
        {0x92, 0xc3},
        {0x92, 0xa2, 0x91, 0x91},
        {0x92, 0xc4, 1, 0x91},
        {0x92, 0xc5, 0, 1, 0x91},
        {0x92, 0xc6, 0, 0, 0, 1, 0x91},
        {0x92, 0xc7, 1, 5, 0x91},
        {0x92, 0xc8, 0, 1, 5, 0x91},
        {0x92, 0xc9, 0, 0, 0, 1, 5, 0x91},
        {0x92, 0xca, 0x3f, 0x91, 0x91, 0x91},
        {0x92, 0xcb, 0x3f, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xcc, 0x91},
        {0x92, 0xcd, 0x91, 0x91},
        {0x92, 0xce, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xcf, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xd0, 0x91},
        {0x92, 0xd1, 0x91, 0x91},
        {0x92, 0xd2, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xd3, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xd4, 5, 0x91},
        {0x92, 0xd5, 5, 0x91, 0x91},
        {0x92, 0xd6, 5, 0x91, 0x91, 0x91, 0x91},
        {0x92, 0xd7, 5, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91},
    };
    for (const auto &opening : openings) {
        const auto allowed = nested(128, opening);
        CHECK(Json::from_msgpack(allowed) == packer<Json>::unpack(allowed));
        check::raises(status_code::invalid, {},
                      [&] { (void)packer<Json>::unpack(nested(129, opening)); });
        for (auto cut = allowed; !cut.empty();) {
            cut.pop_back();
            bool refused = false;
            try {
                (void)packer<Json>::unpack(std::vector<std::uint8_t>(cut)); // of its own size
            } catch (const json::exception &) {
                refused = true;
            }
            CHECK(refused);
        }
    }
    check::raises(status_code::invalid, {}, [] { (void)packer<Json>::unpack(nested(5'000'000)); });
}

TEST(json_is_made_of_messages_that_nest_128_deep_at_most) {
    a_depth_of_128_at_most<json>();
    a_depth_of_128_at_most<nlohmann::ordered_json>();
}

TEST(json_of_a_message_may_have_any_number_of_arrays_and_maps_side_by_side) {
    json wide = json::array();
    for (int i = 0; i < 1000; i++) {
        wide.push_back(json::array());
        wide.push_back(json::object());
        wide.push_back(json{{"k", json::array({i})}});
    }
    const json message = {{"a", wide}, {"b", wide}};
    CHECK(packer<json>::unpack(packer<json>::pack(message)) == message);
}

TEST(json_nests_as_deep_as_a_layer_lets_messages_nest) {
    const auto layer = check::open(check::memory());
    const auto channel = layer.new_channel();
    layer.send(channel, nested(128));
    CHECK(layer.receive_next(channel, 5s)->try_as<json>());
    CHECK(layer.try_send(channel, nested(129)).status() == status_code::invalid);
}

// --- events ---------------------------------------------------------------------------------

TEST(states_and_log_records_arrive) {
    for (const auto &host : {check::memory(), check::rabbitmq()}) {
        check::queue<connection_state> states;
        check::queue<std::string> records;
        std::atomic<int> destroyed{0};
        {
            options chosen;
            chosen.set("host", host)
                .on_state([&, held = counted(destroyed)](connection_state state, std::uint64_t) {
                    states.put(state);
                })
                .on_log([&, held = counted(destroyed)](log_level, std::string_view id,
                                                       std::string_view target,
                                                       std::string_view text) {
                    records.put(std::string(id) + " " + std::string(target) + ": " +
                                std::string(text));
                });
            const layer layer(chosen);
            layer.wait_ready(check::deadline);
            check::holds(records.get(), "connected channel_layer::broker: connected");
            while (states.get("ready") != connection_state::ready) {
            }
            layer.close(10s);
            while (states.get("closed") != connection_state::closed) {
            }
        }
        CHECK(destroyed == 2);
    }
}

// --- isolation ------------------------------------------------------------------------------

/// An event that outlives its callback.
struct told {
    isolation_kind kind;
    std::optional<std::string> channel;
    std::uint64_t count;

    explicit told(const isolation_event &event)
        : kind(event.kind), channel(event.channel), count(event.count) {}
};

/// One channel uses all credit up with two messages, and then keeps no more than these.
static options isolating_soon(const std::string &host) {
    options chosen;
    chosen.set("host", host)
        .set("local_capacity", 1)
        .set("prefetch_count", 1)
        .set("channel_capacity", 2)
        .set("remote_capacity", 100)
        .set("stall_after", 100ms);
    return chosen;
}

static void send_six(const layer &sender, const std::string &channel) {
    for (int n = 0; n < 6; n++) {
        sender.send(channel, json{{"n", n}});
    }
}

TEST(isolation_names_the_channel_that_loses_messages) {
    for (const auto &host : {check::memory(), check::rabbitmq()}) {
        check::queue<told> events;
        std::atomic<int> destroyed{0};
        {
            auto chosen = isolating_soon(host);
            chosen.on_isolation([&, held = counted(destroyed)](const isolation_event &event) {
                events.put(told(event));
            });
            const layer layer(chosen);
            layer.wait_ready(check::deadline);
            const auto channel = layer.new_channel();
            send_six(layer, channel);

            const auto began = events.get("the beginning");
            CHECK(began.kind == isolation_kind::began);
            CHECK(!began.channel && began.count == 2);
            std::uint64_t lost = 0;
            while (lost < 4) {
                const auto next = events.get("a loss");
                CHECK(next.kind == isolation_kind::lost);
                CHECK(next.channel == channel && next.count > 0);
                lost += next.count;
            }
            CHECK(lost == 4);
            CHECK(layer.stat(statistic::isolating) == 1);
            CHECK(layer.stat(statistic::isolations) == 1);
            CHECK(layer.stat(statistic::dropped_channel_full) == 4);
            CHECK(layer.stat(statistic::dropped_total_full) == 0);

            for (int n = 0; n < 2; n++) {
                CHECK(layer.receive_next(channel, 20s)->as<json>()["n"] == n);
            }
            const auto ended = events.get("the end");
            CHECK(ended.kind == isolation_kind::ended);
            CHECK(!ended.channel && ended.count == 4);
            CHECK(layer.stat(statistic::isolating) == 0);
            CHECK(!layer.receive_next(channel, 0ms));
            CHECK(destroyed == 0);
        }
        CHECK(destroyed == 1 && events.size() == 0);
    }
}

TEST(an_exception_in_the_isolation_callback_goes_to_the_hook_and_more_events_come) {
    check::queue<std::string> caught;
    check::queue<told> events;
    auto chosen = isolating_soon(check::memory());
    chosen
        .on_isolation([&](const isolation_event &event) {
            if (event.kind == isolation_kind::began) {
                throw std::runtime_error("of isolation");
            }
            events.put(told(event));
        })
        .on_exception([&](std::exception_ptr problem, const char *where) {
            caught.put(std::string(where) + ": " + text_of(problem));
        });
    const layer layer(chosen);
    send_six(layer, layer.new_channel());
    CHECK(caught.get() == "on_isolation: of isolation");
    CHECK(events.get("a loss").kind == isolation_kind::lost);
}

TEST(a_layer_may_be_closed_while_its_channels_are_isolated) {
    for (const auto &host : {check::memory(), check::rabbitmq()}) {
        for (const bool inside : {false, true}) {
            check::queue<status_code> began;
            std::atomic<int> destroyed{0};
            {
                const layer *opened = nullptr;
                auto chosen = isolating_soon(host);
                chosen.on_isolation([&, held = counted(destroyed)](const isolation_event &event) {
                    if (event.kind == isolation_kind::began) {
                        began.put(inside ? opened->try_close(0ms).status() : status_code::ok);
                    }
                });
                const layer layer(chosen);
                opened = &layer;
                layer.wait_ready(check::deadline);
                const auto channel = layer.new_channel();
                // Where the callback closes the layer, sends may already be refused.
                for (int n = 0; n < 6; n++) {
                    const auto sent = layer.try_send(channel, json{{"n", n}}).status();
                    CHECK(sent == status_code::ok || (inside && sent != status_code::full));
                }
                CHECK(began.get("the beginning") == status_code::ok);
                layer.close(10s);
                CHECK(layer.state() == connection_state::closed);
                CHECK(layer.try_receive_next(channel, 0ms).status() == status_code::closed);
            }
            CHECK(destroyed == 1);
        }
    }
}

TEST(statistics_come_as_text_for_prometheus) {
    const layer layer(options().set("host", check::memory()));
    layer.wait_ready(check::deadline);
    check::holds(layer.prometheus("site=\"a\""), "channel_layer_ready{site=\"a\"} 1\n");
    const std::string text = layer.prometheus();
    check::holds(text, "# TYPE channel_layer_callback_seconds_total counter\n");
    CHECK(text.back() == '\n');
    CHECK(layer.try_prometheus("reason=\"mine\"").status() == status_code::invalid);
}

TEST(an_epoll_loop_runs_all_callbacks_on_its_own_thread) {
    for (const auto &host : {check::memory(), check::rabbitmq()}) {
        const layer layer(options().set("host", host).set("dispatch", "poll"));
        const int loop = epoll_create1(EPOLL_CLOEXEC);
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        CHECK(loop >= 0 && epoll_ctl(loop, EPOLL_CTL_ADD, layer.fd(), &wanted) == 0);
        const auto here = std::this_thread::get_id();
        int joined = 0, confirmed = 0, received = 0, elsewhere = 0;
        const auto channel = layer.new_channel();
        const auto receiver = layer.receive(channel, [&](message_view) {
            received++;
            elsewhere += std::this_thread::get_id() != here;
        });
        const auto group = check::unique("loop-");
        layer.group_add_async(group, channel, [&](const outcome &given) {
            joined += given.ok();
            elsewhere += std::this_thread::get_id() != here;
            for (int i = 0; i < 100; i++) {
                layer.group_send_async(group, json{{"n", i}}, [&](const outcome &sent) {
                    confirmed += sent.ok();
                    elsewhere += std::this_thread::get_id() != here;
                });
            }
        });
        while (confirmed < 100 || received < 100) {
            epoll_event event;
            CHECK(epoll_wait(loop, &event, 1, 20000) == 1);
            (void)layer.poll(16);
        }
        close(loop);
        CHECK(joined == 1 && elsewhere == 0);
        layer.close(10s);
    }
}

TEST(each_status_is_a_code_of_its_category) {
    for (std::int32_t i = 1; i <= LAYER_INTERNAL; i++) {
        const auto status = static_cast<status_code>(i);
        const std::error_code code = status;
        CHECK(code && code == status && code.value() == i);
        CHECK(code != static_cast<status_code>(i - 1));
        CHECK(status_of(code) == status);
        CHECK(&code.category() == &status_category());
        check::holds(code.message(), std::string(to_string(status)) + ": ");
        CHECK(code.message().find("unknown") == std::string::npos);
    }
    CHECK(!std::error_code(status_code::ok));
    CHECK(status_of(std::error_code()) == status_code::ok);
    CHECK(!status_of(std::make_error_code(std::errc::timed_out)));
    CHECK(std::error_code(status_code::timeout) == std::errc::timed_out);
    CHECK(std::error_code(status_code::too_large) == std::errc::message_size);
    CHECK(std::error_code(status_code::full) != std::errc::timed_out);
}

TEST(a_message_may_be_empty) {
    message empty;
    CHECK(!empty && empty.data().empty() && empty.channel().empty());
    CHECK(!empty.group() && !empty.type() && !empty.keep());
    CHECK(empty.try_json().status() == status_code::invalid);
    auto home = check::open(check::memory());
    const std::string channel = home.new_channel();
    home.send_json(channel, "{\"type\": \"a\"}");
    empty = std::move(*home.receive_next(channel, 10s));
    CHECK(empty && empty.type() == "a");
    const message kept = empty.keep();
    empty = message();
    CHECK(!empty && kept.type() == "a");
}

TEST(a_duplicate_of_the_descriptor_is_the_callers) {
    std::optional<layer> home(options().set("host", check::memory()).set("dispatch", "poll"));
    const int duplicate = home->fd_dup();
    CHECK(duplicate >= 0 && duplicate != home->fd());
    bool called = false;
    home->send_async(home->new_channel(), std::vector<std::uint8_t>{0x80},
                     [&](const outcome &) { called = true; });
    struct pollfd due = {duplicate, POLLIN, 0};
    CHECK(::poll(&due, 1, 30000) == 1);
    check::eventually("the outcome", [&] { return home->poll() > 0; });
    CHECK(called);
    home.reset();
    CHECK(::poll(&due, 1, 0) == 0);
    CHECK(::close(duplicate) == 0);
}

int main(int argc, char **argv) { return check::run(argc, argv); }
