// The layer itself. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_LAYER_HPP
#define CHANNEL_LAYER_LAYER_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "channel_layer.h"
#include "options.hpp"
#include "receiver.hpp"

namespace channel_layer {

namespace detail {
struct layer_access;
} // namespace detail

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
    void wait_ready(saturated<std::chrono::milliseconds> timeout) const {
        try_wait_ready(timeout).value();
    }
    result<void> try_wait_ready(saturated<std::chrono::milliseconds> timeout) const noexcept {
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

    /// All counters and gauges in the text format of Prometheus, to be served as
    /// `text/plain; version=0.0.4`, with `labels` on each, as `site="a",zone="b"`.
    std::string prometheus(std::string_view labels = {}) const {
        return try_prometheus(labels).value();
    }
    result<std::string> try_prometheus(std::string_view labels = {}) const noexcept {
        std::size_t length = 0;
        auto done = with(
            labels, [&](const ::layer_t *raw, const char *c_labels, ::layer_error_t **problem) {
                return ::layer_stats_prometheus(raw, c_labels, nullptr, 0, &length, problem);
            });
        if (!done) {
            return std::move(done).lose();
        }
        std::string text;
        try {
            text.resize(length + 1); // with room for the NUL
        } catch (...) {
            return failure(status_code::internal, "there is no memory for the text");
        }
        done = with(labels,
                    [&](const ::layer_t *raw, const char *c_labels, ::layer_error_t **problem) {
                        return ::layer_stats_prometheus(raw, c_labels, text.data(), text.size(),
                                                        &length, problem);
                    });
        text.resize(length); // shorter: nothing is allocated
        return valued(std::move(done), std::move(text));
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

    /// `send_json` without waiting, as `send_async`.
    template <class Done>
    void send_json_async(std::string_view channel, std::string_view json, Done &&done) const {
        try_send_json_async(channel, json, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_send_json_async(std::string_view channel, std::string_view json,
                                     Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        const detail::c_text text(json);
        if (!text) {
            return text.problem();
        }
        return with(
            channel, done_maker<Done>(done, "send_json_async"),
            [&](const ::layer_t *raw, const char *name, void *held, ::layer_error_t **problem) {
                return ::layer_send_json_async(raw, name, text.get(), box::call, held,
                                               detail::release<box>, problem);
            });
    }
    /// `group_send_json` without waiting, as `send_async`.
    template <class Done>
    void group_send_json_async(std::string_view group, std::string_view json, Done &&done) const {
        try_group_send_json_async(group, json, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_group_send_json_async(std::string_view group, std::string_view json,
                                           Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        const detail::c_text text(json);
        if (!text) {
            return text.problem();
        }
        return with(
            group, done_maker<Done>(done, "group_send_json_async"),
            [&](const ::layer_t *raw, const char *name, void *held, ::layer_error_t **problem) {
                return ::layer_group_send_json_async(raw, name, text.get(), box::call, held,
                                                     detail::release<box>, problem);
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
                                        saturated<std::chrono::milliseconds> timeout) const {
        auto next = try_receive_next(channel, timeout);
        if (next.status() == status_code::timeout) {
            return std::nullopt;
        }
        return std::move(next).value();
    }
    result<message> try_receive_next(std::string_view channel,
                                     saturated<std::chrono::milliseconds> timeout) const noexcept {
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
    /// A duplicate of it that the caller owns and closes, for event loops that close what they were
    /// given, as Asio's `posix::stream_descriptor` does. It may be closed after the layer.
    int fd_dup() const { return try_fd_dup().value(); }
    result<int> try_fd_dup() const noexcept {
        int duplicate = -1;
        auto done = with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_fd_dup(raw, &duplicate, problem);
        });
        return valued(std::move(done), std::move(duplicate));
    }
    /// With option dispatch=poll: runs at most `max` callbacks that are due (0: one turn of each
    /// channel), after it has waited for the first of them for at most `timeout`. How many it ran.
    std::size_t
    poll(std::size_t max = 64,
         saturated<std::chrono::milliseconds> timeout = std::chrono::milliseconds(0)) const {
        return try_poll(max, timeout).value();
    }
    result<std::size_t> try_poll(std::size_t max = 64,
                                 saturated<std::chrono::milliseconds> timeout =
                                     std::chrono::milliseconds(0)) const noexcept {
        std::size_t ran = 0;
        auto done = with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_poll(raw, max, detail::c_timeout(timeout), &ran, problem);
        });
        return valued(std::move(done), std::move(ran));
    }

    /// Closes the layer within `timeout`: waits for confirms, ends receivers, drops what was not
    /// received. Whatever comes of it, the layer is closed, and calls that other threads are inside
    /// of end.
    void close(saturated<std::chrono::milliseconds> timeout) const { try_close(timeout).value(); }
    result<void> try_close(saturated<std::chrono::milliseconds> timeout) const noexcept {
        return with([&](const ::layer_t *raw, ::layer_error_t **problem) {
            return ::layer_close(raw, detail::c_timeout(timeout), problem);
        });
    }

    /// `close` without waiting: begins it, and tells its end to `done`, which is called once, after
    /// all other callbacks of the layer: on a thread of the library or in `poll`, never inside this
    /// call. Allowed in a callback, and again. The layer must not be destroyed in `done`.
    template <class Done>
    void close_async(saturated<std::chrono::milliseconds> timeout, Done &&done) const {
        try_close_async(timeout, std::forward<Done>(done)).value();
    }
    template <class Done>
    result<void> try_close_async(saturated<std::chrono::milliseconds> timeout,
                                 Done &&done) const noexcept {
        using box = detail::done_box<std::decay_t<Done>>;
        if (!shared) {
            return moved_from();
        }
        return detail::run_with<box>(
            done_maker<Done>(done, "close_async"), [&](void *held, ::layer_error_t **problem) {
                return ::layer_close_async(shared->raw, detail::c_timeout(timeout), box::call, held,
                                           detail::release<box>, problem);
            });
    }

  private:
    friend struct detail::layer_access;
    explicit layer(std::shared_ptr<detail::core> made) noexcept : shared(std::move(made)) {}

    static failure moved_from() noexcept {
        return failure(status_code::closed, "this layer was moved from, or is gone");
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

namespace detail {

/// For parts that call a layer wherever it was moved to, and do not keep it open.
struct layer_access {
    static std::weak_ptr<core> watch(const layer &open) noexcept { return open.shared; }
    /// Answers with `closed` where the layer is gone.
    static layer reach(const std::weak_ptr<core> &watched) noexcept {
        return layer(watched.lock());
    }
};

} // namespace detail

} // namespace channel_layer

#endif /* CHANNEL_LAYER_LAYER_HPP */
