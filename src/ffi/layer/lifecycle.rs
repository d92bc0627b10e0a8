//! Opening, watching and closing a layer.

use std::ffi::{c_char, c_void};

use crate::error::{Error, ErrorKind};
use crate::ffi::callback::{DoneCallback, layer_destroy_cb, layer_done_cb, layer_state_t};
use crate::ffi::config::layer_config_t;
use crate::ffi::handle;
use crate::ffi::status::{guard, guard_value, layer_error_t, layer_status_t};
use crate::layer::Layer;
use crate::prometheus::{self, Labels};
use crate::stats::Stat;

use super::{disown, layer_t, milliseconds, open};

/// Opens a layer. It connects in the background and for ever tries again: a broker that is down
/// does not fail this call.
///
/// `config`: borrowed and copied; NULL for all defaults. `layer`: receives the handle, to be freed
/// by `layer_free`. `error`: see the conventions. Never blocks for the network; with `amqps://` it
/// reads the files of the options `tls_...`, or where the system keeps its certificate authorities;
/// any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL `layer`, options
/// that contradict each other, a file that cannot be used); `LAYER_INTERNAL` (the system gives no
/// thread or descriptor).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_new(
    config: *const layer_config_t,
    layer: *mut *mut layer_t,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        let out = handle::out(layer, "layer")?;
        let defaults = layer_config_t::default();
        // SAFETY: the caller passes NULL or a config of its own.
        let config = unsafe { config.as_ref() }.unwrap_or(&defaults);
        let layer = Layer::with_hooks(&config.config, config.hooks.clone())?;
        // SAFETY: the caller passes NULL, refused above, or a place for a handle.
        unsafe { out.write(handle::give(layer_t { layer })) };
        Ok(())
    })
}

/// Waits until the layer is ready: both connections stand and every group is bound.
///
/// `timeout_ms`: 0 only looks. Blocks up to `timeout_ms`; any thread; from a callback only with 0.
/// Returns `LAYER_OK`; `LAYER_TIMEOUT`; `LAYER_REFUSED` (at once); `LAYER_CLOSED`;
/// `LAYER_WOULD_DEADLOCK`; `LAYER_INVALID` (NULL); `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_wait_ready(
    layer: *const layer_t,
    timeout_ms: u32,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        unsafe { open(layer) }?.wait_ready(milliseconds(timeout_ms))
    })
}

/// The state of the layer now.
///
/// `state`: receives it. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for
/// a closed layer too; `LAYER_INVALID` (NULL); `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_state(
    layer: *const layer_t,
    state: *mut layer_state_t,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        let layer = unsafe { open(layer) }?;
        let out = handle::out(state, "state")?;
        // SAFETY: the caller passes NULL, refused above, or a place for a state.
        unsafe { out.write(layer.state().into()) };
        Ok(())
    })
}

/// A counter or gauge of the layer.
///
/// `which`: a `layer_stat_t`. `value`: receives it. Never blocks; any thread; allowed from a
/// callback. Returns `LAYER_OK`, for a closed layer too; `LAYER_INVALID` (NULL, a number that this
/// version does not know); `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_stat(
    layer: *const layer_t,
    which: u32,
    value: *mut u64,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        let layer = unsafe { open(layer) }?;
        let out = handle::out(value, "value")?;
        let stat = Stat::from_number(which).ok_or_else(|| {
            Error::invalid(format!(
                "there is no statistic {which}: this version knows 1 to {}",
                Stat::ALL.len()
            ))
        })?;
        // SAFETY: the caller passes NULL, refused above, or a place for a number.
        unsafe { out.write(layer.stat(stat)) };
        Ok(())
    })
}

/// All counters and gauges as text that Prometheus reads: its text format 0.0.4, to be served as
/// `text/plain; version=0.0.4`. docs/statistics.md lists the metrics. The numbers are read one after
/// the other, while the layer goes on.
///
/// Two calls: with NULL and size 0 it only tells in `length` how long the text can get with these
/// labels, whatever the numbers will be; with room for that and a NUL it writes the text. The room
/// can be kept for all later calls with these labels.
///
/// `labels`: borrowed; NULL or "" for none; what each series gets, as `site="a",zone="b"`, with \\,
/// \" and \n for a backslash, a quote and a line's end, and no other control character; each name
/// once, and none that begins with `__`; not `outcome` or `reason`, which are ours.
/// `text`: receives the NUL-terminated text. `size`: the room at `text` in bytes. `length`: receives
/// the length without the NUL; may be NULL where `text` is not. `error`: see the conventions. Never
/// blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for a closed layer too;
/// `LAYER_INVALID` (NULL, bad labels, too little room: the error names the size that is always
/// enough, and nothing was written); `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_stats_prometheus(
    layer: *const layer_t,
    labels: *const c_char,
    text: *mut c_char,
    size: usize,
    length: *mut usize,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and NULL or a C string.
        let (layer, labels) = unsafe { (open(layer)?, handle::optional_text(labels, "labels")?) };
        let labels = Labels::parse(labels.unwrap_or_default())?;
        if text.is_null() {
            if size > 0 {
                return Err(Error::invalid(format!(
                    "argument 'text' is NULL with size {size}: NULL goes only with size 0, which \
                     asks for the length"
                )));
            }
            let out = handle::out(length, "length")?;
            // SAFETY: the caller passes NULL, refused above, or a place for a number.
            unsafe { out.write(prometheus::most(&labels)) };
            return Ok(());
        }
        let statistics = prometheus::text(&labels, |stat| layer.stat(stat));
        if statistics.len() >= size {
            return Err(Error::invalid(format!(
                "argument 'size' is {size}: with these labels {} bytes are always enough",
                prometheus::most(&labels) + 1
            )));
        }
        // SAFETY: `text` is not NULL and has room for `size` bytes, which is more than the length of
        // the statistics; the two do not overlap, as the string is ours. `length` is NULL or a place
        // for a number.
        unsafe {
            text.copy_from_nonoverlapping(statistics.as_ptr().cast(), statistics.len());
            text.add(statistics.len()).write(0);
            if !length.is_null() {
                length.write(statistics.len());
            }
        }
        Ok(())
    })
}

/// Makes up a new channel name, `<queue name>!<prefix><12 random letters>`. Nothing is registered:
/// a channel begins with its first message or receiver.
///
/// `prefix`: borrowed; NULL for none; ASCII letters, digits, '-', '_' and '.'. `name`: receives the
/// NUL-terminated name. `size`: the room at `name` in bytes; `LAYER_NAME_SIZE` is always enough.
/// Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, a
/// bad or too long prefix, too little room); `LAYER_CLOSED`; `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_new_channel(
    layer: *const layer_t,
    prefix: *const c_char,
    name: *mut c_char,
    size: usize,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed, and NULL or a C string.
        let (layer, prefix) = unsafe { (open(layer)?, handle::optional_text(prefix, "prefix")?) };
        handle::out(name, "name")?;
        let channel = layer.new_channel(prefix)?;
        if channel.len() >= size {
            return Err(Error::invalid(format!(
                "argument 'size' is {size}: this name needs {} bytes, and LAYER_NAME_SIZE is \
                 always enough",
                channel.len() + 1
            )));
        }
        // SAFETY: `name` is not NULL and has room for `size` bytes, which is more than the name's
        // length; the two do not overlap, as the string is ours.
        unsafe {
            name.copy_from_nonoverlapping(channel.as_ptr().cast(), channel.len());
            name.add(channel.len()).write(0);
        }
        Ok(())
    })
}

/// Closes the layer: refuses new calls, waits for confirms, closes the connections, ends the
/// receivers (`LAYER_CLOSED`), joins its threads. Undelivered messages are dropped. Whatever the
/// status, the layer is closed; calls that other threads are inside of return `LAYER_CLOSED`, or
/// `LAYER_UNCONFIRMED` where a message was handed over and its confirm did not come in time.
///
/// With `dispatch=poll` it runs the callbacks that are due itself. From a callback it only begins
/// the shutdown. Again on a closed layer it only waits for callbacks that are still running.
///
/// `timeout_ms`: the bound of the whole call, even against a dead or blocking broker; only a
/// callback of yours that does not return can make the rest outlive it. Blocks; any thread;
/// allowed from a callback. Returns `LAYER_OK`; `LAYER_TIMEOUT` (closed all the same; what is left
/// ends later or in `layer_free`); `LAYER_INVALID` (NULL); `LAYER_FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_close(
    layer: *const layer_t,
    timeout_ms: u32,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        unsafe { open(layer) }?.close(milliseconds(timeout_ms))
    })
}

/// `layer_close` without waiting: begins the shutdown, and how it ended goes to `done`.
///
/// When it has returned, new calls are refused; all else that `layer_close` says happens within
/// `timeout_ms`. Then `done` is called with what `layer_close` would return: `LAYER_OK` after all
/// other callbacks of the layer have ended; `LAYER_TIMEOUT` where `timeout_ms` has passed, or where
/// sends were left without a confirm.
///
/// With `dispatch=thread`, `done` runs on a thread of its own, so that a callback that does not
/// return cannot hold it up. With `dispatch=poll` it runs in `layer_poll`, which returns
/// `LAYER_CLOSED` only after it: poll on until then. Where nobody polls, `layer_close` and
/// `layer_free` run it.
///
/// Again, beside `layer_close` or after it, is fine: each call has a time and a `done` of its own,
/// and the shutdown has the time of the call that began it. With `dispatch=poll` and a layer that
/// is closed already, poll once more. `layer_close` and `layer_free` wait for each `done`, as for
/// other callbacks, within their own time; `done` may call `layer_free`, as its last use of the
/// layer. In a child that forks meanwhile it is not called.
///
/// `timeout_ms`: as in `layer_close`. `done`: not NULL; called once, perhaps on another thread
/// before this call returns, never on this thread inside it. `userdata`, `destroy`, `error`: see
/// the conventions. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK` (closing);
/// `LAYER_INVALID` (NULL); `LAYER_INTERNAL` (the system gives no thread; the layer is as it was);
/// `LAYER_FORKED`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_close_async(
    layer: *const layer_t,
    timeout_ms: u32,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a layer that is not being freed.
        let layer = unsafe { open(layer) }?;
        let done = DoneCallback::new(done, userdata, destroy, "done")?;
        layer
            .close_async(milliseconds(timeout_ms), done)
            .map_err(disown)
    })
}

/// Frees a layer, and closes it first if need be, with option `timeout` as the bound. What is left
/// ends: `done` with `LAYER_CLOSED` or `LAYER_UNCONFIRMED`, `destroy`. Messages of the layer live
/// on.
///
/// It must be the last call on this handle that begins; others may still be inside theirs. From a
/// callback it only begins the shutdown. In a forked child it touches nothing.
///
/// `layer`: taken; NULL does nothing. Blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_free(layer: *mut layer_t) {
    guard_value((), || {
        // SAFETY: the caller passes NULL or a handle from `layer_new`, and gives it up.
        let Some(handle) = (unsafe { handle::take(layer) }) else {
            return;
        };
        if handle.layer.is_forked() {
            std::mem::forget(handle);
            return;
        }
        match handle.layer.finish() {
            Ok(()) => {}
            // Nobody is there to be told: a callback that does not return holds up the rest.
            Err(error) => debug_assert_eq!(error.kind(), ErrorKind::Timeout),
        }
    });
}
