// The Asio that a test program is compiled for: Boost's, or with CHANNEL_LAYER_ASIO_STANDALONE the
// standalone one.

#ifndef CHANNEL_LAYER_TESTS_NET_HPP
#define CHANNEL_LAYER_TESTS_NET_HPP

// First, since it must not need what is included below.
#include "channel_layer/asio.hpp"

#if defined(CHANNEL_LAYER_ASIO_STANDALONE)
#include <asio.hpp>
namespace net = asio;
using net_exception = std::system_error;
#else
#include <boost/asio.hpp>
namespace net = boost::asio;
using net_exception = boost::system::system_error;
#endif

#include "check.hpp"

using net_error = channel_layer::asio_detail::error_code;

namespace check {

inline channel_layer::layer open_polled(const std::string &host) {
    return channel_layer::layer(channel_layer::options()
                                    .set("host", host)
                                    .set("dispatch", "poll")
                                    .set("local_capacity", 2000)
                                    .set("remote_capacity", 2000));
}

/// {"n": number} as MessagePack.
inline std::vector<std::uint8_t> numbered(std::uint32_t number) {
    std::vector<std::uint8_t> bytes{0x81, 0xa1, 'n', 0xce};
    for (int shift = 24; shift >= 0; shift -= 8) {
        bytes.push_back(static_cast<std::uint8_t>(number >> shift));
    }
    return bytes;
}

inline std::uint32_t number_of(const channel_layer::message_view &message) {
    const std::string json(message.json());
    CHECK(json.rfind("{\"n\":", 0) == 0);
    return static_cast<std::uint32_t>(std::stoul(json.substr(5)));
}

/// Runs a context until nothing is left to do in it, which must come in time.
inline void run(net::io_context &io) {
    io.restart();
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (!io.stopped()) {
        io.run_one_until(end);
        if (std::chrono::steady_clock::now() > end) {
            throw failed("the context has not come to its end in time");
        }
    }
}

/// Runs a context until a condition is true.
template <class Condition> void run_until(net::io_context &io, Condition &&condition) {
    io.restart();
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (!condition()) {
        if (io.run_one_until(end) == 0) {
            throw failed("what a context was run for has not come true");
        }
    }
}

} // namespace check

#endif
