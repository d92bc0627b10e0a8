// A status as std::error_code, for programs whose errors are of that kind. Part of
// channel_layer.hpp.

#ifndef CHANNEL_LAYER_ERROR_CODE_HPP
#define CHANNEL_LAYER_ERROR_CODE_HPP

#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "channel_layer.h"
#include "status.hpp"

namespace channel_layer {

namespace detail {

constexpr char category_name[] = "channel_layer";

/// What a status says in general. What it says of one call is the text of its error.
inline const char *meaning(int status) noexcept {
    switch (status) {
    case LAYER_OK:
        return "success";
    case LAYER_INVALID:
        return "an argument is not valid";
    case LAYER_FULL:
        return "a queue refused the message: its channels are full";
    case LAYER_NO_CHANNEL:
        return "there is no such channel";
    case LAYER_TOO_LARGE:
        return "the message is larger than the broker or an option allows";
    case LAYER_DISCONNECTED:
        return "not connected to the broker: the message was not sent";
    case LAYER_BUSY:
        return "too many sends are in flight";
    case LAYER_TIMEOUT:
        return "timed out";
    case LAYER_UNCONFIRMED:
        return "the message may or may not have been sent: the broker did not confirm it";
    case LAYER_REFUSED:
        return "the broker refused it";
    case LAYER_CANCELLED:
        return "cancelled";
    case LAYER_CLOSED:
        return "the layer is closed";
    case LAYER_WOULD_DEADLOCK:
        return "a call that waits is not allowed in a callback";
    case LAYER_FORKED:
        return "the layer belongs to the parent of this process";
    case LAYER_INTERNAL:
        return "an error of the system or of the library";
    default:
        return "unknown status";
    }
}

/// The generic condition that a status is equivalent to, if there is one.
inline std::optional<std::errc> generic_condition(int status) noexcept {
    switch (status) {
    case LAYER_INVALID:
        return std::errc::invalid_argument;
    case LAYER_FULL:
        return std::errc::no_buffer_space;
    case LAYER_TOO_LARGE:
        return std::errc::message_size;
    case LAYER_DISCONNECTED:
        return std::errc::not_connected;
    case LAYER_BUSY:
        return std::errc::resource_unavailable_try_again;
    case LAYER_TIMEOUT:
        return std::errc::timed_out;
    case LAYER_REFUSED:
        return std::errc::permission_denied;
    case LAYER_CANCELLED:
        return std::errc::operation_canceled;
    case LAYER_WOULD_DEADLOCK:
        return std::errc::resource_deadlock_would_occur;
    default:
        return std::nullopt;
    }
}

/// "LAYER_FULL: …", as logs and exceptions show it.
inline std::string described(int status) {
    return std::string(::layer_status_name(status)) + ": " + meaning(status);
}

class status_category_type final : public std::error_category {
  public:
    const char *name() const noexcept override { return category_name; }
    std::string message(int status) const override { return described(status); }
    std::error_condition default_error_condition(int status) const noexcept override {
        const auto generic = generic_condition(status);
        return generic ? std::make_error_condition(*generic) : std::error_condition(status, *this);
    }
};

} // namespace detail

/// The category of statuses, named "channel_layer".
inline const std::error_category &status_category() noexcept {
    static const detail::status_category_type category;
    return category;
}

/// `std::error_code code = status_code::full` and `code == status_code::full` work by it. Where C++
/// has a condition for it, as `std::errc::timed_out`, the code equals that too.
inline std::error_code make_error_code(status_code status) noexcept {
    return {static_cast<int>(status), status_category()};
}

/// The status that a code stands for; none if it is of another category.
inline std::optional<status_code> status_of(const std::error_code &code) noexcept {
    // By its name: one that was converted from Boost's has another address.
    if (!code) {
        return status_code::ok;
    }
    if (std::string_view(code.category().name()) != detail::category_name) {
        return std::nullopt;
    }
    return static_cast<status_code>(code.value());
}

} // namespace channel_layer

template <> struct std::is_error_code_enum<channel_layer::status_code> : std::true_type {};

#endif /* CHANNEL_LAYER_ERROR_CODE_HPP */
