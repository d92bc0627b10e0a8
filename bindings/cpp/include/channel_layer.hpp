/*
 * channel-layer for C++17 and newer, header only, over channel_layer.h: link with -lchannel_layer.
 *
 * What the calls mean is said in channel_layer.h; here is said what C++ adds to it.
 *
 * Errors. Each call has two forms. `send` throws `channel_layer::error`, which carries the status
 * and the library's text. `try_send` is noexcept and gives a `result`. The two differ in one more
 * thing: where the time of `receive_next` runs out it gives no message, and `try_receive_next` has
 * status `timeout`.
 *
 * Durations are those of std::chrono, from hours to milliseconds for timeouts and to nanoseconds
 * for options. A timeout below 0 does not wait, as 0 does not; one longer than C takes (49 days)
 * waits as long as that. So does `std::chrono::hours::max()`, which std::chrono itself would
 * overflow.
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

#include "channel_layer/error.hpp"
#include "channel_layer/error_code.hpp"
#include "channel_layer/layer.hpp"
#include "channel_layer/message.hpp"
#include "channel_layer/options.hpp"
#include "channel_layer/receiver.hpp"
#include "channel_layer/status.hpp"

#endif /* CHANNEL_LAYER_HPP */
