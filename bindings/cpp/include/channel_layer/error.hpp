// How a call ends: by an exception, a result or an outcome. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_ERROR_HPP
#define CHANNEL_LAYER_ERROR_HPP

#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "channel_layer.h"
#include "status.hpp"

namespace channel_layer {

/// Thrown by each call that fails. `what()` is for logs and people, and holds the library's text.
class error : public std::runtime_error {
  public:
    error(status_code status, const std::string &text) : std::runtime_error(text), code(status) {}
    status_code status() const noexcept { return code; }

  private:
    status_code code;
};

/// Why a call of a `try_` form failed.
class failure {
  public:
    /// Takes `error`, which may be NULL.
    failure(::layer_status_t status, ::layer_error_t *error) noexcept
        : code(static_cast<status_code>(status)), given(error) {}
    /// `text` is copied; without memory for it the failure has its status alone.
    failure(status_code status, const char *text) noexcept : code(status) {
        try {
            own = text;
        } catch (const std::bad_alloc &) {
            own.clear();
        }
    }

    status_code status() const noexcept { return code; }
    /// Lives as long as this object.
    const char *message() const noexcept {
        return own.empty() ? ::layer_error_message(given.get()) : own.c_str();
    }
    [[noreturn]] void raise() const { throw error(code, message()); }

  private:
    struct release {
        void operator()(::layer_error_t *error) const noexcept { ::layer_error_free(error); }
    };
    status_code code;
    std::unique_ptr<::layer_error_t, release> given;
    std::string own;
};

/// A value, or why there is none.
template <class T> class [[nodiscard]] result {
  public:
    result(T &&value) noexcept : held(std::move(value)) {}
    result(failure &&why) noexcept : lost(std::move(why)) {}

    bool ok() const noexcept { return held.has_value(); }
    explicit operator bool() const noexcept { return ok(); }
    status_code status() const noexcept { return lost ? lost->status() : status_code::ok; }
    /// Empty on success; lives as long as this object.
    const char *message() const noexcept { return lost ? lost->message() : ""; }

    /// Throws `error` where there is no value.
    T &value() & {
        check();
        return *held;
    }
    T &&value() && {
        check();
        return std::move(*held);
    }
    /// Only where `ok()`.
    T &operator*() noexcept { return *held; }
    T *operator->() noexcept { return &*held; }

  private:
    void check() const {
        if (lost) {
            lost->raise();
        }
    }
    std::optional<T> held;
    std::optional<failure> lost;
};

template <> class [[nodiscard]] result<void> {
  public:
    result() noexcept = default;
    result(failure &&why) noexcept : lost(std::move(why)) {}

    bool ok() const noexcept { return !lost; }
    explicit operator bool() const noexcept { return ok(); }
    status_code status() const noexcept { return lost ? lost->status() : status_code::ok; }
    const char *message() const noexcept { return lost ? lost->message() : ""; }
    void value() const {
        if (lost) {
            lost->raise();
        }
    }
    /// Only where not `ok()`: gives the failure away.
    failure lose() &&noexcept { return std::move(*lost); }

  private:
    std::optional<failure> lost;
};

/// How an async call ended, as its callable gets it; borrowed until that returns.
class outcome {
  public:
    outcome(::layer_status_t status, const ::layer_error_t *error) noexcept
        : code(static_cast<status_code>(status)), given(error) {}

    bool ok() const noexcept { return code == status_code::ok; }
    explicit operator bool() const noexcept { return ok(); }
    status_code status() const noexcept { return code; }
    const char *message() const noexcept { return ::layer_error_message(given); }
    /// Throws `error` unless `ok()`.
    void value() const {
        if (!ok()) {
            throw error(static_cast<status_code>(::layer_error_status(given)), message());
        }
    }

  private:
    status_code code;
    const ::layer_error_t *given;
};

} // namespace channel_layer

#endif /* CHANNEL_LAYER_ERROR_HPP */
