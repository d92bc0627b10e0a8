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
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
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

class engine;

/// An operation that has begun. Its outcome, its cancellation and the end of its driver may come at
/// once from several threads: the first of them completes it.
class operation {
  public:
    explicit operation(std::weak_ptr<engine> driver, std::string from = {}) noexcept
        : owner(std::move(driver)), channel(std::move(from)) {}
    operation(const operation &) = delete;
    operation &operator=(const operation &) = delete;
    /// Takes the mutex of the driver.
    virtual ~operation();

    /// Completes it without a result; false where it was completed before.
    virtual bool end(error_code code) = 0;
    /// By the cancellation slot of its handler, on the handler's executor.
    virtual void cancel(bool terminal) = 0;
    /// Whether it waits for a message.
    virtual bool receives() const noexcept { return false; }
    /// Completes it with a message, and moves from that only where this is true. Where it is false
    /// it was completed before, and receives no more.
    virtual bool offer(message &, std::uint64_t) { return false; }

    const std::weak_ptr<engine> owner;
    /// The channel that it receives from; empty where it does not receive.
    const std::string channel;
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

    layer home() const noexcept { return detail::layer_access::reach(watched); }

    /// Waits until callbacks are due, runs them, and begins again.
    void wait() {
        const std::lock_guard<std::mutex> held(mutex);
        if (ended_with) {
            return;
        }
        descriptor.async_wait(net::posix::stream_descriptor::wait_read,
                              [self = shared_from_this()](error_code problem) {
                                  if (problem) {
                                      return self->end(problem);
                                  }
                                  const auto code = self->poll();
                                  if (code) {
                                      return self->end(code);
                                  }
                                  self->wait();
                              });
    }

    /// Completes all that has begun.
    void end(error_code code) {
        listing left;
        {
            const std::lock_guard<std::mutex> held(mutex);
            if (ended_with) {
                return;
            }
            ended_with = code;
            error_code ignored; // closed in any case, and it was a duplicate
            descriptor.close(ignored);
            left.swap(begun);
        }
        for (const auto &each : left) {
            if (const auto live = each.second.live.lock()) {
                live->end(code);
            }
        }
    }

    /// Ends an operation at once, and is false, where the driver has ended.
    bool add(const std::shared_ptr<operation> &starting) {
        std::unique_lock<std::mutex> held(mutex);
        if (const auto code = ended_with) {
            held.unlock();
            starting->end(*code);
            return false;
        }
        begun.emplace(key(starting->channel, starting.get()), listed{starting});
        return true;
    }

    void remove(const operation &over) {
        const std::lock_guard<std::mutex> held(mutex);
        const auto found = begun.find(key_view(over.channel, &over));
        if (found != begun.end()) {
            begun.erase(found);
        }
    }

    void end_receives(std::string_view channel) {
        operations waiting;
        {
            const std::lock_guard<std::mutex> held(mutex);
            find_receives(channel, waiting);
        }
        for (const auto &each : waiting) {
            each->end(aborted());
        }
    }

    result<void> discard(std::string_view channel) {
        auto done = home().try_channel_discard(channel);
        if (!done) {
            return done;
        }
        // Both are released after the mutex.
        decltype(returned)::node_type dropped;
        operations waiting;
        {
            const std::lock_guard<std::mutex> held(mutex);
            const auto kept = returned.find(channel);
            if (kept != returned.end()) {
                dropped = returned.extract(kept);
            }
            for (auto at = first_of(channel); at != begun.end() && at->first.first == channel;
                 ++at) {
                at->second.discarded = true;
            }
            find_receives(channel, waiting);
        }
        // The layer ends those that it knows. One that was about to begin there would outlive the
        // discard, and lose each message that it gives back.
        for (const auto &each : waiting) {
            each->end(code_of(status_code::cancelled));
        }
        return done;
    }

    /// A number for a message, by which those that come back keep their order.
    std::uint64_t next_number() noexcept { return numbers.fetch_add(1, std::memory_order_relaxed); }

    /// Takes a message from a receive that was cancelled once it had it: for a receive that waits,
    /// or for the next one; drops it where the channel was discarded since that receive began.
    /// False where the driver has ended.
    bool take_back(const operation &from, message &&kept, std::uint64_t number) {
        for (;;) {
            operations waiting;
            {
                // To find no receive and to store the message is one step: a receive that is added
                // before it is found, one that is added after it looks for the message.
                const std::lock_guard<std::mutex> held(mutex);
                if (ended_with) {
                    return false;
                }
                const auto found = begun.find(key_view(from.channel, &from));
                if (found != begun.end() && found->second.discarded) {
                    return true;
                }
                if (!find_receives(from.channel, waiting)) {
                    returned[from.channel].emplace(number, std::move(kept));
                    return true;
                }
            }
            for (const auto &each : waiting) {
                if (each->offer(kept, number)) {
                    return true;
                }
            } // all were completed meanwhile
        }
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
    error_code poll() {
        const layer open = home();
        for (;;) {
            auto ran = open.try_poll();
            if (!ran.ok()) {
                return code_of(ran.status());
            }
            // Nothing wakes us after the last callback of a layer that closes, so ask until it says
            // that it is closed. A layer that is open may have callbacks without end: not so there.
            auto state = open.try_state();
            if (*ran == 0 || !state.ok() || *state != connection_state::closed) {
                return {};
            }
        }
    }

    using key = std::pair<std::string, const operation *>;
    using key_view = std::pair<std::string_view, const operation *>;
    using operations = std::vector<std::shared_ptr<operation>>;

    struct by_channel {
        using is_transparent = void;
        template <class A, class B> bool operator()(const A &left, const B &right) const noexcept {
            const int order = std::string_view(left.first).compare(right.first);
            return order < 0 ||
                   (order == 0 && std::less<const operation *>()(left.second, right.second));
        }
    };
    struct listed {
        std::weak_ptr<operation> live;
        /// A message that it gives back is dropped.
        bool discarded = false;
    };

    using listing = std::map<key, listed, by_channel>;

    /// Under the mutex.
    listing::iterator first_of(std::string_view channel) {
        return begun.lower_bound(key_view(channel, nullptr));
    }

    /// All receives of the channel, and whether one of them waits. Under the mutex, after which
    /// the caller releases `found`, since ~operation takes it.
    bool find_receives(std::string_view channel, operations &found) {
        bool any = false;
        for (auto at = first_of(channel); at != begun.end() && at->first.first == channel; ++at) {
            if (auto live = at->second.live.lock()) {
                found.push_back(std::move(live));
                any = any || found.back()->receives();
            }
        }
        return any;
    }

    const std::weak_ptr<detail::core> watched;
    std::atomic<std::uint64_t> numbers{0};
    std::mutex mutex;
    // All below is under the mutex.
    net::posix::stream_descriptor descriptor;
    std::optional<error_code> ended_with;
    // Each for as long as it lives: a receive that is complete may still give its message back.
    listing begun;
    std::map<std::string, std::map<std::uint64_t, message>, std::less<>> returned;
    std::shared_ptr<const failure_handler> failures;
};

inline operation::~operation() {
    if (const auto driver = owner.lock()) {
        driver->remove(*this);
    }
}

class receive_operation;
struct delivery;

/// A handler of any type, that waits for its operation. Whoever completes the operation takes it
/// out: the library may keep the operation for longer than the handler's executor lives.
class completion {
  public:
    virtual ~completion() = default;
    /// Lets the handler's cancellation slot reach an operation: on the handler's executor, as
    /// `call`, so that the two never meet.
    virtual void watch_slot(std::weak_ptr<operation> begun) = 0;
    /// Hands a delivery, which owns this, to the handler's executor.
    virtual void post(delivery &&ready) = 0;
    /// Calls the handler, from its executor. What it owned, this too, is free by then, for it may
    /// begin the next operation.
    virtual void call(std::unique_ptr<completion> self, error_code code, message given) = 0;
};

/// A completed operation on its way to its handler. One type for all handlers, so that a program
/// gets what Asio makes of it once for each type of executor and not for each handler.
struct delivery {
    std::unique_ptr<completion> handler;
    error_code code;
    message given;
    // Of a receive that has a message.
    std::shared_ptr<receive_operation> begun;
    std::uint64_t number = 0;

    void operator()();
};

template <class Handler, class Signature> class waiting_handler final : public completion {
  public:
    waiting_handler(Handler taken, const net::any_io_executor &fallback)
        : handler(std::move(taken)), work(net::get_associated_executor(handler, fallback))
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
          ,
          slot(net::get_associated_cancellation_slot(handler))
#endif
    {
    }

    void watch_slot(std::weak_ptr<operation> begun) override {
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
        if (slot.is_connected()) {
            slot.assign([begun = std::move(begun)](net::cancellation_type type) {
                if (const auto live = begun.lock()) {
                    live->cancel((type & net::cancellation_type::terminal) !=
                                 net::cancellation_type::none);
                }
            });
        }
#else
        (void)begun;
#endif
    }

    void post(delivery &&ready) override {
        const auto executor = work.get_executor(); // this may end before `post` returns
        net::post(executor, std::move(ready));
    }

    void call(std::unique_ptr<completion> self, error_code code, message given) override {
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
        if (slot.is_connected()) {
            slot.clear();
        }
#endif
        Handler called(std::move(handler));
        self.reset();
        if constexpr (std::is_same_v<Signature, void(error_code)>) {
            std::move(called)(code);
        } else {
            std::move(called)(code, std::move(given));
        }
    }

  private:
    Handler handler;
    // Keeps the executor working until the handler was called.
    net::executor_work_guard<net::associated_executor_t<Handler, net::any_io_executor>> work;
#if defined(CHANNEL_LAYER_ASIO_HAS_CANCELLATION)
    net::associated_cancellation_slot_t<Handler> slot;
#endif
};

/// A send, a membership or a close: it ends with a code alone.
class call_operation final : public operation {
  public:
    call_operation(std::unique_ptr<completion> handler, std::weak_ptr<engine> driver,
                   bool closes) noexcept
        : operation(std::move(driver)), closing(closes), waiting(std::move(handler)) {}

    bool end(error_code code) override {
        if (claimed.exchange(true)) {
            return false;
        }
        if (closing && code == code_of(status_code::closed)) {
            code = code_of(status_code::ok); // what it was to do
        }
        completion &handler = *waiting;
        handler.post({std::move(waiting), code, {}, nullptr});
        return true;
    }

    /// What was handed over may still be done, which is what `terminal` allows and others do not.
    void cancel(bool terminal) override {
        if (terminal) {
            end(aborted());
        }
    }

  private:
    const bool closing;
    std::atomic<bool> claimed{false};
    std::unique_ptr<completion> waiting; // of the one that has claimed it
};

/// A wait for the next message of a channel.
class receive_operation final : public operation,
                                public std::enable_shared_from_this<receive_operation> {
  public:
    receive_operation(std::unique_ptr<completion> handler, std::weak_ptr<engine> driver,
                      std::string from) noexcept
        : operation(std::move(driver), std::move(from)), waiting(std::move(handler)) {}

    bool end(error_code code) override {
        if (claimed.exchange(true)) {
            return false;
        }
        const receiver ending = taken_receiver();
        complete(code, {}, 0);
        return true; // and cancels the receiver, so that the channel keeps its messages
    }

    bool receives() const noexcept override { return !claimed.load(); }

    bool offer(message &kept, std::uint64_t number) override {
        if (claimed.exchange(true)) {
            return false;
        }
        const receiver ending = taken_receiver();
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
    void cancel(bool) override {
        if (!end(aborted())) {
            cancelled_late = true;
        }
    }

    /// On the handler's executor: whether a message went back, since the cancellation came between.
    bool gives_back(message &given, std::uint64_t number) {
        const auto driver = cancelled_late ? owner.lock() : nullptr;
        return driver && driver->take_back(*this, std::move(given), number);
    }

  private:
    receiver taken_receiver() {
        const std::lock_guard<std::mutex> held(mutex);
        return std::move(started);
    }

    void receiver_is_over() {
        const std::lock_guard<std::mutex> held(mutex);
        over = true;
        started.detach();
    }

    void complete(error_code code, message &&given, std::uint64_t number) {
        completion &handler = *waiting;
        handler.post({std::move(waiting), code, std::move(given), shared_from_this(), number});
    }

    std::atomic<bool> claimed{false};
    std::unique_ptr<completion> waiting; // of the one that has claimed it
    bool cancelled_late = false;         // of the handler's executor
    std::mutex mutex;
    receiver started; // under the mutex, as the next
    bool over = false;
};

inline void delivery::operator()() {
    if (given && begun->gives_back(given, number)) {
        code = aborted();
        given = message();
    }
    begun.reset();
    completion &called = *handler;
    called.call(std::move(handler), code, std::move(given));
}

/// Gets the outcome of a call, inside a callback of the layer.
struct call_done {
    std::shared_ptr<operation> begun;
    std::weak_ptr<engine> owner;
    const char *what;

    void operator()(const outcome &how) const {
        const auto live = how ? nullptr : owner.lock();
        begun->end(code_of(how.status()));
        if (live) {
            live->failed(what, how.status(), how.message());
        }
    }
};

/// A call with its arguments, which it owns: for a coroutine it begins later.
struct call_request {
    const char *what;
    result<void> (*begin)(const layer &home, const call_request &given, call_done done);
    std::string name;
    std::string text;
    std::vector<std::uint8_t> bytes;
    std::chrono::milliseconds timeout{0};
    bool closes = false;
    // Why there are no bytes, where a packer has failed.
    status_code status = status_code::ok;
};

/// `engine::add`, where a driver that was moved from has none.
inline bool add_to(const std::shared_ptr<engine> &driver, const std::shared_ptr<operation> &begun) {
    if (driver) {
        return driver->add(begun);
    }
    begun->end(code_of(status_code::closed));
    return false;
}

/// Begins a call when the token says so.
struct call_initiation {
    using executor_type = net::any_io_executor;
    executor_type get_executor() const noexcept { return executor; }

    template <class Handler> void operator()(Handler &&handler) const {
        using waiting = waiting_handler<std::decay_t<Handler>, void(error_code)>;
        start(std::make_unique<waiting>(std::forward<Handler>(handler), executor));
    }

    std::shared_ptr<engine> driver;
    net::any_io_executor executor;
    call_request request;

  private:
    void start(std::unique_ptr<completion> handler) const {
        completion &waiting = *handler;
        const auto begun =
            std::make_shared<call_operation>(std::move(handler), driver, driver && request.closes);
        waiting.watch_slot(begun);
        if (!add_to(driver, begun)) {
            return;
        }
        const auto handed =
            request.status == status_code::ok
                ? request.begin(driver->home(), request, call_done{begun, driver, request.what})
                : failure(request.status, request.text.c_str());
        if (!handed.ok()) {
            begun->end(code_of(handed.status()));
            driver->failed(request.what, handed.status(), handed.message());
        }
    }
};

struct receive_initiation {
    using executor_type = net::any_io_executor;
    executor_type get_executor() const noexcept { return executor; }

    template <class Handler> void operator()(Handler &&handler) const {
        using waiting = waiting_handler<std::decay_t<Handler>, void(error_code, message)>;
        start(std::make_unique<waiting>(std::forward<Handler>(handler), executor));
    }

    std::shared_ptr<engine> driver;
    net::any_io_executor executor;
    std::string channel;

  private:
    void start(std::unique_ptr<completion> handler) const {
        completion &waiting = *handler;
        const auto begun = std::make_shared<receive_operation>(std::move(handler), driver, channel);
        waiting.watch_slot(begun);
        if (!add_to(driver, begun)) {
            return;
        }
        if (auto kept = driver->returned_to(channel)) {
            if (!begun->offer(kept->second, kept->first)) {
                driver->take_back(*begun, std::move(kept->second), kept->first);
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
/// until the driver is destroyed, or until `async_close` has closed the layer; a `layer::close`
/// elsewhere does not wake it. An operation that begins after `async_close` ends with `closed`, and
/// so does each, `async_close` too, of a driver that was moved from, whose other functions do
/// nothing.
class asio_driver {
  public:
    using executor_type = asio_detail::net::any_io_executor;

    /// Throws `error`: `invalid` where the layer has not dispatch=poll.
    asio_driver(const executor_type &context, const layer &open)
        : executor(context), driver(std::make_shared<asio_detail::engine>(context, open)) {
        driver->wait();
    }
    template <class Context, class = std::enable_if_t<std::is_convertible_v<
                                 Context &, asio_detail::net::execution_context &>>>
    asio_driver(Context &context, const layer &open)
        : asio_driver(executor_type(context.get_executor()), open) {}

    asio_driver(asio_driver &&other) noexcept
        : executor(other.executor), driver(std::move(other.driver)) {}
    asio_driver &operator=(asio_driver &&other) noexcept {
        if (this != &other) {
            stop();
            executor = other.executor;
            driver = std::move(other.driver);
        }
        return *this;
    }
    ~asio_driver() { stop(); }

    executor_type get_executor() const noexcept { return executor; }

    /// Ends its operations with `operation_aborted`, and runs no callback from then on. What was
    /// sent may have been sent. The layer keeps the messages that it has; those that the driver
    /// keeps after a late cancellation of `async_receive` are dropped.
    void stop() noexcept {
        if (driver) {
            driver->end(asio_detail::aborted());
        }
    }

    /// Ends each `async_receive` of a channel that has no message yet with `operation_aborted`.
    void cancel_receive(std::string_view channel) const {
        if (driver) {
            driver->end_receives(channel);
        }
    }

    /// `layer::channel_discard`, which does not know what the driver keeps: drops that too, and
    /// ends each `async_receive` of the channel that has no message yet with `cancelled`.
    void channel_discard(std::string_view channel) const { try_channel_discard(channel).value(); }
    result<void> try_channel_discard(std::string_view channel) const noexcept {
        if (!driver) {
            return failure(status_code::closed, "this driver was moved from");
        }
        try {
            return driver->discard(channel);
        } catch (const std::bad_alloc &) {
            return failure(status_code::internal, "there is no memory to discard the channel");
        }
    }

    /// `handler(const char *operation, status_code, const char *text)`: gets the text of each
    /// operation that fails, which a code cannot hold, for logs. It is called inside a callback, or
    /// in the call that begins the operation, and must not wait.
    template <class FailureHandler> void on_failure(FailureHandler &&handler) const {
        if (driver) {
            driver->on_failure(std::forward<FailureHandler>(handler));
        }
    }

    /// `layer::send_async`. Its handler: `void(error_code)`. A cancellation of type terminal ends
    /// it with `operation_aborted`, and the message may be sent all the same; others do nothing.
    template <class Token>
    auto async_send(std::string_view channel, bytes_view message, Token &&token) const {
        return begin(sending(channel, bytes_of(message)), std::forward<Token>(token));
    }
    /// The same with a T that has a `packer`.
    template <class T, class Token, class = detail::packed_t<T>>
    auto async_send(std::string_view channel, const T &message, Token &&token) const {
        return begin(sending(channel, packed(message)), std::forward<Token>(token));
    }
    /// `layer::send_json_async`, in all else as `async_send`.
    template <class Token>
    auto async_send_json(std::string_view channel, std::string_view json, Token &&token) const {
        request given = named("async_send_json", channel);
        given.text = std::string(json);
        given.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_send_json_async(call.name, call.text, std::move(done));
        };
        return begin(std::move(given), std::forward<Token>(token));
    }

    /// `layer::group_send_async`, in all else as `async_send`.
    template <class Token>
    auto async_group_send(std::string_view group, bytes_view message, Token &&token) const {
        return begin(group_sending(group, bytes_of(message)), std::forward<Token>(token));
    }
    template <class T, class Token, class = detail::packed_t<T>>
    auto async_group_send(std::string_view group, const T &message, Token &&token) const {
        return begin(group_sending(group, packed(message)), std::forward<Token>(token));
    }
    /// `layer::group_send_json_async`, in all else as `async_send`.
    template <class Token>
    auto async_group_send_json(std::string_view group, std::string_view json, Token &&token) const {
        request given = named("async_group_send_json", group);
        given.text = std::string(json);
        given.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_group_send_json_async(call.name, call.text, std::move(done));
        };
        return begin(std::move(given), std::forward<Token>(token));
    }

    /// `layer::group_add_async`, in all else as `async_send`.
    template <class Token>
    auto async_group_add(std::string_view group, std::string_view channel, Token &&token) const {
        request given = named("async_group_add", group);
        given.text = std::string(channel);
        given.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_group_add_async(call.name, call.text, std::move(done));
        };
        return begin(std::move(given), std::forward<Token>(token));
    }

    /// `layer::close_async`: closes the layer within `timeout`, after which no operation begins.
    /// Its handler, `void(error_code)`, is posted after those of all other operations, and has no
    /// error where the layer was closed before; it may destroy the layer. A cancellation of type
    /// terminal ends it with `operation_aborted`, and the layer closes all the same, as it does
    /// where the driver stops meanwhile. A driver that was stopped before closes nothing.
    template <class Token>
    auto async_close(saturated<std::chrono::milliseconds> timeout, Token &&token) const {
        request given = named("async_close", {});
        given.timeout = timeout.value;
        given.closes = true;
        given.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_close_async(call.timeout, std::move(done));
        };
        return begin(std::move(given), std::forward<Token>(token));
    }

    /// The next message of a channel of this layer. Its handler: `void(error_code, message)`, with
    /// an empty message where there is an error. Where it is cancelled, by `cancel_receive`, `stop`
    /// or a cancellation slot of any type, the channel keeps its messages. A message that had come
    /// when the slot was used, and whose handler had not been called, is kept by the driver for the
    /// next `async_receive` of that channel, until `channel_discard` or `stop`. Several may wait at
    /// once for messages of one channel.
    template <class Token> auto async_receive(std::string_view channel, Token &&token) const {
        return asio_detail::net::async_initiate<Token, void(asio_detail::error_code, message)>(
            asio_detail::receive_initiation{driver, executor, std::string(channel)}, token);
    }

  private:
    using request = asio_detail::call_request;
    using done_type = asio_detail::call_done;

    static request named(const char *what, std::string_view name) {
        request given{};
        given.what = what;
        given.name = std::string(name);
        return given;
    }

    /// A request with no more than its bytes, or why there are none.
    static request bytes_of(bytes_view message) {
        request given{};
        given.bytes.assign(message.begin(), message.end());
        return given;
    }
    template <class T> static request packed(const T &message) {
        try {
            const auto bytes = packer<T>::pack(message);
            return bytes_of(bytes_view(bytes));
        } catch (...) {
            const auto why = detail::failure_of_packer();
            request given{};
            given.status = why.status();
            given.text = why.message();
            return given;
        }
    }

    static request sending(std::string_view channel, request &&body) {
        body.what = "async_send";
        body.name = std::string(channel);
        body.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_send_async(call.name, bytes_view(call.bytes), std::move(done));
        };
        return std::move(body);
    }
    static request group_sending(std::string_view group, request &&body) {
        body.what = "async_group_send";
        body.name = std::string(group);
        body.begin = [](const layer &home, const request &call, done_type done) {
            return home.try_group_send_async(call.name, bytes_view(call.bytes), std::move(done));
        };
        return std::move(body);
    }

    template <class Token> auto begin(request given, Token &&token) const {
        return asio_detail::net::async_initiate<Token, void(asio_detail::error_code)>(
            asio_detail::call_initiation{driver, executor, std::move(given)}, token);
    }

    executor_type executor; // which a driver that was moved from has too
    std::shared_ptr<asio_detail::engine> driver;
};

} // namespace standalone_asio or boost_asio

} // namespace channel_layer

#endif /* CHANNEL_LAYER_ASIO_HPP */
