//! Sending, to a channel and to a group.

use std::ffi::{c_char, c_void};

use crate::ffi::callback::{DoneCallback, layer_destroy_cb, layer_done_cb};
use crate::ffi::handle;
use crate::ffi::status::{guard, layer_error_t, layer_status_t};

use super::{disown, layer_t, open_with};

/// Sends a message to a channel and waits for the broker's confirm, at most option `timeout`.
///
/// While the layer is not ready, it waits within that time. With `max_in_flight` sends in flight it
/// waits for a place.
///
/// `channel`: borrowed. `message`, `length`: borrowed; one MessagePack map as the Channels
/// specification allows: string keys, nil, bool, integers, floats, strings, bytes, arrays, maps, at
/// most 128 deep; no key `__asgi_channel__` or `__asgi_group__`. Integers are those of MessagePack,
/// -2^63 to 2^64-1. `error`: see the conventions. Blocks; any thread; not from a callback.
/// Returns `LAYER_OK`; `LAYER_FULL`; `LAYER_NO_CHANNEL`; `LAYER_INVALID`; `LAYER_TOO_LARGE`;
/// `LAYER_DISCONNECTED`; `LAYER_BUSY`; `LAYER_TIMEOUT`; `LAYER_UNCONFIRMED`; `LAYER_REFUSED`;
/// `LAYER_CLOSED`; `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_send(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, C strings and bytes
        // that stay as they are.
        let ((layer, channel), message) = unsafe {
            (
                open_with(layer, channel, "channel")?,
                handle::bytes(message, length, "message")?,
            )
        };
        layer.send(channel, message)
    })
}

/// `layer_send` with the message as JSON text: one object. A string of U+FFFF followed by base64
/// becomes bytes. Integers outside -2^63 to 2^64-1 and duplicate keys are `LAYER_INVALID`.
///
/// `json`: borrowed, NUL-terminated UTF-8. All else as `layer_send`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_send_json(
    layer: *const layer_t,
    channel: *const c_char,
    json: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, channel), json) = unsafe {
            (
                open_with(layer, channel, "channel")?,
                handle::text(json, "json")?,
            )
        };
        layer.send_json(channel, json)
    })
}

/// Sends a message to every member of a group, in all processes, and waits for the broker's
/// confirm. A group without members is `LAYER_OK`. `LAYER_FULL` means that at least one member
/// process refused the message; the others have it.
///
/// `group`: borrowed. All else as `layer_send`; `LAYER_NO_CHANNEL` does not occur.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_send(
    layer: *const layer_t,
    group: *const c_char,
    message: *const u8,
    length: usize,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, C strings and bytes
        // that stay as they are.
        let ((layer, group), message) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::bytes(message, length, "message")?,
            )
        };
        layer.group_send(group, message)
    })
}

/// `layer_group_send` with the message as JSON text, as in `layer_send_json`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_send_json(
    layer: *const layer_t,
    group: *const c_char,
    json: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, group), json) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::text(json, "json")?,
            )
        };
        layer.group_send_json(group, json)
    })
}

/// `layer_send` without waiting: the outcome goes to `done`.
///
/// `channel`, `message`: borrowed until the call returns. `done`: not NULL; called once with each
/// status of `layer_send` that takes time; perhaps on another thread before this call returns,
/// never on this thread inside it. The place in `max_in_flight` is held until `done` was called.
/// `userdata`, `destroy`: see the conventions. Never blocks; any thread; allowed from a callback.
/// Returns `LAYER_OK` (accepted); `LAYER_INVALID`; `LAYER_TOO_LARGE`; `LAYER_BUSY` (no place, or
/// the broker blocks publishers); `LAYER_REFUSED`; `LAYER_CLOSED`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_send_async(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, C strings and bytes
        // that stay as they are.
        let ((layer, channel), message) = unsafe {
            (
                open_with(layer, channel, "channel")?,
                handle::bytes(message, length, "message")?,
            )
        };
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer.send_async(channel, message, done).map_err(disown)
    })
}

/// `layer_group_send` without waiting; all else as `layer_send_async`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_send_async(
    layer: *const layer_t,
    group: *const c_char,
    message: *const u8,
    length: usize,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, C strings and bytes
        // that stay as they are.
        let ((layer, group), message) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::bytes(message, length, "message")?,
            )
        };
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer.group_send_async(group, message, done).map_err(disown)
    })
}

/// `layer_send_json` without waiting: the outcome goes to `done`.
///
/// `channel`, `json`: borrowed until the call returns. The rules of `layer_send_json` hold for the
/// text; one that is not allowed is `LAYER_INVALID` here, and never an outcome.
///
/// All else as `layer_send_async`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_send_json_async(
    layer: *const layer_t,
    channel: *const c_char,
    json: *const c_char,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, channel), json) = unsafe {
            (
                open_with(layer, channel, "channel")?,
                handle::text(json, "json")?,
            )
        };
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer.send_json_async(channel, json, done).map_err(disown)
    })
}

/// `layer_group_send_json` without waiting; all else as `layer_send_json_async`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_group_send_json_async(
    layer: *const layer_t,
    group: *const c_char,
    json: *const c_char,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and C strings.
        let ((layer, group), json) = unsafe {
            (
                open_with(layer, group, "group")?,
                handle::text(json, "json")?,
            )
        };
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer
            .group_send_json_async(group, json, done)
            .map_err(disown)
    })
}
