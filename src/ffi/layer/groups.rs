//! Membership.

use std::ffi::{c_char, c_void};

use crate::ffi::callback::{DoneCallback, layer_destroy_cb, layer_done_cb};
use crate::ffi::handle;
use crate::ffi::status::{guard, layer_error_t, layer_status_t};

use super::{disown, layer_t, open_with};

/// Adds a channel to a group. The membership is recorded at once; the call returns when the broker
/// routes the group here, so that a message that is sent afterwards arrives.
///
/// It waits at most option `timeout`. On `LAYER_TIMEOUT`, `LAYER_DISCONNECTED` and `LAYER_REFUSED`
/// the membership stays and is bound on reconnection. Adding again is fine and renews the
/// membership. It expires where for `group_expiry` the channel was not added again and not in use: no
/// receiver and no thread waited for its messages, and none was taken.
///
/// `group`, `channel`: borrowed; a channel of this layer. `error`: see the conventions. Blocks; any
/// thread; from a callback only where the group is routed here already. Returns `LAYER_OK`;
/// `LAYER_TIMEOUT` (connected, and the broker has not answered); `LAYER_DISCONNECTED`;
/// `LAYER_REFUSED`; `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_WOULD_DEADLOCK` (nothing was recorded);
/// `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_add(
    layer: *const layer_t,
    group: *const c_char,
    channel: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, group), channel) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::text(channel, "channel")?,
            )
        };
        layer.group_add(group, channel)
    })
}

/// `layer_group_add` without waiting: the outcome goes to `done`.
///
/// Calls under way are not counted in `max_in_flight`.
///
/// `done`: not NULL; called once, perhaps on another thread before this call returns, never on this
/// thread inside it. `userdata`, `destroy`: see the conventions. Never blocks; any thread; allowed
/// from a callback. Returns `LAYER_OK` (recorded); `LAYER_INVALID`; `LAYER_CLOSED`;
/// `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_add_async(
    layer: *const layer_t,
    group: *const c_char,
    channel: *const c_char,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, group), channel) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::text(channel, "channel")?,
            )
        };
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer.group_add_async(group, channel, done).map_err(disown)
    })
}

/// Removes a channel from a group, here at once; the broker follows. Messages that are queued for
/// the channel already stay. Discarding one that is no member is fine.
///
/// `group`, `channel`: borrowed; a channel of this layer. `error`: see the conventions. Never
/// blocks; any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`;
/// `LAYER_CLOSED`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_group_discard(
    layer: *const layer_t,
    group: *const c_char,
    channel: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, group), channel) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::text(channel, "channel")?,
            )
        };
        layer.group_discard(group, channel)
    })
}
