/*
 * channel-layer for C++17 and newer, header only, over channel_layer.h: link with -lchannel_layer.
 *
 * What the calls mean is said in channel_layer.h; here is said what C++ adds to it.
 *
 * Errors. Each call has two forms. `send` throws `channel_layer::error`, which carries the status
 * and the library's text. `try_send` is noexcept and gives a `result`. The two never differ else.
 *
 * Ownership. `layer`, `options`, `message` and `receiver` own what they stand for and can be moved,
 * not copied. One that was moved from answers calls with status `closed` or `invalid`. As with any
 * object of C++, its destruction and its being moved must not overlap with other calls on it; all
 * else may be called from any thread at any time. `message_view`, `outcome` and `std::string_view`s
 * that a callback gets are borrowed until it returns.
 *
 * Callbacks are any callable, move-only ones too. It is moved in, and destroyed exactly once: after
 * its last call, or, where the call that took it fails, by that call. An exception that leaves a
 * callback never reaches C: a receiver ends as with flow::stop, and the function given to
 * `options::on_exception` gets the exception; without one it is written to standard error. A
 * destructor of a callable must not throw.
 *
 * Strings and bytes that are passed in are copied or used up before the call returns.
 */

#ifndef CHANNEL_LAYER_HPP
#define CHANNEL_LAYER_HPP

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "channel_layer.h"

namespace channel_layer {

// --- the enums ------------------------------------------------------------------------------

/// How a call ended: `layer_status_t`, where each is described.
enum class status_code : std::int32_t {
    ok = LAYER_OK,
    invalid = LAYER_INVALID,
    full = LAYER_FULL,
    no_channel = LAYER_NO_CHANNEL,
    too_large = LAYER_TOO_LARGE,
    disconnected = LAYER_DISCONNECTED,
    busy = LAYER_BUSY,
    timeout = LAYER_TIMEOUT,
    unconfirmed = LAYER_UNCONFIRMED,
    refused = LAYER_REFUSED,
    cancelled = LAYER_CANCELLED,
    closed = LAYER_CLOSED,
    would_deadlock = LAYER_WOULD_DEADLOCK,
    forked = LAYER_FORKED,
    internal = LAYER_INTERNAL,
};

/// How grave a log record is.
enum class log_level : std::int32_t {
    error = LAYER_LOG_ERROR,
    warn = LAYER_LOG_WARN,
    info = LAYER_LOG_INFO,
    debug = LAYER_LOG_DEBUG,
};

/// The state of a layer: `layer_state_t`.
enum class connection_state : std::int32_t {
    connecting = LAYER_STATE_CONNECTING,
    ready = LAYER_STATE_READY,
    refused = LAYER_STATE_REFUSED,
    closed = LAYER_STATE_CLOSED,
};

/// What a receiver's callable makes of a message.
enum class flow : std::int32_t {
    /// It was taken; go on.
    proceed = LAYER_CONTINUE,
    /// It was taken; the receiver ends.
    stop = LAYER_STOP,
    /// It was not taken and stays first in its channel; the receiver ends.
    decline = LAYER_DECLINE,
};

/// What `layer::stat` can be asked: `layer_stat_t`, where each is described.
enum class statistic : std::uint32_t {
    sends_confirmed = LAYER_STAT_SENDS_CONFIRMED,
    sends_full = LAYER_STAT_SENDS_FULL,
    sends_no_channel = LAYER_STAT_SENDS_NO_CHANNEL,
    sends_unknown = LAYER_STAT_SENDS_UNKNOWN,
    sends_unsent = LAYER_STAT_SENDS_UNSENT,
    deliveries = LAYER_STAT_DELIVERIES,
    received = LAYER_STAT_RECEIVED,
    dropped_expired = LAYER_STAT_DROPPED_EXPIRED,
    dropped_channel_full = LAYER_STAT_DROPPED_CHANNEL_FULL,
    dropped_redelivered = LAYER_STAT_DROPPED_REDELIVERED,
    dropped_malformed = LAYER_STAT_DROPPED_MALFORMED,
    dropped_no_member = LAYER_STAT_DROPPED_NO_MEMBER,
    dropped_foreign = LAYER_STAT_DROPPED_FOREIGN,
    dropped_discarded = LAYER_STAT_DROPPED_DISCARDED,
    events_dropped = LAYER_STAT_EVENTS_DROPPED,
    generation = LAYER_STAT_GENERATION,
    backlog = LAYER_STAT_BACKLOG,
    in_flight = LAYER_STAT_IN_FLIGHT,
    channels = LAYER_STAT_CHANNELS,
    receivers = LAYER_STAT_RECEIVERS,
    groups = LAYER_STAT_GROUPS,
    memberships = LAYER_STAT_MEMBERSHIPS,
    groups_bound = LAYER_STAT_GROUPS_BOUND,
    publishers_blocked = LAYER_STAT_PUBLISHERS_BLOCKED,
    deliveries_held = LAYER_STAT_DELIVERIES_HELD,
};

/// The name of a status as the header has it, as "LAYER_FULL".
inline const char *to_string(status_code status) noexcept {
    return ::layer_status_name(static_cast<std::int32_t>(status));
}

/// The version of the library that is loaded; LAYER_VERSION is that of the header.
inline const char *version() noexcept { return ::layer_version(); }

// --- errors ---------------------------------------------------------------------------------

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

// --- bytes and messages ---------------------------------------------------------------------

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

  private:
    ::layer_message_t *owned;
};

inline message message_view::keep() const noexcept { return message(::layer_message_ref(handle)); }

// --- callbacks ------------------------------------------------------------------------------

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
    virtual void call(log_level level, std::string_view target, std::string_view text) = 0;
};

template <class Handler> struct log_handler_of final : log_handler {
    explicit log_handler_of(Handler &&taken) : handler(std::move(taken)) {}
    void call(log_level level, std::string_view target, std::string_view text) override {
        handler(level, target, text);
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

struct log_box {
    std::shared_ptr<log_handler> handler;
    std::shared_ptr<exception_hook> hook;

    static void call(void *userdata, ::layer_log_level_t level, const char *target,
                     const char *text) noexcept {
        auto *self = static_cast<log_box *>(userdata);
        try {
            self->handler->call(static_cast<log_level>(level), target, text);
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
inline std::uint32_t c_timeout(std::chrono::milliseconds timeout) noexcept {
    constexpr std::chrono::milliseconds::rep most = std::numeric_limits<std::uint32_t>::max();
    const auto count = timeout.count();
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

// --- options --------------------------------------------------------------------------------

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
    options &set(std::string_view name, std::chrono::nanoseconds value) {
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
    result<void> try_set(std::string_view name, std::chrono::nanoseconds value) noexcept {
        char text[40];
        const long long count = value.count(), second = 1000000000;
        const long long whole = count / second, part = count % second;
        std::snprintf(text, sizeof text, "%s%llu.%09llu", count < 0 ? "-" : "",
                      static_cast<unsigned long long>(whole < 0 ? -whole : whole),
                      static_cast<unsigned long long>(part < 0 ? -part : part));
        return try_set(name, std::string_view(text));
    }

    /// Who gets the log records: `void(log_level, std::string_view target, std::string_view text)`.
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
        if (log) {
            auto done = detail::run_with<detail::log_box>(
                [&] {
                    return new detail::log_box{log, hook};
                },
                [&](void *box, ::layer_error_t **problem) {
                    return ::layer_config_on_log(config.get(), detail::log_box::call, box,
                                                 detail::release<detail::log_box>, problem);
                });
            if (!done) {
                return done;
            }
        }
        if (state) {
            return detail::run_with<detail::state_box>(
                [&] {
                    return new detail::state_box{state, hook};
                },
                [&](void *box, ::layer_error_t **problem) {
                    return ::layer_config_on_state(config.get(), detail::state_box::call, box,
                                                   detail::release<detail::state_box>, problem);
                });
        }
        return {};
    }

    std::unique_ptr<::layer_config_t, release> config;
    std::shared_ptr<detail::log_handler> log;
    std::shared_ptr<detail::state_handler> state;
    std::shared_ptr<detail::exception_hook> hook;
};

// --- layer ----------------------------------------------------------------------------------

namespace detail {

/// An open layer, shared by those who may have to reach it. The last of them frees it.
struct core {
    ::layer_t *raw = nullptr;
    std::shared_ptr<exception_hook> hook;

    core() = default;
    core(const core &) = delete;
    core &operator=(const core &) = delete;
    ~core() { ::layer_free(raw); }
};

} // namespace detail

/// A receiver that `layer::receive` started. Its destruction cancels it, and so waits for a call of
/// its callable that is running on another thread, at most option `timeout`. It may outlive its
/// layer, with which it ends.
class [[nodiscard]] receiver {
  public:
    receiver() noexcept = default;
    receiver(receiver &&other) noexcept
        : owner(std::move(other.owner)), number(std::exchange(other.number, 0)) {}
    receiver &operator=(receiver &&other) noexcept {
        if (this != &other) {
            end();
            owner = std::move(other.owner);
            number = std::exchange(other.number, 0);
        }
        return *this;
    }
    ~receiver() { end(); }

    /// Once this has returned no call begins, and what was not taken stays in the channel. Again it
    /// does nothing. `timeout`: a call that is running goes on; no other will begin.
    void cancel() { try_cancel().value(); }
    result<void> try_cancel() noexcept {
        const std::uint64_t ended = std::exchange(number, 0);
        const std::shared_ptr<detail::core> layer = owner.lock();
        owner.reset();
        if (ended == 0 || !layer) {
            return {};
        }
        return detail::run([&](::layer_error_t **problem) {
            return ::layer_receive_cancel(layer->raw, ended, problem);
        });
    }
    /// Leaves the receiver to its layer: it goes on until its callable, or the layer, ends it.
    void detach() noexcept {
        number = 0;
        owner.reset();
    }

  private:
    friend class layer;
    receiver(std::weak_ptr<detail::core> layer, std::uint64_t id) noexcept
        : owner(std::move(layer)), number(id) {}
    /// No call begins after it, whatever its status: there is nobody to tell of that.
    void end() noexcept { (void)try_cancel(); }

    std::weak_ptr<detail::core> owner;
    std::uint64_t number = 0;
};

/// An open layer: one queue on the broker, with any number of channels. All but its destruction and
/// its being moved may be called from any thread at any time.
class layer {
  public:
    /// Never waits for the network: it connects in the background, and tries for ever.
    explicit layer(const options &chosen) : layer(try_open(chosen).value()) {}
    static layer open(const options &chosen) { return layer(chosen); }
    static result<layer> try_open(const options &chosen) noexcept {
        if (::layer_abi_version() != LAYER_ABI_VERSION) {
            return failure(status_code::internal,
                           "the library that is loaded has another ABI than channel_layer.h");
        }
        std::shared_ptr<detail::core> made;
        try {
            made = std::make_shared<detail::core>();
        } catch (const std::bad_alloc &) {
            return failure(status_code::internal, "there is no memory for a layer");
        }
        made->hook = chosen.hook;
        if (auto done = chosen.attach(); !done) {
            return std::move(done).lose();
        }
        ::layer_error_t *problem = nullptr;
        const ::layer_status_t status = ::layer_new(chosen.config.get(), &made->raw, &problem);
        if (status != LAYER_OK) {
            return failure(status, problem);
        }
        return layer(std::move(made));
    }

    layer(layer &&) noexcept = default;
    layer &operator=(layer &&) noexcept = default;
    /// Closes the layer if need be, with option `timeout` as the bound; in a callback it only
    /// begins that.
    ~layer() = default;

    /// Waits until both connections stand and every group is bound.
    void wait_ready(std::chrono::milliseconds timeout) const { try_wait_ready(timeout).value(); }
    result<void> try_wait_ready(std::chrono::milliseconds timeout) const noexcept {
        return with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_wait_ready(raw, detail::c_timeout(timeout), problem);
        });
    }

    connection_state state() const { return try_state().value(); }
    result<connection_state> try_state() const noexcept {
        ::layer_state_t state{};
        auto done = with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_state(raw, &state, problem);
        });
        return valued(std::move(done), static_cast<connection_state>(state));
    }

    std::uint64_t stat(statistic which) const { return try_stat(which).value(); }
    result<std::uint64_t> try_stat(statistic which) const noexcept {
        std::uint64_t value = 0;
        auto done = with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_stat(raw, static_cast<std::uint32_t>(which), &value, problem);
        });
        return valued(std::move(done), std::move(value));
    }

    /// Makes up a channel name, which begins with `prefix` after its '!'.
    std::string new_channel(std::string_view prefix = {}) const {
        return try_new_channel(prefix).value();
    }
    result<std::string> try_new_channel(std::string_view prefix = {}) const noexcept {
        char name[LAYER_NAME_SIZE] = "";
        auto done = with(
            prefix, [&](const ::layer_t *raw, const char *c_prefix, ::layer_error_t **problem) {
                return ::layer_new_channel(raw, c_prefix, name, sizeof name, problem);
            });
        if (!done) {
            return std::move(done).lose();
        }
        try {
            return std::string(name);
        } catch (const std::bad_alloc &) {
            return failure(status_code::internal, "there is no memory for a name");
        }
    }

    /// Sends one MessagePack map to a channel and waits for the broker's confirm, at most option
    /// `timeout`. Not in a callback.
    void send(std::string_view channel, bytes_view message) const {
        try_send(channel, message).value();
    }
    result<void> try_send(std::string_view channel, bytes_view message) const noexcept {
        return with(channel,
                    [&](const ::layer_t *raw, const char *name, ::layer_error_t **problem) {
                        return ::layer_send(raw, name, message.data(), message.size(), problem);
                    });
    }
    /// The same with a T that has a `packer`.
    template <class T, class = detail::packed_t<T>>
    void send(std::string_view channel, const T &message) const {
        try_send(channel, message).value();
    }
    template <class T, class = detail::packed_t<T>>
    result<void> try_send(std::string_view channel, const T &message) const noexcept {
        return packed(message, [&](bytes_view bytes) { return try_send(channel, bytes); });
    }

    /// Sends a message to every member of a group, in all processes, and waits for the confirm.
    void group_send(std::string_view group, bytes_view message) const {
        try_group_send(group, message).value();
    }
    result<void> try_group_send(std::string_view group, bytes_view message) const noexcept {
        return with(group, [&](const ::layer_t *raw, const char *name, ::layer_error_t **problem) {
            return ::layer_group_send(raw, name, message.data(), message.size(), problem);
        });
    }
    template <class T, class = detail::packed_t<T>>
    void group_send(std::string_view group, const T &message) const {
        try_group_send(group, message).value();
    }
    template <class T, class = detail::packed_t<T>>
    result<void> try_group_send(std::string_view group, const T &message) const noexcept {
        return packed(message, [&](bytes_view bytes) { return try_group_send(group, bytes); });
    }

    /// `send` with the message as JSON text, one object. A string of U+FFFF followed by base64
    /// becomes bytes.
    void send_json(std::string_view channel, std::string_view json) const {
        try_send_json(channel, json).value();
    }
    result<void> try_send_json(std::string_view channel, std::string_view json) const noexcept {
        return with(
            channel, json,
            [](const ::layer_t *raw, const char *name, const char *text,
               ::layer_error_t **problem) { return ::layer_send_json(raw, name, text, problem); });
    }
    void group_send_json(std::string_view group, std::string_view json) const {
        try_group_send_json(group, json).value();
    }
    result<void> try_group_send_json(std::string_view group, std::string_view json) const noexcept {
        return with(group, json,
                    [](const ::layer_t *raw, const char *name, const char *text,
                       ::layer_error_t **problem) {
                        return ::layer_group_send_json(raw, name, text, problem);
                    });
    }

    /// `send` without waiting. `done`: `void(const outcome &)`, called once, on a thread of the
    /// library or in `poll`, never inside this call.
    template <class Done>
    void send_async(std::string_view channel, bytes_view message, Done &&done) const {
        try_send_async(channel, message, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_send_async(std::string_view channel, bytes_view message,
                                Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        return with(
            channel, done_maker<Done>(done, "send_async"),
            [&](const ::layer_t *raw, const char *name, void *held, ::layer_error_t **problem) {
                return ::layer_send_async(raw, name, message.data(), message.size(), box::call,
                                          held, detail::release<box>, problem);
            });
    }
    template <class T, class Done, class = detail::packed_t<T>>
    void send_async(std::string_view channel, const T &message, Done &&done) const {
        try_send_async(channel, message, std::forward<Done>(done)).value();
    }
    template <class T, class Done, class = detail::packed_t<T>>
    result<void> try_send_async(std::string_view channel, const T &message,
                                Done &&done) const noexcept {
        return packed(message, [&](bytes_view bytes) {
            return try_send_async(channel, bytes, std::forward<Done>(done));
        });
    }

    /// `group_send` without waiting, as `send_async`.
    template <class Done>
    void group_send_async(std::string_view group, bytes_view message, Done &&done) const {
        try_group_send_async(group, message, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_group_send_async(std::string_view group, bytes_view message,
                                      Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        return with(
            group, done_maker<Done>(done, "group_send_async"),
            [&](const ::layer_t *raw, const char *name, void *held, ::layer_error_t **problem) {
                return ::layer_group_send_async(raw, name, message.data(), message.size(),
                                                box::call, held, detail::release<box>, problem);
            });
    }
    template <class T, class Done, class = detail::packed_t<T>>
    void group_send_async(std::string_view group, const T &message, Done &&done) const {
        try_group_send_async(group, message, std::forward<Done>(done)).value();
    }
    template <class T, class Done, class = detail::packed_t<T>>
    result<void> try_group_send_async(std::string_view group, const T &message,
                                      Done &&done) const noexcept {
        return packed(message, [&](bytes_view bytes) {
            return try_group_send_async(group, bytes, std::forward<Done>(done));
        });
    }

    /// Calls `handler(message_view)` for each message of a channel of this layer, one at a time and
    /// in order. It returns a `flow`, or nothing to go on. `end(status_code)` is called, once,
    /// where the layer ends the receiver: with `cancelled` or `closed`.
    template <class Handler, class End = detail::no_end>
    receiver receive(std::string_view channel, Handler &&handler, End &&end = End()) const {
        return try_receive(channel, std::forward<Handler>(handler), std::forward<End>(end)).value();
    }
    template <class Handler, class End = detail::no_end>
    result<receiver> try_receive(std::string_view channel, Handler &&handler,
                                 End &&end = End()) const noexcept {
        using box = detail::receive_box<std::decay_t<Handler>, std::decay_t<End>>;
        std::uint64_t number = 0;
        auto done = with(
            channel,
            [&] {
                return new box{std::forward<Handler>(handler), std::forward<End>(end),
                               shared->hook};
            },
            [&](const ::layer_t *raw, const char *name, void *held, ::layer_error_t **problem) {
                return ::layer_receive(raw, name, box::call, held, detail::release<box>, &number,
                                       problem);
            });
        if (!done) {
            return std::move(done).lose();
        }
        return receiver(shared, number);
    }

    /// Waits for the next message of a channel of this layer; none where the time ran out, and then
    /// nothing is lost. The other form has status `timeout` there.
    std::optional<message> receive_next(std::string_view channel,
                                        std::chrono::milliseconds timeout) const {
        auto next = try_receive_next(channel, timeout);
        if (next.status() == status_code::timeout) {
            return std::nullopt;
        }
        return std::move(next).value();
    }
    result<message> try_receive_next(std::string_view channel,
                                     std::chrono::milliseconds timeout) const noexcept {
        ::layer_message_t *next = nullptr;
        auto done =
            with(channel, [&](const ::layer_t *raw, const char *name, ::layer_error_t **problem) {
                return ::layer_receive_next(raw, name, detail::c_timeout(timeout), &next, problem);
            });
        if (!done) {
            return std::move(done).lose();
        }
        return message(next);
    }

    /// Drops the memberships, the messages and the receivers of a channel of this layer.
    void channel_discard(std::string_view channel) const { try_channel_discard(channel).value(); }
    result<void> try_channel_discard(std::string_view channel) const noexcept {
        return with(channel, [](const ::layer_t *raw, const char *name, ::layer_error_t **problem) {
            return ::layer_channel_discard(raw, name, problem);
        });
    }

    /// Adds a channel of this layer to a group, and waits until what is sent afterwards arrives.
    void group_add(std::string_view group, std::string_view channel) const {
        try_group_add(group, channel).value();
    }
    result<void> try_group_add(std::string_view group, std::string_view channel) const noexcept {
        return with(group, channel,
                    [](const ::layer_t *raw, const char *c_group, const char *c_channel,
                       ::layer_error_t **problem) {
                        return ::layer_group_add(raw, c_group, c_channel, problem);
                    });
    }
    /// `group_add` without waiting; `done` as in `send_async`.
    template <class Done>
    void group_add_async(std::string_view group, std::string_view channel, Done &&done) const {
        try_group_add_async(group, channel, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_group_add_async(std::string_view group, std::string_view channel,
                                     Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        const detail::c_text c_channel(channel);
        if (!c_channel) {
            return c_channel.problem();
        }
        return with(
            group, done_maker<Done>(done, "group_add_async"),
            [&](const ::layer_t *raw, const char *c_group, void *held, ::layer_error_t **problem) {
                return ::layer_group_add_async(raw, c_group, c_channel.get(), box::call, held,
                                               detail::release<box>, problem);
            });
    }
    void group_discard(std::string_view group, std::string_view channel) const {
        try_group_discard(group, channel).value();
    }
    result<void> try_group_discard(std::string_view group,
                                   std::string_view channel) const noexcept {
        return with(group, channel,
                    [](const ::layer_t *raw, const char *c_group, const char *c_channel,
                       ::layer_error_t **problem) {
                        return ::layer_group_discard(raw, c_group, c_channel, problem);
                    });
    }

    /// With option dispatch=poll: readable while callbacks are due, for epoll and the like. Neither
    /// read, write nor close it. -1 where there is none.
    int fd() const noexcept { return shared ? ::layer_fd(shared->raw) : -1; }
    /// With option dispatch=poll: runs at most `max` callbacks that are due (0: one turn of each
    /// channel), after it has waited for the first of them for at most `timeout`. How many it ran.
    std::size_t poll(std::size_t max = 64,
                     std::chrono::milliseconds timeout = std::chrono::milliseconds(0)) const {
        return try_poll(max, timeout).value();
    }
    result<std::size_t>
    try_poll(std::size_t max = 64,
             std::chrono::milliseconds timeout = std::chrono::milliseconds(0)) const noexcept {
        std::size_t ran = 0;
        auto done = with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_poll(raw, max, detail::c_timeout(timeout), &ran, problem);
        });
        return valued(std::move(done), std::move(ran));
    }

    /// Closes the layer within `timeout`: waits for confirms, ends receivers, drops what was not
    /// received. Whatever comes of it, the layer is closed, and calls that other threads are inside
    /// of end.
    void close(std::chrono::milliseconds timeout) const { try_close(timeout).value(); }
    result<void> try_close(std::chrono::milliseconds timeout) const noexcept {
        return with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_close(raw, detail::c_timeout(timeout), problem);
        });
    }

  private:
    explicit layer(std::shared_ptr<detail::core> made) noexcept : shared(std::move(made)) {}

    static failure moved_from() noexcept {
        return failure(status_code::closed, "this layer was moved from");
    }
    template <class Value>
    static result<Value> valued(result<void> &&done, Value &&value) noexcept {
        if (!done) {
            return std::move(done).lose();
        }
        return std::forward<Value>(value);
    }

    template <class T, class Use> static result<void> packed(const T &message, Use &&use) noexcept {
        try {
            const auto bytes = packer<T>::pack(message);
            return use(bytes_view(bytes));
        } catch (...) {
            return detail::failure_of_packer();
        }
    }

    template <class Done> auto done_maker(Done &done, const char *where) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        return [this, &done, where] {
            return new box{std::forward<Done>(done), shared->hook, where};
        };
    }

    template <class Call> result<void> with(Call &&call) const noexcept {
        if (!shared) {
            return moved_from();
        }
        return detail::run([&](::layer_error_t **problem) { return call(shared->raw, problem); });
    }
    template <class Call> result<void> with(std::string_view text, Call &&call) const noexcept {
        const detail::c_text first(text);
        if (!first) {
            return first.problem();
        }
        return with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return call(raw, first.get(), problem);
        });
    }
    template <class Call>
    result<void> with(std::string_view text, std::string_view more, Call &&call) const noexcept {
        const detail::c_text second(more);
        if (!second) {
            return second.problem();
        }
        return with(text, [&](const ::layer_t *raw, const char *first, ::layer_error_t **problem) {
            return call(raw, first, second.get(), problem);
        });
    }
    /// With a callback, that `make` puts in a box.
    template <class Make, class Call,
              class Box = std::remove_pointer_t<std::invoke_result_t<Make &>>>
    result<void> with(std::string_view text, Make &&make, Call &&call) const noexcept {
        if (!shared) {
            return moved_from();
        }
        const detail::c_text first(text);
        if (!first) {
            return first.problem();
        }
        return detail::run_with<Box>(make, [&](void *box, ::layer_error_t **problem) {
            return call(static_cast<const ::layer_t *>(shared->raw), first.get(), box, problem);
        });
    }

    std::shared_ptr<detail::core> shared;
};

} // namespace channel_layer

#endif /* CHANNEL_LAYER_HPP */
