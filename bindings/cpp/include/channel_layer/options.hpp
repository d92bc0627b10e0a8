// The options that layers are opened with. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_OPTIONS_HPP
#define CHANNEL_LAYER_OPTIONS_HPP

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include "call.hpp"
#include "callback.hpp"
#include "channel_layer.h"

namespace channel_layer {

/// The options that layers are opened with, named in the project's README. For one thread at a
/// time. Any number of layers can be opened with one object.
class options {
  public:
    options() noexcept : config(::layer_config_new()) {}

    /// A value as the option wants it: text, a whole number or a duration.
    options &set(std::string_view name, std::string_view value) {
        try_set(name, value).value();
        return *this;
    }
    template <class Value,
              class = std::enable_if_t<std::is_integral_v<Value> && !std::is_same_v<Value, bool>>>
    options &set(std::string_view name, Value value) {
        try_set(name, value).value();
        return *this;
    }
    options &set(std::string_view name, saturated<std::chrono::nanoseconds> value) {
        try_set(name, value).value();
        return *this;
    }

    result<void> try_set(std::string_view name, std::string_view value) noexcept {
        if (!config) {
            return unusable();
        }
        const detail::c_text c_name(name), c_value(value);
        if (!c_name || !c_value) {
            return (c_name ? c_value : c_name).problem();
        }
        return detail::run([&](::layer_error_t **problem) {
            return ::layer_config_set(config.get(), c_name.get(), c_value.get(), problem);
        });
    }
    template <class Value,
              class = std::enable_if_t<std::is_integral_v<Value> && !std::is_same_v<Value, bool>>>
    result<void> try_set(std::string_view name, Value value) noexcept {
        char text[24];
        const char *end = std::to_chars(text, text + sizeof text, value).ptr;
        return try_set(name, std::string_view(text, static_cast<std::size_t>(end - text)));
    }
    result<void> try_set(std::string_view name,
                         saturated<std::chrono::nanoseconds> value) noexcept {
        char text[40];
        const long long count = value.value.count(), second = 1000000000;
        const long long whole = count / second, part = count % second;
        std::snprintf(text, sizeof text, "%s%llu.%09llu", count < 0 ? "-" : "",
                      static_cast<unsigned long long>(whole < 0 ? -whole : whole),
                      static_cast<unsigned long long>(part < 0 ? -part : part));
        return try_set(name, std::string_view(text));
    }

    /// Checks these options without opening a layer: fails as opening one would, with the same
    /// error. Reads the files of the options `tls_...`; no connection, no name look-up, no thread.
    const options &check() const {
        try_check().value();
        return *this;
    }
    result<void> try_check() const noexcept {
        if (!config) {
            return unusable();
        }
        return detail::run(
            [&](::layer_error_t **problem) { return ::layer_config_check(config.get(), problem); });
    }

    /// Who gets the log records: `void(log_level, std::string_view id, std::string_view target,
    /// std::string_view text)`.
    /// The handlers here are for layers that are opened later; they are destroyed once these
    /// options and those layers are gone.
    template <class Handler> options &on_log(Handler &&handler) {
        using held = detail::log_handler_of<std::decay_t<Handler>>;
        log = std::make_shared<held>(std::decay_t<Handler>(std::forward<Handler>(handler)));
        return *this;
    }
    /// Who gets the changes of state: `void(connection_state, std::uint64_t generation)`.
    template <class Handler> options &on_state(Handler &&handler) {
        using held = detail::state_handler_of<std::decay_t<Handler>>;
        state = std::make_shared<held>(std::decay_t<Handler>(std::forward<Handler>(handler)));
        return *this;
    }
    /// Who is told when channels are isolated, what they lose by it, and when that ends:
    /// `void(const isolation_event &)`.
    template <class Handler> options &on_isolation(Handler &&handler) {
        using held = detail::isolation_handler_of<std::decay_t<Handler>>;
        isolation = std::make_shared<held>(std::decay_t<Handler>(std::forward<Handler>(handler)));
        return *this;
    }
    /// Who gets the exceptions that leave callbacks: `void(std::exception_ptr, const char *where)`.
    /// It is called on the thread of that callback, perhaps by several at once.
    template <class Hook> options &on_exception(Hook &&taken) {
        using held = detail::exception_hook_of<std::decay_t<Hook>>;
        hook = std::make_shared<held>(std::decay_t<Hook>(std::forward<Hook>(taken)));
        return *this;
    }

  private:
    friend class layer;
    struct release {
        void operator()(::layer_config_t *config) const noexcept { ::layer_config_free(config); }
    };

    static failure unusable() noexcept {
        return failure(status_code::invalid,
                       "these options were moved from, or there was no memory for them");
    }
    /// Only now, so that each handler goes together with the hook that is set in the end.
    result<void> attach() const noexcept {
        if (!config) {
            return unusable();
        }
        if (auto done = attach<detail::log_box>(
                log, [](auto... all) { return ::layer_config_on_log(all...); });
            !done) {
            return done;
        }
        if (auto done = attach<detail::state_box>(
                state, [](auto... all) { return ::layer_config_on_state(all...); });
            !done) {
            return done;
        }
        return attach<detail::isolation_box>(
            isolation, [](auto... all) { return ::layer_config_on_isolation(all...); });
    }
    template <class Box, class Handler, class Call>
    result<void> attach(const std::shared_ptr<Handler> &handler, Call &&call) const noexcept {
        if (!handler) {
            return {};
        }
        return detail::run_with<Box>(
            [&] {
                return new Box{handler, hook};
            },
            [&](void *box, ::layer_error_t **problem) {
                return call(config.get(), Box::call, box, detail::release<Box>, problem);
            });
    }

    std::unique_ptr<::layer_config_t, release> config;
    std::shared_ptr<detail::log_handler> log;
    std::shared_ptr<detail::state_handler> state;
    std::shared_ptr<detail::isolation_handler> isolation;
    std::shared_ptr<detail::exception_hook> hook;
};

} // namespace channel_layer

#endif /* CHANNEL_LAYER_OPTIONS_HPP */
