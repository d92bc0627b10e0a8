/* A layer in a context of Boost.Asio, with a coroutine: asio [HOST] */

#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <utility> // which awaitable.hpp of Boost 1.74 forgets
#include <vector>

#include <boost/asio.hpp>

#include <channel_layer.hpp>
#include <channel_layer/asio.hpp>

namespace net = boost::asio;
using namespace std::chrono_literals;

/* [coroutine] */
/* {"type": "hello"} as MessagePack; channel_layer_json.hpp makes it of nlohmann::json. */
const std::vector<std::uint8_t> hello{0x81, 0xa4, 't', 'y', 'p', 'e',
                                      0xa5, 'h',  'e', 'l', 'l', 'o'};

net::awaitable<void> greet(const channel_layer::layer &layer,
                           const channel_layer::asio_driver &driver) {
    const std::string channel = layer.new_channel();
    co_await driver.async_group_add("room", channel, net::use_awaitable);
    co_await driver.async_group_send("room", hello, net::use_awaitable);
    const channel_layer::message next = co_await driver.async_receive(channel, net::use_awaitable);
    std::cout << "received a " << next.type().value_or("?") << '\n';
}
/* [end] */

/* [callbacks] */
void greet_by_callbacks(const channel_layer::asio_driver &driver, const std::string &channel) {
    driver.async_receive(channel,
                         [](boost::system::error_code problem, const channel_layer::message &next) {
                             if (!problem) {
                                 std::cout << "and a " << next.type().value_or("?") << '\n';
                             }
                         });
    driver.async_send(channel, hello, [](boost::system::error_code problem) {
        if (problem == channel_layer::status_code::full) {
            std::cerr << "later, then\n";
        } else if (problem) {
            std::cerr << problem.message() << '\n';
        }
    });
}
/* [end] */

int main(int argc, char **argv) try {
    /* [open] */
    net::io_context io;
    channel_layer::layer layer(channel_layer::options()
                                   .set("host", argc > 1 ? argv[1] : "memory://asio")
                                   .set("dispatch", "poll"));
    channel_layer::asio_driver driver(io, layer);
    driver.on_failure([](const char *operation, channel_layer::status_code, const char *text) {
        std::cerr << operation << ": " << text << '\n';
    });
    /* [end] */

    /* [run] */
    greet_by_callbacks(driver, layer.new_channel());
    std::exception_ptr problem;
    net::co_spawn(io, greet(layer, driver), [&](std::exception_ptr thrown) {
        problem = thrown;
        driver.async_close(5s, [](boost::system::error_code late) {
            if (late) {
                std::cerr << "closed, but not in order: " << late.message() << '\n';
            }
        }); /* after it nothing keeps run() from returning any more */
    });
    io.run();
    /* [end] */
    if (problem) {
        std::rethrow_exception(problem);
    }
} catch (const std::exception &problem) {
    std::cerr << problem.what() << '\n';
    return 1;
}
