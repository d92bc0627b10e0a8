//! Running callbacks on the caller's own thread, for event loops.

use std::ffi::c_int;
use std::os::fd::IntoRawFd;

use crate::ffi::handle;
use crate::ffi::status::{guard, guard_value, layer_error_t, layer_status_t};

use super::{layer_t, milliseconds, open};

/// With `dispatch=poll`: a descriptor that is readable while callbacks are due, for epoll, libuv,
/// asyncio and the like. When it is, call `layer_poll`. Neither read, write nor close it. After a
/// callback that was due has been cancelled it may be readable once more, for a `layer_poll` that
/// runs none.
///
/// Watch it level-triggered, which is the default of poll and epoll. A loop that is edge-triggered
/// (`EPOLLET`) calls `layer_poll` until `ran` is 0, since what is left makes no new edge.
///
/// Boost.Asio and others close a descriptor that they were given: give them one from `layer_fd_dup`.
/// If this one is closed all the same, the layer goes on, does not touch the file that has its
/// number by then, and logs `descriptor_lost`.
///
/// `layer`: borrowed. The descriptor belongs to the layer and is closed by `layer_free`. Never
/// blocks; any thread; allowed from a callback. Returns -1 for NULL, with `dispatch=thread`, and
/// after a fork.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_fd(layer: *const layer_t) -> c_int {
    guard_value(-1, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        unsafe { open(layer) }
            .ok()
            .and_then(|layer| layer.fd())
            .unwrap_or(-1)
    })
}

/// With `dispatch=poll`: a duplicate of the descriptor of `layer_fd`, which the caller owns. It is
/// readable while callbacks are due, for event loops that close what they were given, and it may be
/// closed before or after `layer_free`. After that it never becomes readable. Each call gives another
/// one, which is closed on exec.
///
/// `layer`: borrowed. `fd`: receives the descriptor, to be closed by the caller. `error`: see the
/// conventions. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for a closed
/// layer too; `LAYER_INVALID` (NULL, or `dispatch=thread`); `LAYER_FORKED`; `LAYER_INTERNAL` (the
/// system gives no descriptor, as with `EMFILE`). `fd` is written only with `LAYER_OK`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_fd_dup(
    layer: *const layer_t,
    fd: *mut c_int,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        let layer = unsafe { open(layer) }?;
        let out = handle::out(fd, "fd")?;
        let duplicate = layer.fd_duplicate()?;
        // SAFETY: the caller passes NULL, refused above, or a place for an int.
        unsafe { out.write(duplicate.into_raw_fd()) };
        Ok(())
    })
}

/// With `dispatch=poll`: runs callbacks that are due, of all kinds, on this thread.
///
/// Several threads may poll at once; the order of each channel is kept.
///
/// `max`: the most callbacks to run; with 0, each channel that is due when the call begins has one
/// turn. `ran` is 0 only if nothing is due any more. A `destroy` that follows a callback is not counted. `timeout_ms`: how long to wait for the first
/// callback; 0 does not wait. `ran`: receives their number; may be NULL. `error`: see the
/// conventions. Blocks up to `timeout_ms`, and as long as your callbacks do; any thread; not from a
/// callback. Returns `LAYER_OK` (`ran` may be 0); `LAYER_CLOSED` (closed, and nothing is due any
/// more; where closing ran out of time, a callback may still be running on another thread);
/// `LAYER_INVALID` (NULL, or `dispatch=thread`); `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_poll(
    layer: *const layer_t,
    max: usize,
    timeout_ms: u32,
    ran: *mut usize,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        let count = unsafe { open(layer) }?.poll(max, milliseconds(timeout_ms))?;
        if let Ok(out) = handle::out(ran, "ran") {
            // SAFETY: a non-NULL `ran` is a place for a size_t of the caller's.
            unsafe { out.write(count) };
        }
        Ok(())
    })
}
