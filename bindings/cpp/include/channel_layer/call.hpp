// How C is called: its strings, its durations, its errors. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_CALL_HPP
#define CHANNEL_LAYER_CALL_HPP

#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>

#include "channel_layer.h"
#include "error.hpp"

namespace channel_layer {

/// A duration in the unit `Unit`, from any that std::chrono converts to it. One that is too long
/// for that, as `std::chrono::hours::max()`, is the longest there is, where std::chrono overflows.
template <class Unit> struct saturated {
    template <
        class Rep, class Period,
        class = std::enable_if_t<std::is_convertible_v<std::chrono::duration<Rep, Period>, Unit>>>
    constexpr saturated(std::chrono::duration<Rep, Period> given) noexcept : value(Unit::max()) {
        using wide = std::chrono::duration<std::intmax_t, Period>;
        constexpr auto most = std::chrono::duration_cast<wide>(Unit::max()).count();
        constexpr auto least = std::chrono::duration_cast<wide>(Unit::min()).count();
        const auto count = given.count();
        if (count > 0 ? static_cast<std::uintmax_t>(count) <= static_cast<std::uintmax_t>(most)
                      : static_cast<std::intmax_t>(count) >= least) {
            value = wide(static_cast<std::intmax_t>(count));
        } else if (!(count > 0)) {
            value = Unit::min();
        }
    }
    Unit value;
};

namespace detail {

/// Text for C, which ends with a NUL. Names need no memory of the heap.
class c_text {
  public:
    explicit c_text(std::string_view text) noexcept {
        if (text.find('\0') != std::string_view::npos) {
            fault = "a name, an option or JSON text must not hold a NUL";
            return;
        }
        char *room = small;
        if (text.size() >= sizeof small) {
            large.reset(new (std::nothrow) char[text.size() + 1]);
            room = large.get();
            if (room == nullptr) {
                code = status_code::internal;
                fault = "there is no memory for the text";
                return;
            }
        }
        if (!text.empty()) {
            std::memcpy(room, text.data(), text.size());
        }
        room[text.size()] = '\0';
        start = room;
    }
    const char *get() const noexcept { return start; }
    explicit operator bool() const noexcept { return start != nullptr; }
    failure problem() const noexcept { return failure(code, fault); }

  private:
    char small[LAYER_NAME_SIZE + 28];
    std::unique_ptr<char[]> large;
    const char *start = nullptr;
    status_code code = status_code::invalid;
    const char *fault = "";
};

/// C's milliseconds: what is negative does not wait, what is too long waits as long as C can.
inline std::uint32_t c_timeout(saturated<std::chrono::milliseconds> timeout) noexcept {
    constexpr std::chrono::milliseconds::rep most = std::numeric_limits<std::uint32_t>::max();
    const auto count = timeout.value.count();
    return static_cast<std::uint32_t>(count < 0 ? 0 : (count > most ? most : count));
}

/// Calls C with the place for its error.
template <class Call> result<void> run(Call &&call) noexcept {
    ::layer_error_t *problem = nullptr;
    const ::layer_status_t status = call(&problem);
    if (status != LAYER_OK) {
        return failure(status, problem);
    }
    return {};
}

/// Gives C a box, which is C's once the call has succeeded.
template <class Box, class Make, class Call>
result<void> run_with(Make &&make, Call &&call) noexcept {
    std::unique_ptr<Box> box;
    try {
        box.reset(make());
    } catch (const std::bad_alloc &) {
        return failure(status_code::internal, "there is no memory for the callback");
    } catch (...) {
        return failure(status_code::invalid, "the callable cannot be stored: its copy or move "
                                             "constructor throws");
    }
    ::layer_error_t *problem = nullptr;
    const ::layer_status_t status = call(static_cast<void *>(box.get()), &problem);
    if (status != LAYER_OK) {
        return failure(status, problem);
    }
    (void)box.release();
    return {};
}

} // namespace detail

} // namespace channel_layer

#endif /* CHANNEL_LAYER_CALL_HPP */
