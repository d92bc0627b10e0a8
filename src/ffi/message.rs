//! `layer_message_t`: what a receiver gets.

use std::ffi::{CStr, c_char};
use std::mem::ManuallyDrop;
use std::ptr;

use crate::message::Message;
use crate::wire;

use super::handle;
use super::status::{guard, guard_value, layer_error_t, layer_status_t};

/// A message: immutable, usable from any thread, and it outlives its layer.
pub struct layer_message_t {
    message: ManuallyDrop<Message>,
    /// Lent to a callback: it lies on our stack, so that freeing it must do nothing.
    lent: bool,
}

impl layer_message_t {
    /// Calls `body` with a handle on `message`. It costs no count of references: there may be a
    /// million callbacks for one message.
    pub(super) fn lend<T>(message: &Message, body: impl FnOnce(*const Self) -> T) -> T {
        let lent = Self {
            // SAFETY: the copy is dropped by nobody, and is gone before the borrow of `message` is.
            message: ManuallyDrop::new(unsafe { ptr::read(message) }),
            lent: true,
        };
        body(&raw const lent)
    }

    pub(super) fn own(message: Message) -> Self {
        Self {
            message: ManuallyDrop::new(message),
            lent: false,
        }
    }
}

impl Drop for layer_message_t {
    fn drop(&mut self) {
        if !self.lent {
            // SAFETY: it is our own, and nobody uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.message) };
        }
    }
}

/// The message as one MessagePack map, without the recipient key that travels with it.
///
/// `message`: borrowed; NULL gives NULL with length 0. `length`: receives the number of bytes;
/// may be NULL. The result belongs to the message and lives as long. Never blocks; any thread;
/// allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_message_data(
    message: *const layer_message_t,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller passes NULL or a message that it holds.
    let data = unsafe { message.as_ref() }.map(|message| message.message.body().data());
    if !length.is_null() {
        // SAFETY: a non-NULL `length` is a place for a size_t of the caller's.
        unsafe { length.write(data.map_or(0, <[u8]>::len)) };
    }
    data.map_or(ptr::null(), <[u8]>::as_ptr)
}

/// The message as JSON text.
///
/// Bytes become a string of U+FFFF followed by base64, as the Channels specification proposes. A
/// message of a foreign sender can hold what JSON cannot: then this view alone fails.
///
/// `message`: borrowed. `json`: receives NUL-terminated UTF-8 that belongs to the message and lives
/// as long; it is made once. `error`: see the conventions. Never blocks; any thread; allowed from a
/// callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, or a value that JSON cannot hold: the error
/// names it).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_message_json(
    message: *const layer_message_t,
    json: *mut *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a message that it holds.
        let message = unsafe { handle::borrow(message, "message") }?;
        let out = handle::out(json, "json")?;
        let text = wire::json(message.message.body())?;
        // SAFETY: the caller passes NULL, refused above, or a place for a pointer.
        unsafe { out.write(text.as_ptr()) };
        Ok(())
    })
}

/// The full name of the channel that the message was delivered on.
///
/// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
/// blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_message_channel(message: *const layer_message_t) -> *const c_char {
    // SAFETY: the caller passes NULL or a message that it holds.
    unsafe { message.as_ref() }.map_or(ptr::null(), |message| message.message.channel().as_ptr())
}

/// The group that the message was sent to, or NULL if it was sent to the channel itself.
///
/// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
/// blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_message_group(message: *const layer_message_t) -> *const c_char {
    // SAFETY: the caller passes NULL or a message that it holds.
    unsafe { message.as_ref() }
        .and_then(|message| message.message.body().group())
        .map_or(ptr::null(), CStr::as_ptr)
}

/// The value of the key "type", by which Channels picks a handler; NULL if there is none, if it is
/// not a string, or if it holds a NUL.
///
/// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
/// blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_message_type(message: *const layer_message_t) -> *const c_char {
    guard_value(ptr::null(), || {
        // SAFETY: the caller passes NULL or a message that it holds.
        unsafe { message.as_ref() }
            .and_then(|message| wire::message_type(message.message.body()))
            .map_or(ptr::null(), CStr::as_ptr)
    })
}

/// Keeps a message: the result is a handle of its own, perhaps another pointer, to be freed by
/// `layer_message_free`. The bytes are shared, not copied.
///
/// `message`: borrowed; NULL gives NULL. Never blocks; any thread; allowed from a callback, where
/// it is the way to keep the message after the callback has returned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_message_ref(
    message: *const layer_message_t,
) -> *mut layer_message_t {
    // SAFETY: the caller passes NULL or a message that it holds.
    unsafe { message.as_ref() }.map_or(ptr::null_mut(), |message| {
        handle::give(layer_message_t::own(Message::clone(&message.message)))
    })
}

/// Frees a message from `layer_message_ref` or `layer_receive_next`.
///
/// `message`: taken; NULL does nothing. For a message that is lent to a callback it does nothing.
/// Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_message_free(message: *mut layer_message_t) {
    // SAFETY: the caller passes NULL or a message that it holds.
    if unsafe { message.as_ref() }.is_some_and(|message| !message.lent) {
        // SAFETY: one that is not lent came from `give`, and the caller gives it up.
        drop(unsafe { handle::take(message) });
    }
}
