// A receiver that `layer::receive` started. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_RECEIVER_HPP
#define CHANNEL_LAYER_RECEIVER_HPP

#include <cstdint>
#include <memory>
#include <utility>

#include "call.hpp"
#include "callback.hpp"
#include "channel_layer.h"

namespace channel_layer {

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

} // namespace channel_layer

#endif /* CHANNEL_LAYER_RECEIVER_HPP */
