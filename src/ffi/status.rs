//! How a call of the C API ends: its status, its error object, and the guard that every export
//! runs in, so that neither a panic nor a NULL gets past the boundary.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, panic_text};
use crate::runtime::NotCancelled;

/// How a call ended. 0 is success; the other numbers never change their meaning.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum layer_status_t {
    /// Done. For a send: the broker has confirmed the message.
    LAYER_OK = 0,
    /// An argument, option, name or message that is not allowed, or a channel of another layer.
    LAYER_INVALID = 1,
    /// The broker refused the message, since a queue that it goes to is full or failing. For a group:
    /// at least one process refused it, the others have it.
    LAYER_FULL = 2,
    /// No queue for this channel exists now: its owner is gone or reconnecting.
    LAYER_NO_CHANNEL = 3,
    /// The encoded message is larger than option `max_message_size`, or than what the broker takes.
    /// Certainly not sent.
    LAYER_TOO_LARGE = 4,
    /// Certainly not sent: no connection took the message by the deadline.
    LAYER_DISCONNECTED = 5,
    /// Certainly not sent: `max_in_flight` sends are in flight, or the broker blocks publishers.
    LAYER_BUSY = 6,
    /// A send was handed over and not confirmed in time, so nobody knows whether it arrived; or
    /// a wait ran out, with nothing lost.
    LAYER_TIMEOUT = 7,
    /// The message was handed over and the connection was lost before the confirm: nobody knows.
    LAYER_UNCONFIRMED = 8,
    /// Certainly not sent or done: each host refused its last attempt to connect for credentials,
    /// vhost, TLS, rights or limits, and is retried; or the user may not send this message.
    LAYER_REFUSED = 9,
    /// The channel of the receiver was discarded.
    LAYER_CANCELLED = 10,
    /// The layer is closed.
    LAYER_CLOSED = 11,
    /// The call would have waited inside a callback. Nothing was changed.
    LAYER_WOULD_DEADLOCK = 12,
    /// The layer was opened by the parent of this process, before a fork.
    LAYER_FORKED = 13,
    /// A bug in this library. The message says where.
    LAYER_INTERNAL = 14,
}

impl layer_status_t {
    const ALL: [Self; 15] = [
        Self::LAYER_OK,
        Self::LAYER_INVALID,
        Self::LAYER_FULL,
        Self::LAYER_NO_CHANNEL,
        Self::LAYER_TOO_LARGE,
        Self::LAYER_DISCONNECTED,
        Self::LAYER_BUSY,
        Self::LAYER_TIMEOUT,
        Self::LAYER_UNCONFIRMED,
        Self::LAYER_REFUSED,
        Self::LAYER_CANCELLED,
        Self::LAYER_CLOSED,
        Self::LAYER_WOULD_DEADLOCK,
        Self::LAYER_FORKED,
        Self::LAYER_INTERNAL,
    ];

    fn name(self) -> &'static CStr {
        match self {
            Self::LAYER_OK => c"LAYER_OK",
            Self::LAYER_INVALID => c"LAYER_INVALID",
            Self::LAYER_FULL => c"LAYER_FULL",
            Self::LAYER_NO_CHANNEL => c"LAYER_NO_CHANNEL",
            Self::LAYER_TOO_LARGE => c"LAYER_TOO_LARGE",
            Self::LAYER_DISCONNECTED => c"LAYER_DISCONNECTED",
            Self::LAYER_BUSY => c"LAYER_BUSY",
            Self::LAYER_TIMEOUT => c"LAYER_TIMEOUT",
            Self::LAYER_UNCONFIRMED => c"LAYER_UNCONFIRMED",
            Self::LAYER_REFUSED => c"LAYER_REFUSED",
            Self::LAYER_CANCELLED => c"LAYER_CANCELLED",
            Self::LAYER_CLOSED => c"LAYER_CLOSED",
            Self::LAYER_WOULD_DEADLOCK => c"LAYER_WOULD_DEADLOCK",
            Self::LAYER_FORKED => c"LAYER_FORKED",
            Self::LAYER_INTERNAL => c"LAYER_INTERNAL",
        }
    }
}

impl From<ErrorKind> for layer_status_t {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::LAYER_INVALID,
            ErrorKind::Full => Self::LAYER_FULL,
            ErrorKind::NoChannel => Self::LAYER_NO_CHANNEL,
            ErrorKind::TooLarge => Self::LAYER_TOO_LARGE,
            ErrorKind::Disconnected => Self::LAYER_DISCONNECTED,
            ErrorKind::Busy => Self::LAYER_BUSY,
            ErrorKind::Timeout => Self::LAYER_TIMEOUT,
            ErrorKind::Unconfirmed => Self::LAYER_UNCONFIRMED,
            ErrorKind::Refused => Self::LAYER_REFUSED,
            ErrorKind::Cancelled => Self::LAYER_CANCELLED,
            ErrorKind::Closed => Self::LAYER_CLOSED,
            ErrorKind::WouldDeadlock => Self::LAYER_WOULD_DEADLOCK,
            ErrorKind::Forked => Self::LAYER_FORKED,
            ErrorKind::Internal => Self::LAYER_INTERNAL,
        }
    }
}

/// Why a call failed. Made by the library, freed by `layer_error_free`.
pub struct layer_error_t {
    status: layer_status_t,
    message: CString,
}

impl layer_error_t {
    pub(super) fn new(error: &Error) -> Self {
        let mut text = error.to_string().into_bytes();
        // What came from a caller or a broker may hold a NUL, a C string may not.
        text.retain(|byte| *byte != 0);
        Self {
            status: error.kind().into(),
            message: CString::new(text).unwrap_or_default(),
        }
    }

    pub(super) fn status(&self) -> layer_status_t {
        self.status
    }
}

/// Runs the body of an export, on a thread that is not cancelled meanwhile. A panic becomes
/// `LAYER_INTERNAL`; an error is handed to the caller who wants it.
pub(super) fn guard(
    error_out: *mut *mut layer_error_t,
    body: impl FnOnce() -> Result<(), Error>,
) -> layer_status_t {
    let _whole = NotCancelled::new();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Error::new(
            ErrorKind::Internal,
            format!("the library panicked: {}", panic_text(&*panic)),
        ))
    });
    match result {
        Ok(()) => layer_status_t::LAYER_OK,
        Err(error) => {
            let object = layer_error_t::new(&error);
            let status = object.status;
            if !error_out.is_null() {
                // SAFETY: by the header's convention a non-NULL `error` points to a place for a
                // pointer, which the caller owns for the time of this call.
                unsafe { error_out.write(Box::into_raw(Box::new(object))) };
            }
            status
        }
    }
}

/// Runs the body of an export that cannot report an error, with `fallback` in place of a panic.
pub(super) fn guard_value<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    let _whole = NotCancelled::new();
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// The status of an error.
///
/// `error`: borrowed; NULL gives `LAYER_OK`. Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_error_status(error: *const layer_error_t) -> layer_status_t {
    // SAFETY: the caller passes NULL or an error that it has not freed.
    unsafe { error.as_ref() }.map_or(layer_status_t::LAYER_OK, |error| error.status)
}

/// What failed, with which value, what is allowed and what to do, in English: for logs and people.
///
/// `error`: borrowed; NULL gives an empty string. The result belongs to the error and lives as
/// long. It is NUL-terminated UTF-8. Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_error_message(error: *const layer_error_t) -> *const c_char {
    // SAFETY: the caller passes NULL or an error that it has not freed.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error that a call gave to its caller.
///
/// `error`: taken; NULL does nothing. Not for the error that is lent to a `layer_done_cb`. Never
/// blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_error_free(error: *mut layer_error_t) {
    if !error.is_null() {
        // SAFETY: the pointer came from `guard`, and the caller gives up its ownership.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// The name of a status, as "LAYER_FULL"; "LAYER_UNKNOWN" for a number that is none.
///
/// The result is static. Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn layer_status_name(status: i32) -> *const c_char {
    layer_status_t::ALL
        .iter()
        .find(|known| **known as i32 == status)
        .map_or(c"LAYER_UNKNOWN", |known| known.name())
        .as_ptr()
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_panic_inside_a_call_becomes_an_internal_error() {
        let mut error = ptr::null_mut();
        let status = guard(&raw mut error, || panic!("a panic on purpose"));
        assert_eq!(status, layer_status_t::LAYER_INTERNAL);
        // SAFETY: a failed call has written an error, which is freed once.
        let of_error = unsafe {
            let status = layer_error_status(error);
            layer_error_free(error);
            status
        };
        assert_eq!(of_error, layer_status_t::LAYER_INTERNAL);
        let without_error = guard(ptr::null_mut(), || panic!("a panic on purpose"));
        assert_eq!(without_error, layer_status_t::LAYER_INTERNAL);
    }

    #[test]
    fn a_panic_inside_a_call_that_reports_no_error_gives_its_fallback() {
        assert_eq!(guard_value(-1, || panic!("a panic on purpose")), -1);
        assert_eq!(guard_value(-1, || 5), 5);
    }
}
