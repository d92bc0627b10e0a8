//! Receiving, by callback and by pull, and giving a channel up.

use std::ffi::{c_char, c_void};

use crate::ffi::callback::{ReceiveCallback, layer_destroy_cb, layer_receive_cb};
use crate::ffi::handle;
use crate::ffi::message::layer_message_t;
use crate::ffi::status::{guard, layer_error_t, layer_status_t};

use super::{disown, layer_t, milliseconds, open, open_with};

/// Receives the messages of a channel by callback: one call for each message, in order.
///
/// Messages that came before are delivered too. Several receivers of one channel share its
/// messages: each goes to one of them. Calls for one channel never overlap; those for different
/// channels may, with `dispatch_threads` above 1 or several threads in `layer_poll`.
/// How a receiver ends: by its user (`LAYER_STOP`, `LAYER_DECLINE`, `layer_receive_cancel`), then
/// only `destroy` follows; or by the layer, then there is one last call with `LAYER_CANCELLED` (the
/// channel was discarded) or `LAYER_CLOSED` and no message, then `destroy`.
///
/// `channel`: borrowed; a channel of this layer. `callback`: not NULL. `receiver`: receives the
/// receiver's number, never 0 and never used again, before the first call; may be NULL. `userdata`,
/// `destroy`, `error`: see the conventions. Never blocks; any thread; allowed from a callback.
/// Returns `LAYER_OK`; `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_receive(
    layer: *const layer_t,
    channel: *const c_char,
    callback: layer_receive_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    receiver: *mut u64,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and a C string.
        let (layer, channel) = unsafe { open_with(layer, channel, "channel") }?;
        let callback = ReceiveCallback::new(callback, userdata, destroy, "callback")?;
        layer
            .receive_announced(channel, callback, |id| {
                if let Ok(out) = handle::out(receiver, "receiver") {
                    // SAFETY: a non-NULL `receiver` is a place for a number of the caller's.
                    unsafe { out.write(id) };
                }
            })
            .map_err(disown)?;
        Ok(())
    })
}

/// Ends a receiver. No call of its callback begins once this has returned, and no message is lost:
/// what it did not take stays in the channel.
///
/// It waits for a call that is running, at most option `timeout`, and then runs `destroy` itself.
/// From a callback it never waits: a call that is running goes on, and `destroy` follows it. Of two
/// threads that cancel one receiver at once, one may return before the other has run `destroy`.
///
/// `receiver`: a number from `layer_receive`; an unknown or ended one is `LAYER_OK`. `error`: see
/// the conventions. Blocks; any thread; allowed from a callback. Returns `LAYER_OK`;
/// `LAYER_TIMEOUT` (no call will begin any more, `destroy` follows the one that is running);
/// `LAYER_INVALID` (NULL); `LAYER_FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_receive_cancel(
    layer: *const layer_t,
    receiver: u64,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        unsafe { open(layer) }?.receive_cancel(receiver)
    })
}

/// Waits for the next message of a channel. While a receiver of the channel, on another thread, is
/// about to decline a message, that one is neither here nor there, and this may give the one after.
///
/// `channel`: borrowed; a channel of this layer. `timeout_ms`: 0 only looks. `message`: receives a
/// message to be freed by `layer_message_free`. `error`: see the conventions. Blocks up to
/// `timeout_ms`; any thread; from a callback only with 0. Returns `LAYER_OK`; `LAYER_TIMEOUT`
/// (nothing is lost); `LAYER_CANCELLED` (the channel was discarded meanwhile); `LAYER_CLOSED`;
/// `LAYER_INVALID`; `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_receive_next(
    layer: *const layer_t,
    channel: *const c_char,
    timeout_ms: u32,
    message: *mut *mut layer_message_t,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and a C string.
        let (layer, channel) = unsafe { open_with(layer, channel, "channel") }?;
        let out = handle::out(message, "message")?;
        let received = layer.receive_next(channel, milliseconds(timeout_ms))?;
        // SAFETY: the caller passes NULL, refused above, or a place for a pointer.
        unsafe { out.write(handle::give(layer_message_t::own(received))) };
        Ok(())
    })
}

/// Gives a channel up, for instance because its client went away: drops its memberships, its
/// queued messages and its receivers, which get a last call with `LAYER_CANCELLED`. The name can be
/// used again.
///
/// `channel`: borrowed; a channel of this layer. `error`: see the conventions. Never blocks; any
/// thread; allowed from a callback. Returns `LAYER_OK`, for a channel that holds nothing too;
/// `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_channel_discard(
    layer: *const layer_t,
    channel: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and a C string.
        let (layer, channel) = unsafe { open_with(layer, channel, "channel") }?;
        layer.channel_discard(channel)
    })
}
