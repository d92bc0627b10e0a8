// What carries callables through C, and what becomes of their exceptions. Internal part of
// channel_layer.hpp.

#ifndef CHANNEL_LAYER_CALLBACK_HPP
#define CHANNEL_LAYER_CALLBACK_HPP

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "channel_layer.h"
#include "message.hpp"
#include "status.hpp"

namespace channel_layer {

namespace detail {

struct exception_hook {
    virtual ~exception_hook() = default;
    virtual void call(std::exception_ptr problem, const char *where) = 0;
};

template <class Hook> struct exception_hook_of final : exception_hook {
    explicit exception_hook_of(Hook &&taken) : hook(std::move(taken)) {}
    void call(std::exception_ptr problem, const char *where) override {
        hook(std::move(problem), where);
    }
    Hook hook;
};

inline void write_exception(const std::exception_ptr &problem, const char *where) noexcept {
    try {
        std::rethrow_exception(problem);
    } catch (const std::exception &known) {
        std::fprintf(stderr, "channel_layer: an exception left a callback of %s: %s\n", where,
                     known.what());
    } catch (...) {
        std::fprintf(stderr, "channel_layer: an exception left a callback of %s\n", where);
    }
}

inline void report_exception(exception_hook *hook, const char *where) noexcept {
    std::exception_ptr problem = std::current_exception();
    if (hook == nullptr) {
        write_exception(problem, where);
        return;
    }
    try {
        hook->call(problem, where);
    } catch (...) {
        write_exception(problem, where);
        write_exception(std::current_exception(), "on_exception");
    }
}

/// `destroy` of C.
template <class Box> void release(void *userdata) noexcept { delete static_cast<Box *>(userdata); }

template <class Done> struct done_box {
    Done done;
    std::shared_ptr<exception_hook> hook;
    const char *where;

    static void call(void *userdata, ::layer_status_t status,
                     const ::layer_error_t *problem) noexcept {
        auto *self = static_cast<done_box *>(userdata);
        const outcome given(status, problem);
        try {
            self->done(given);
        } catch (...) {
            report_exception(self->hook.get(), self->where);
        }
    }
};

/// For `receive` without a callable for its end.
struct no_end {
    void operator()(status_code) const noexcept {}
};

template <class Handler, class End> struct receive_box {
    Handler handler;
    End end;
    std::shared_ptr<exception_hook> hook;

    static std::int32_t call(void *userdata, ::layer_status_t status,
                             const ::layer_message_t *lent) noexcept {
        auto *self = static_cast<receive_box *>(userdata);
        try {
            if (lent == nullptr) {
                self->end(static_cast<status_code>(status));
                return LAYER_STOP;
            }
            const message_view view(lent);
            if constexpr (std::is_void_v<std::invoke_result_t<Handler &, message_view>>) {
                self->handler(view);
                return LAYER_CONTINUE;
            } else {
                const flow wish = self->handler(view);
                return static_cast<std::int32_t>(wish);
            }
        } catch (...) {
            report_exception(self->hook.get(), "receive");
            return LAYER_STOP;
        }
    }
};

struct log_handler {
    virtual ~log_handler() = default;
    virtual void call(log_level level, std::string_view id, std::string_view target,
                      std::string_view text) = 0;
};

template <class Handler> struct log_handler_of final : log_handler {
    explicit log_handler_of(Handler &&taken) : handler(std::move(taken)) {}
    void call(log_level level, std::string_view id, std::string_view target,
              std::string_view text) override {
        handler(level, id, target, text);
    }
    Handler handler;
};

struct state_handler {
    virtual ~state_handler() = default;
    virtual void call(connection_state state, std::uint64_t generation) = 0;
};

template <class Handler> struct state_handler_of final : state_handler {
    explicit state_handler_of(Handler &&taken) : handler(std::move(taken)) {}
    void call(connection_state state, std::uint64_t generation) override {
        handler(state, generation);
    }
    Handler handler;
};

struct isolation_handler {
    virtual ~isolation_handler() = default;
    virtual void call(const isolation_event &event) = 0;
};

template <class Handler> struct isolation_handler_of final : isolation_handler {
    explicit isolation_handler_of(Handler &&taken) : handler(std::move(taken)) {}
    void call(const isolation_event &event) override { handler(event); }
    Handler handler;
};

struct log_box {
    std::shared_ptr<log_handler> handler;
    std::shared_ptr<exception_hook> hook;

    static void call(void *userdata, ::layer_log_level_t level, const char *id, const char *target,
                     const char *text) noexcept {
        auto *self = static_cast<log_box *>(userdata);
        try {
            self->handler->call(static_cast<log_level>(level), id, target, text);
        } catch (...) {
            report_exception(self->hook.get(), "on_log");
        }
    }
};

struct state_box {
    std::shared_ptr<state_handler> handler;
    std::shared_ptr<exception_hook> hook;

    static void call(void *userdata, ::layer_state_t state, std::uint64_t generation) noexcept {
        auto *self = static_cast<state_box *>(userdata);
        try {
            self->handler->call(static_cast<connection_state>(state), generation);
        } catch (...) {
            report_exception(self->hook.get(), "on_state");
        }
    }
};

struct isolation_box {
    std::shared_ptr<isolation_handler> handler;
    std::shared_ptr<exception_hook> hook;

    static void call(void *userdata, ::layer_isolation_t kind, const char *channel,
                     std::uint64_t count) noexcept {
        auto *self = static_cast<isolation_box *>(userdata);
        isolation_event event{static_cast<isolation_kind>(kind), std::nullopt, count};
        if (channel != nullptr) {
            event.channel = channel;
        }
        try {
            self->handler->call(event);
        } catch (...) {
            report_exception(self->hook.get(), "on_isolation");
        }
    }
};

} // namespace detail

} // namespace channel_layer

#endif /* CHANNEL_LAYER_CALLBACK_HPP */
