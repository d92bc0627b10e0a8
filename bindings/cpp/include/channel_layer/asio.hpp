/*
 * Asynchronous operations on a layer for Asio, with any completion token: callbacks, use_future,
 * use_awaitable. Not part of channel_layer.hpp. It takes Boost.Asio, from Boost 1.74 on, or
 * standalone Asio, from 1.18 on, where CHANNEL_LAYER_ASIO_STANDALONE is defined before it is
 * included.
 *
 *     channel_layer::layer layer(channel_layer::options().set("dispatch", "poll"));
 *     channel_layer::asio_driver driver(io, layer);
 *     driver.async_group_send("room", bytes, [](boost::system::error_code problem) { … });
 *     channel_layer::message next = co_await driver.async_receive(channel, use_awaitable);
 *
 * Errors are codes of Asio's kind: boost::system::error_code, or std::error_code with standalone
 * Asio. `code == status_code::full` and `status_of(code)` tell which status it is. An operation
 * that was cancelled ends with asio::error::operation_aborted.
 */

#ifndef CHANNEL_LAYER_ASIO_HPP
#define CHANNEL_LAYER_ASIO_HPP

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(CHANNEL_LAYER_ASIO_STANDALONE)
#include <asio/any_io_executor.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/error.hpp>
#include <asio/execution_context.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#if __has_include(<asio/associated_cancellation_slot.hpp>)
#include <asio/associated_cancellation_slot.hpp>
#include <asio/cancellation_type.hpp>
#define CHANNEL_LAYER_ASIO_HAS_CANCELLATION 1
#endif
#else
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/error_code.hpp>
#if __has_include(<boost/asio/associated_cancellation_slot.hpp>)
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/cancellation_type.hpp>
#define CHANNEL_LAYER_ASIO_HAS_CANCELLATION 1
#endif
#endif

#include "error_code.hpp"
#include "layer.hpp"
#include "message.hpp"

namespace channel_layer {

// The two Asios make different types, and a program may use both: one in each source file.
#if defined(CHANNEL_LAYER_ASIO_STANDALONE)
inline namespace standalone_asio {
namespace asio_detail {
namespace net = ::asio;
using error_code = std::error_code;

inline error_code code_of(status_code status) noexcept { return make_error_code(status); }
} // namespace asio_detail
} // namespace standalone_asio
#else
inline namespace boost_asio {
namespace asio_detail {
namespace net = ::boost::asio;
using error_code = ::boost::system::error_code;

/// Since Boost 1.77 or so its codes can hold those of std. Before, they need a category of their
/// own.
constexpr bool codes_hold_std = std::is_constructible_v<error_code, std::error_code>;

class boost_category_type final : public ::boost::system::error_category {
  public:
    const char *name() const noexcept override { return detail::category_name; }
    std::string message(int status) const override { return detail::described(status); }
    ::boost::system::error_condition default_error_condition(int status) const noexcept override {
        const auto generic = detail::generic_condition(status);
        return generic ? ::boost::system::error_condition(static_cast<int>(*generic),
                                                          ::boost::system::generic_category())
                       : ::boost::system::error_condition(status, *this);
    }
    bool equivalent(const ::boost::system::error_code &code, int status) const noexcept override {
        return code.category() == *this && code.value() == status;
    }
};

inline const ::boost::system::error_category &boost_category() noexcept {
    static const boost_category_type category;
    return category;
}

template <class Code = error_code> Code code_of(status_code status) noexcept {
    if constexpr (codes_hold_std) {
        return Code(make_error_code(status));
    } else {
        return Code(static_cast<int>(status), boost_category());
    }
}
} // namespace asio_detail
} // namespace boost_asio

/// With it `code == status_code::full` is right for Boost's codes.
inline ::boost::system::error_condition make_error_condition(status_code status) noexcept {
    return {static_cast<int>(status), boost_asio::asio_detail::boost_category()};
}

} // namespace channel_layer

template <> struct boost::system::is_error_condition_enum<channel_layer::status_code> {
    static const bool value = !channel_layer::boost_asio::asio_detail::codes_hold_std;
};

namespace channel_layer {
#endif

#if defined(CHANNEL_LAYER_ASIO_STANDALONE)
inline namespace standalone_asio {
#else
inline namespace boost_asio {
#endif

namespace asio_detail {

inline error_code aborted() noexcept { return net::error::operation_aborted; }

/// An operation that has begun. Its outcome, its cancellation and the end of its driver may come at
/// once from several threads: the first of them completes it.
class operation {
  public:
    virtual ~operation() = default;
    /// Completes it without a result; false where it was completed before.
    virtual bool end(error_code code) = 0;
    /// Whether it waits for a message of this channel.
    virtual bool receives(std::string_view) const noexcept { return false; }
    /// Completes it with a message, and moves from that only where this is true.
    virtual bool offer(message &, std::uint64_t) { return false; }
};

/// What a driver shares with its operations: these, the descriptor, and the way to the layer, which
/// it does not keep open.
class engine : public std::enable_shared_from_this<engine> {
  public:
    using failure_handler = std::function<void(const char *, status_code, const char *)>;

    engine(const net::any_io_executor &executor, const layer &open)
        : watched(detail::layer_access::watch(open)), descriptor(executor) {
        const int duplicate = open.fd_dup();
        error_code problem;
        descriptor.assign(duplicate, problem);
        if (problem) {
            ::close(duplicate);
            throw error(status_code::internal,
                        "Asio does not take the layer's descriptor: " + problem.message());
        }
    }

    net::any_io_executor executor() { return descriptor.get_executor(); }
    layer home() const noexcept { return detail::layer_access::reach(watched); }

    /// Waits until callbacks are due, runs them, and begins again.
    void wait() {
        const std::lock_guard<std::mutex> held(mutex);
        if (ended) {
            return;
        }
        descriptor.async_wait(net::posix::stream_descriptor::wait_read,
                              [self = shared_from_this()](error_code problem) {
                                  if (problem) {
                                      return self->end(problem);
                                  }
                                  const auto ran = self->home().try_poll();
                                  if (!ran.ok()) {
                                      return self->end(code_of(ran.status()));
                                  }
                                  self->wait();
                              });
    }

    /// Completes all that has begun.
    void end(error_code code) {
        std::map<const operation *, std::weak_ptr<operation>> left;
        {
            const std::lock_guard<std::mutex> held(mutex);
            if (std::exchange(ended, true)) {
                return;
            }
            error_code ignored; // closed in any case, and it was a duplicate
            descriptor.close(ignored);
            left.swap(begun);
        }
        for (const auto &each : left) {
            if (const auto live = each.second.lock()) {
                live->end(code);
            }
        }
    }

    /// False where the driver has ended.
    bool add(const std::shared_ptr<operation> &starting) {
        const std::lock_guard<std::mutex> held(mutex);
        if (ended) {
            return false;
        }
        begun.emplace(starting.get(), starting);
        return true;
    }

    void remove(const operation *completed) {
        const std::lock_guard<std::mutex> held(mutex);
        begun.erase(completed);
    }

    void end_receives(std::string_view channel) {
        for (const auto &each : receiving(channel)) {
            each->end(aborted());
        }
    }

    /// A number for a message, by which those that come back keep their order.
    std::uint64_t next_number() noexcept { return numbers.fetch_add(1, std::memory_order_relaxed); }

    /// Takes a message whose receive was cancelled once it had it: for a receive that waits, or for
    /// the next one. False where the driver has ended.
    bool take_back(const std::string &channel, message &&kept, std::uint64_t number) {
        for (const auto &each : receiving(channel)) {
            if (each->offer(kept, number)) {
                return true;
            }
        }
        const std::lock_guard<std::mutex> held(mutex);
        if (!ended) {
            returned[channel].emplace(number, std::move(kept));
        }
        return !ended;
    }

    std::optional<std::pair<std::uint64_t, message>> returned_to(const std::string &channel) {
        const std::lock_guard<std::mutex> held(mutex);
        const auto found = returned.find(channel);
        if (found == returned.end()) {
            return std::nullopt;
        }
        const auto oldest = found->second.begin();
        std::pair<std::uint64_t, message> kept(oldest->first, std::move(oldest->second));
        found->second.erase(oldest);
        if (found->second.empty()) {
            returned.erase(found);
        }
        return kept;
    }

    void on_failure(failure_handler handler) {
        auto shared = std::make_shared<const failure_handler>(std::move(handler));
        const std::lock_guard<std::mutex> held(mutex);
        failures = std::move(shared);
    }

    void failed(const char *what, status_code status, const char *text) {
        std::shared_ptr<const failure_handler> handler;
        {
            const std::lock_guard<std::mutex> held(mutex);
            handler = failures;
        }
        if (handler && *handler) {
            (*handler)(what, status, text);
        }
    }

  private:
    std::vector<std::shared_ptr<operation>> receiving(std::string_view channel) {
        std::vector<std::shared_ptr<operation>> found;
        const std::lock_guard<std::mutex> held(mutex);
        for (const auto &each : begun) {
            const auto live = each.second.lock();
            if (live && live->receives(channel)) {
                found.push_back(live);
            }
        }
        return found;
    }

    const std::weak_ptr<detail::core> watched;
    std::atomic<std::uint64_t> numbers{0};
    std::mutex mutex;
    // All below is under the mutex.
    net::posix::stream_descriptor descriptor;
    bool ended = false;
    std::map<const operation *, std::weak_ptr<operation>> begun;
    std::map<std::string, std::map<std::uint64_t, message>> returned;
    std::shared_ptr<const failure_handler> failures;
};

/// A handler, and what keeps its executor working until it was called. Whoever completes the
/// operation takes it out: the library may keep the operation for longer than its executor lives.
template <class Handler> struct waiting_handler {
    using executor_type = net::associated_executor_t<Handler, net::any_io_executor>;

    waiting_handler(Handler taken, const net::any_io_executor &fallback)
        : handler(std::move(taken)), work(net::get_associated_executor(handler, fallback))
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
          ,
          slot(net::get_associated_cancellation_slot(handler))
#endif
    {
    }

    Handler handler;
    net::executor_work_guard<executor_type> work;
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
    net::associated_cancellation_slot_t<Handler> slot;
#endif
};

/// Lets a cancellation slot reach an operation: on the handler's executor, as `deliver`, so that
/// the two never meet.
template <class Handler, class Operation>
void watch_slot(waiting_handler<Handler> &waiting, const std::shared_ptr<Operation> &begun) {
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
    if (waiting.slot.is_connected()) {
        waiting.slot.assign([weak = std::weak_ptr<Operation>(begun)](net::cancellation_type type) {
            if (const auto live = weak.lock()) {
                live->cancel((type & net::cancellation_type::terminal) !=
                             net::cancellation_type::none);
            }
        });
    }
#else
    (void)waiting;
    (void)begun;
#endif
}

/// Calls the handler, from its executor.
template <class Handler, class... Results>
void deliver(std::unique_ptr<waiting_handler<Handler>> waiting, Results... results) {
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
    if (waiting->slot.is_connected()) {
        waiting->slot.clear();
    }
#endif
    // What it owned is free before it is called, for it may begin the next operation.
    Handler handler(std::move(waiting->handler));
    waiting.reset();
    std::move(handler)(std::move(results)...);
}

/// A send, a membership or a close: it ends with a code alone.
template <class Handler>
class call_operation final : public operation,
                             public std::enable_shared_from_this<call_operation<Handler>> {
  public:
    call_operation(Handler handler, const std::shared_ptr<engine> &driver)
        : owner(driver), waiting(std::make_unique<waiting_handler<Handler>>(std::move(handler),
                                                                            driver->executor())) {}

    void begin() { watch_slot(*waiting, this->shared_from_this()); }

    bool end(error_code code) override {
        if (claimed.exchange(true)) {
            return false;
        }
        if (const auto driver = owner.lock()) {
            driver->remove(this);
        }
        const auto executor = waiting->work.get_executor();
        net::post(executor, [taken = std::move(waiting), code]() mutable {
            deliver(std::move(taken), code);
        });
        return true;
    }

    /// What was handed over may still be done, which is what `terminal` allows and others do not.
    void cancel(bool terminal) {
        if (terminal) {
            end(aborted());
        }
    }

  private:
    const std::weak_ptr<engine> owner;
    std::atomic<bool> claimed{false};
    std::unique_ptr<waiting_handler<Handler>> waiting; // of the one that has claimed it
};

/// A wait for the next message of a channel.
template <class Handler>
class receive_operation final : public operation,
                                public std::enable_shared_from_this<receive_operation<Handler>> {
  public:
    receive_operation(Handler handler, const std::shared_ptr<engine> &driver, std::string from)
        : owner(driver), channel(std::move(from)),
          waiting(
              std::make_unique<waiting_handler<Handler>>(std::move(handler), driver->executor())) {}

    void begin() { watch_slot(*waiting, this->shared_from_this()); }

    bool end(error_code code) override {
        if (claimed.exchange(true)) {
            return false;
        }
        receiver ending;
        {
            const std::lock_guard<std::mutex> held(mutex);
            ending = std::move(started);
        }
        complete(code, {}, 0);
        return true; // and cancels the receiver, so that the channel keeps its messages
    }

    bool receives(std::string_view name) const noexcept override {
        return name == channel && !claimed.load();
    }

    bool offer(message &kept, std::uint64_t number) override {
        if (claimed.exchange(true)) {
            return false;
        }
        receiver ending;
        {
            const std::lock_guard<std::mutex> held(mutex);
            ending = std::move(started);
        }
        complete({}, std::move(kept), number);
        return true;
    }

    /// Inside the receiver's callback.
    flow take(message_view lent) {
        receiver_is_over();
        if (claimed.exchange(true)) {
            return flow::decline; // cancelled: it stays first in its channel
        }
        const auto driver = owner.lock();
        complete({}, lent.keep(), driver ? driver->next_number() : 0);
        return flow::stop;
    }

    /// Inside the last callback of a receiver that the layer ends.
    void ended_by_layer(status_code status) {
        receiver_is_over();
        end(code_of(status));
    }

    /// The receiver that feeds it. It may have ended before this is called.
    void keep(receiver begun) {
        const std::lock_guard<std::mutex> held(mutex);
        if (over) {
            begun.detach();
        } else if (!claimed.load()) {
            started = std::move(begun);
        } // else it was cancelled meanwhile, and so is the receiver, here
    }

    /// On the handler's executor. A message that it has by then goes back.
    void cancel(bool) {
        if (!end(aborted())) {
            cancelled_late = true;
        }
    }

  private:
    void receiver_is_over() {
        const std::lock_guard<std::mutex> held(mutex);
        over = true;
        started.detach();
    }

    void complete(error_code code, message &&given, std::uint64_t number) {
        if (const auto driver = owner.lock()) {
            driver->remove(this);
        }
        const auto executor = waiting->work.get_executor();
        net::post(executor, [self = this->shared_from_this(), taken = std::move(waiting), code,
                             next = std::move(given), number]() mutable {
            if (self->cancelled_late && next) {
                const auto driver = self->owner.lock();
                if (driver && driver->take_back(self->channel, std::move(next), number)) {
                    return deliver(std::move(taken), aborted(), message());
                }
            }
            deliver(std::move(taken), code, std::move(next));
        });
    }

    const std::weak_ptr<engine> owner;
    const std::string channel;
    std::atomic<bool> claimed{false};
    std::unique_ptr<waiting_handler<Handler>> waiting; // of the one that has claimed it
    bool cancelled_late = false;                       // of the handler's executor
    std::mutex mutex;
    receiver started; // under the mutex, as the next
    bool over = false;
};

/// Begins a call when the token says so, which for a coroutine is later: it owns its arguments.
template <class Start> struct call_initiation {
    using executor_type = net::any_io_executor;
    executor_type get_executor() const noexcept { return driver->executor(); }

    template <class Handler> void operator()(Handler &&handler) const {
        const auto begun = std::make_shared<call_operation<std::decay_t<Handler>>>(
            std::forward<Handler>(handler), driver);
        begun->begin();
        if (!driver->add(begun)) {
            begun->end(aborted());
            return;
        }
        const auto handed = start(driver->home(), [begun, owner = std::weak_ptr<engine>(driver),
                                                   where = what](const outcome &how) {
            const auto live = how ? nullptr : owner.lock();
            begun->end(code_of(how.status()));
            if (live) {
                live->failed(where, how.status(), how.message());
            }
        });
        if (!handed.ok()) {
            begun->end(code_of(handed.status()));
            driver->failed(what, handed.status(), handed.message());
        }
    }

    std::shared_ptr<engine> driver;
    const char *what;
    Start start;
};

struct receive_initiation {
    using executor_type = net::any_io_executor;
    executor_type get_executor() const noexcept { return driver->executor(); }

    template <class Handler> void operator()(Handler &&handler) const {
        const auto begun = std::make_shared<receive_operation<std::decay_t<Handler>>>(
            std::forward<Handler>(handler), driver, channel);
        begun->begin();
        if (!driver->add(begun)) {
            begun->end(aborted());
            return;
        }
        if (auto kept = driver->returned_to(channel)) {
            if (!begun->offer(kept->second, kept->first)) {
                driver->take_back(channel, std::move(kept->second), kept->first);
            }
            return;
        }
        auto handed = driver->home().try_receive(
            channel, [begun](message_view lent) { return begun->take(lent); },
            [begun](status_code status) { begun->ended_by_layer(status); });
        if (!handed.ok()) {
            begun->end(code_of(handed.status()));
            driver->failed("async_receive", handed.status(), handed.message());
            return;
        }
        begun->keep(std::move(*handed));
    }

    std::shared_ptr<engine> driver;
    std::string channel;
};

} // namespace asio_detail

/// Runs the callbacks of a layer in an execution context of Asio, and its operations for completion
/// tokens. The layer has option dispatch=poll; all its callbacks, those of `layer::receive` and
/// `options::on_log` too, run in that context, one after the other.
///
/// It owns a duplicate of the layer's descriptor and refers to the layer, which may be moved but
/// not end before: declare the context first, then the layer, then the driver. All but its
/// destruction and its being moved may be called from any thread.
///
/// A handler is called once, on its associated executor, else on the driver's, never inside the
/// call that begins the operation and never inside a callback of the layer: it may call what waits.
/// Names and bytes are copied. Its wait for callbacks keeps `run()` from returning until `stop`,
/// until the driver is destroyed, or until the layer is closed.
class asio_driver {
  public:
    using executor_type = asio_detail::net::any_io_executor;

    /// Throws `error`: `invalid` where the layer has not dispatch=poll.
    asio_driver(const executor_type &executor, const layer &open)
        : driver(std::make_shared<asio_detail::engine>(executor, open)) {
        driver->wait();
    }
    template <class Context, class = std::enable_if_t<std::is_convertible_v<
                                 Context &, asio_detail::net::execution_context &>>>
    asio_driver(Context &context, const layer &open)
        : asio_driver(executor_type(context.get_executor()), open) {}

    asio_driver(asio_driver &&) noexcept = default;
    asio_driver &operator=(asio_driver &&other) noexcept {
        if (this != &other) {
            stop();
            driver = std::move(other.driver);
        }
        return *this;
    }
    ~asio_driver() { stop(); }

    executor_type get_executor() const noexcept { return driver->executor(); }

    /// Ends its operations with `operation_aborted`, and runs no callback from then on. What was
    /// sent may have been sent; no message is lost.
    void stop() noexcept {
        if (driver) {
            driver->end(asio_detail::aborted());
        }
    }

    /// Ends each `async_receive` of a channel that has no message yet with `operation_aborted`.
    void cancel_receive(std::string_view channel) const { driver->end_receives(channel); }

    /// `handler(const char *operation, status_code, const char *text)`: gets the text of each
    /// operation that fails, which a code cannot hold, for logs. It is called inside a callback, or
    /// in the call that begins the operation, and must not wait.
    template <class FailureHandler> void on_failure(FailureHandler &&handler) const {
        driver->on_failure(std::forward<FailureHandler>(handler));
    }

    /// `layer::send_async`. Its handler: `void(error_code)`. A cancellation of type terminal ends
    /// it with `operation_aborted`, and the message may be sent all the same; others do nothing.
    template <class Token>
    auto async_send(std::string_view channel, bytes_view message, Token &&token) const {
        return begin_send(channel, copied(message), std::forward<Token>(token));
    }
    /// The same with a T that has a `packer`.
    template <class T, class Token, class = detail::packed_t<T>>
    auto async_send(std::string_view channel, const T &message, Token &&token) const {
        return begin_send(channel, packed(message), std::forward<Token>(token));
    }

    /// `layer::group_send_async`, in all else as `async_send`.
    template <class Token>
    auto async_group_send(std::string_view group, bytes_view message, Token &&token) const {
        return begin_group_send(group, copied(message), std::forward<Token>(token));
    }
    template <class T, class Token, class = detail::packed_t<T>>
    auto async_group_send(std::string_view group, const T &message, Token &&token) const {
        return begin_group_send(group, packed(message), std::forward<Token>(token));
    }

    /// `layer::group_add_async`, in all else as `async_send`.
    template <class Token>
    auto async_group_add(std::string_view group, std::string_view channel, Token &&token) const {
        return begin(
            "async_group_add",
            [name = std::string(group), member = std::string(channel)](const layer &home,
                                                                       auto &&done) {
                return home.try_group_add_async(name, member, std::forward<decltype(done)>(done));
            },
            std::forward<Token>(token));
    }

    /// The next message of a channel of this layer. Its handler: `void(error_code, message)`, with
    /// an empty message where there is an error. Where it is cancelled, by `cancel_receive`, `stop`
    /// or a cancellation slot of any type, the channel keeps its messages. A message that had come
    /// when the slot was used, and whose handler had not been called, is kept by the driver for the
    /// next `async_receive` of that channel. Several may wait at once for messages of one channel.
    template <class Token> auto async_receive(std::string_view channel, Token &&token) const {
        return asio_detail::net::async_initiate<Token, void(asio_detail::error_code, message)>(
            asio_detail::receive_initiation{driver, std::string(channel)}, token);
    }

  private:
    /// Bytes to be sent, or why there are none.
    struct payload {
        std::vector<std::uint8_t> bytes;
        status_code status = status_code::ok;
        std::string problem;
    };

    static payload copied(bytes_view message) {
        return {std::vector<std::uint8_t>(message.begin(), message.end()), status_code::ok, {}};
    }
    template <class T> static payload packed(const T &message) {
        try {
            const auto bytes = packer<T>::pack(message);
            return copied(bytes_view(bytes));
        } catch (...) {
            const auto why = detail::failure_of_packer();
            return {{}, why.status(), why.message()};
        }
    }

    template <class Token>
    auto begin_send(std::string_view channel, payload body, Token &&token) const {
        return begin(
            "async_send",
            [name = std::string(channel), body = std::move(body)](const layer &home,
                                                                  auto &&done) -> result<void> {
                if (body.status != status_code::ok) {
                    return failure(body.status, body.problem.c_str());
                }
                return home.try_send_async(name, bytes_view(body.bytes),
                                           std::forward<decltype(done)>(done));
            },
            std::forward<Token>(token));
    }
    template <class Token>
    auto begin_group_send(std::string_view group, payload body, Token &&token) const {
        return begin(
            "async_group_send",
            [name = std::string(group), body = std::move(body)](const layer &home,
                                                                auto &&done) -> result<void> {
                if (body.status != status_code::ok) {
                    return failure(body.status, body.problem.c_str());
                }
                return home.try_group_send_async(name, bytes_view(body.bytes),
                                                 std::forward<decltype(done)>(done));
            },
            std::forward<Token>(token));
    }

    template <class Start, class Token>
    auto begin(const char *what, Start start, Token &&token) const {
        return asio_detail::net::async_initiate<Token, void(asio_detail::error_code)>(
            asio_detail::call_initiation<Start>{driver, what, std::move(start)}, token);
    }

    std::shared_ptr<asio_detail::engine> driver;
};

} // namespace standalone_asio or boost_asio

} // namespace channel_layer

#endif /* CHANNEL_LAYER_ASIO_HPP */
