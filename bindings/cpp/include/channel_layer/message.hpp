// Bytes, messages, and what turns a type into them. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_MESSAGE_HPP
#define CHANNEL_LAYER_MESSAGE_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "channel_layer.h"
#include "error.hpp"

namespace channel_layer {

/// Borrowed bytes. Made of any contiguous container of `std::uint8_t` or `std::byte`; of text only
/// on demand, since text that is passed as a message is more likely to be JSON.
class bytes_view {
  public:
    constexpr bytes_view() noexcept = default;
    constexpr bytes_view(const std::uint8_t *data, std::size_t size) noexcept
        : first(data), length(size) {}
    explicit bytes_view(std::string_view text) noexcept
        : first(reinterpret_cast<const std::uint8_t *>(text.data())), length(text.size()) {}
    template <class Bytes, class Value = typename Bytes::value_type,
              class = std::enable_if_t<std::is_same_v<Value, std::uint8_t> ||
                                       std::is_same_v<Value, std::byte>>,
              class = decltype(std::declval<const Bytes &>().data())>
    bytes_view(const Bytes &bytes) noexcept
        : first(reinterpret_cast<const std::uint8_t *>(bytes.data())), length(bytes.size()) {}

    constexpr const std::uint8_t *data() const noexcept { return first; }
    constexpr std::size_t size() const noexcept { return length; }
    constexpr bool empty() const noexcept { return length == 0; }
    constexpr const std::uint8_t *begin() const noexcept { return first; }
    constexpr const std::uint8_t *end() const noexcept { return first + length; }

  private:
    const std::uint8_t *first = nullptr;
    std::size_t length = 0;
};

/// How a T becomes MessagePack and is made of it. A specialisation has the static functions
/// `pack(const T &)`, whose result converts to `bytes_view`, and `unpack(bytes_view)`, which gives
/// a T. channel_layer_json.hpp has those for nlohmann::json.
template <class T> struct packer;

namespace detail {

template <class T> using packed_t = decltype(packer<T>::pack(std::declval<const T &>()));

/// Turns the exception that is being handled into a failure.
inline failure failure_of_packer() noexcept {
    try {
        throw;
    } catch (const error &problem) {
        return failure(problem.status(), problem.what());
    } catch (const std::bad_alloc &) {
        return failure(status_code::internal, "there is no memory for the message");
    } catch (const std::exception &problem) {
        return failure(status_code::invalid, problem.what());
    } catch (...) {
        return failure(status_code::invalid, "the message cannot be converted");
    }
}

} // namespace detail

class message;

/// A message that is borrowed, as in a callback, or from a `message` that owns it.
class message_view {
  public:
    explicit message_view(const ::layer_message_t *message) noexcept : handle(message) {}

    /// One MessagePack map. It lives as long as the message, as do all views below.
    bytes_view data() const noexcept {
        std::size_t length = 0;
        const std::uint8_t *data = ::layer_message_data(handle, &length);
        return bytes_view(data, length);
    }

    /// As a T that has a `packer`; `invalid` where that cannot hold the message.
    template <class T> T as() const { return try_as<T>().value(); }
    template <class T> result<T> try_as() const noexcept {
        try {
            return packer<T>::unpack(data());
        } catch (...) {
            return detail::failure_of_packer();
        }
    }

    /// As JSON text; bytes are a string of U+FFFF followed by base64.
    std::string_view json() const { return try_json().value(); }
    result<std::string_view> try_json() const noexcept {
        const char *json = nullptr;
        ::layer_error_t *problem = nullptr;
        ::layer_status_t status = ::layer_message_json(handle, &json, &problem);
        if (status != LAYER_OK) {
            return failure(status, problem);
        }
        return std::string_view(json);
    }

    /// The channel that it was delivered on.
    std::string_view channel() const noexcept { return text(::layer_message_channel(handle)); }
    /// The group that it was sent to, if it was sent to one.
    std::optional<std::string_view> group() const noexcept {
        return optional(::layer_message_group(handle));
    }
    /// The value of the key "type", if that is a string without NUL.
    std::optional<std::string_view> type() const noexcept {
        return optional(::layer_message_type(handle));
    }

    /// Keeps the message beyond a callback. The bytes are shared, not copied.
    inline message keep() const noexcept;

  protected:
    const ::layer_message_t *handle;

  private:
    static std::string_view text(const char *text) noexcept {
        return text == nullptr ? std::string_view() : std::string_view(text);
    }
    static std::optional<std::string_view> optional(const char *text) noexcept {
        return text == nullptr ? std::nullopt : std::optional<std::string_view>(text);
    }
};

/// A message that is owned. It outlives its layer.
class message : public message_view {
  public:
    /// Empty: it has no bytes, no channel, group or type, `json()` is status `invalid`, and
    /// `keep()` is empty too. For handlers that get an error or a message, as `void(error_code,
    /// message)`.
    message() noexcept : message_view(nullptr), owned(nullptr) {}
    /// Takes the handle.
    explicit message(::layer_message_t *taken) noexcept : message_view(taken), owned(taken) {}
    message(message &&other) noexcept
        : message_view(std::exchange(other.handle, nullptr)),
          owned(std::exchange(other.owned, nullptr)) {}
    message &operator=(message &&other) noexcept {
        std::swap(handle, other.handle);
        std::swap(owned, other.owned);
        return *this;
    }
    ~message() { ::layer_message_free(owned); }

    /// Whether there is a message.
    explicit operator bool() const noexcept { return owned != nullptr; }

  private:
    ::layer_message_t *owned;
};

inline message message_view::keep() const noexcept { return message(::layer_message_ref(handle)); }

} // namespace channel_layer

#endif /* CHANNEL_LAYER_MESSAGE_HPP */
