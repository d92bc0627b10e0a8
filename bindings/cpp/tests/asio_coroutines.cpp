// channel_layer/asio.hpp with coroutines, in C++20.

#include "net.hpp"

#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
#include <asio/experimental/awaitable_operators.hpp>
#endif

using namespace channel_layer;
using namespace std::chrono_literals;

template <class T> using task = net::awaitable<T>;
static constexpr auto use_task = net::use_awaitable;

/// Runs a coroutine to its end, and gives its exception to the test.
template <class Make> static void run(net::io_context &io, Make &&make) {
    bool ended = false;
    std::exception_ptr problem;
    net::co_spawn(io, std::forward<Make>(make), [&](std::exception_ptr thrown) {
        problem = thrown;
        ended = true;
    });
    check::run_until(io, [&] { return ended; });
    if (problem) {
        std::rethrow_exception(problem);
    }
}

static void coroutines_await_each_operation(const std::string &host) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string group = check::unique("group-"), channel = home.new_channel();
    asio_driver driver(io, home);
    run(io, [&]() -> task<void> {
        co_await driver.async_group_add(group, channel, use_task);
        for (std::uint32_t i = 0; i < 200; i++) {
            co_await driver.async_group_send(group, check::numbered(2 * i), use_task);
            co_await driver.async_send(channel, check::numbered(2 * i + 1), use_task);
            message next = co_await driver.async_receive(channel, use_task);
            CHECK(next.group() == group && check::number_of(next) == 2 * i);
            next = co_await driver.async_receive(channel, use_task);
            CHECK(!next.group() && check::number_of(next) == 2 * i + 1);
        }
    });
}
TEST(coroutines_await_each_operation_memory) { coroutines_await_each_operation(check::memory()); }
TEST(coroutines_await_each_operation_rabbitmq) {
    coroutines_await_each_operation(check::rabbitmq());
}

static void coroutines_send_json_and_close(const std::string &host) {
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string group = check::unique("group-"), channel = home.new_channel();
    asio_driver driver(io, home);
    bool refused = false;
    run(io, [&]() -> task<void> {
        co_await driver.async_group_add(group, channel, use_task);
        co_await driver.async_send_json(channel, R"({"n":1})", use_task);
        co_await driver.async_group_send_json(group, R"({"n":2})", use_task);
        message next = co_await driver.async_receive(channel, use_task);
        CHECK(!next.group() && check::number_of(next) == 1);
        next = co_await driver.async_receive(channel, use_task);
        CHECK(next.group() == group && check::number_of(next) == 2);
        std::optional<task<void>> later;
        {
            std::string text = R"({"n":3})";
            later.emplace(driver.async_send_json(channel, text, use_task));
            text.assign(text.size(), ' ');
        }
        co_await std::move(*later);
        CHECK(check::number_of(co_await driver.async_receive(channel, use_task)) == 3);
        co_await driver.async_close(20s, use_task);
        CHECK(home.state() == connection_state::closed);
        try {
            co_await driver.async_send_json(channel, "{}", use_task);
        } catch (const net_exception &problem) {
            refused = problem.code() == status_code::closed;
        }
    });
    CHECK(refused);
    check::run(io); // the driver keeps it from returning no more
}
TEST(coroutines_send_json_and_close_memory) { coroutines_send_json_and_close(check::memory()); }
TEST(coroutines_send_json_and_close_rabbitmq) { coroutines_send_json_and_close(check::rabbitmq()); }

TEST(an_awaited_failure_is_thrown_with_its_code) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    asio_driver driver(io, home);
    bool thrown = false;
    run(io, [&]() -> task<void> {
        try {
            co_await driver.async_send(check::unique("channels_") + "!gone", check::numbered(1),
                                       use_task);
        } catch (const net_exception &problem) {
            thrown = problem.code() == status_code::no_channel;
            check::holds(problem.what(), "LAYER_NO_CHANNEL");
        }
    });
    CHECK(thrown);
}

TEST(an_operation_that_is_awaited_later_has_kept_its_arguments) {
    net::io_context io;
    layer home = check::open_polled(check::memory());
    asio_driver driver(io, home);
    const std::string channel = home.new_channel();
    run(io, [&]() -> task<void> {
        std::optional<task<void>> send;
        std::optional<task<message>> receive;
        {
            std::string name = channel;
            auto bytes = check::numbered(77);
            send.emplace(driver.async_send(name, bytes, use_task));
            receive.emplace(driver.async_receive(name, use_task));
            name.assign(name.size(), '!');
            bytes.assign(bytes.size(), 0);
        }
        co_await std::move(*send);
        CHECK(check::number_of(co_await std::move(*receive)) == 77);
    });
}

TEST(coroutines_of_many_clients_each_hear_their_room) {
    constexpr std::uint32_t clients = 50;
    net::io_context io;
    layer home = check::open_polled(check::rabbitmq());
    asio_driver driver(io, home);
    const std::string group = check::unique("room-");
    std::uint32_t joined = 0, ended = 0;
    const auto client = [&]() -> task<void> {
        const std::string channel = home.new_channel();
        co_await driver.async_group_add(group, channel, use_task);
        if (++joined == clients) {
            co_await driver.async_group_send(group, check::numbered(1), use_task);
        }
        CHECK(check::number_of(co_await driver.async_receive(channel, use_task)) == 1);
        driver.channel_discard(channel);
    };
    std::exception_ptr problem;
    for (std::uint32_t i = 0; i < clients; i++) {
        net::co_spawn(io, client, [&](std::exception_ptr thrown) {
            problem = thrown ? thrown : problem;
            ended++;
        });
    }
    check::run_until(io, [&] { return ended == clients; });
    CHECK(!problem);
}

#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)

/// A receive against a timer of no time: whichever is first, each message is received once.
static void a_race_with_a_timer_loses_no_message(const std::string &host) {
    using namespace net::experimental::awaitable_operators;
    constexpr std::uint32_t count = 300;
    net::io_context io;
    layer home = check::open_polled(host);
    const std::string channel = home.new_channel();
    asio_driver driver(io, home);
    std::uint32_t timeouts = 0;
    net::co_spawn(
        io,
        [&]() -> task<void> {
            for (std::uint32_t i = 0; i < count; i++) {
                co_await driver.async_send(channel, check::numbered(i), use_task);
            }
        },
        net::detached);
    run(io, [&]() -> task<void> {
        net::steady_timer timer(io);
        for (std::uint32_t expected = 0; expected < count;) {
            timer.expires_after(std::chrono::microseconds(timeouts % 400));
            auto first =
                co_await (driver.async_receive(channel, use_task) || timer.async_wait(use_task));
            if (first.index() == 0) {
                CHECK(check::number_of(std::get<0>(first)) == expected);
                expected++;
            } else {
                timeouts++;
            }
        }
    });
    CHECK(timeouts > 0);
}
TEST(a_race_with_a_timer_loses_no_message_memory) {
    a_race_with_a_timer_loses_no_message(check::memory());
}
TEST(a_race_with_a_timer_loses_no_message_rabbitmq) {
    a_race_with_a_timer_loses_no_message(check::rabbitmq());
}

/// A coroutine that does not wait for the end of a close any more leaves it under way.
TEST(a_close_that_loses_a_race_goes_on) {
    using namespace net::experimental::awaitable_operators;
    net::io_context io;
    layer home = check::open_polled(check::rabbitmq());
    home.wait_ready(check::deadline);
    asio_driver driver(io, home);
    std::size_t first = 0;
    run(io, [&]() -> task<void> {
        net::steady_timer timer(io, 0s);
        first =
            (co_await (driver.async_close(20s, use_task) || timer.async_wait(use_task))).index();
    });
    check::run(io);
    CHECK(first == 1);
    CHECK(home.state() == connection_state::closed);
}

#endif

int main(int argc, char **argv) { return check::run(argc, argv); }
