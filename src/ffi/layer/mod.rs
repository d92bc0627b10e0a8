//! `layer_t`: one process's place in the channel layer. A file per group of its functions.

pub(super) mod groups;
pub(super) mod lifecycle;
pub(super) mod poll;
pub(super) mod receive;
pub(super) mod send;

use std::ffi::c_char;
use std::time::Duration;

use crate::error::Error;
use crate::layer::{Layer, Rejected};

use super::callback::Disown;
use super::handle;

/// An open layer: one queue on the broker, with any number of channels. Usable from any thread.
pub struct layer_t {
    layer: Layer,
}

/// The layer behind a handle, held for the time of a call: `layer_free` may begin meanwhile.
///
/// # Safety
/// `layer` is NULL or a handle from `layer_new` for which `layer_free` has not begun.
unsafe fn open(layer: *const layer_t) -> Result<Layer, Error> {
    // SAFETY: by this function's own contract.
    let layer = unsafe { handle::borrow(layer, "layer") }?.layer.clone();
    if layer.is_forked() {
        return Err(Error::forked());
    }
    Ok(layer)
}

/// A layer and a name, of a channel or a group as `argument` says.
///
/// # Safety
/// As [`open`]; `name` is NULL or a NUL-terminated string that does not change during the call.
unsafe fn open_with<'a>(
    layer: *const layer_t,
    name: *const c_char,
    argument: &str,
) -> Result<(Layer, &'a str), Error> {
    // SAFETY: by this function's own contract.
    unsafe { Ok((open(layer)?, handle::text(name, argument)?)) }
}

/// A call that fails has taken nothing: what it brought is given back without a call.
fn disown<C: Disown>(rejected: Rejected<C>) -> Error {
    let Rejected {
        error,
        mut callback,
    } = rejected;
    callback.disown();
    error
}

fn milliseconds(timeout_ms: u32) -> Duration {
    Duration::from_millis(timeout_ms.into())
}
