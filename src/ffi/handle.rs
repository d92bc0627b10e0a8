//! The only place where pointers of a caller become references and values, each with its check.

use std::ffi::{CStr, c_char};
use std::slice;

use crate::error::Error;

fn null(argument: &str, wanted: &str) -> Error {
    Error::invalid(format!("argument '{argument}' is NULL: pass {wanted}"))
}

/// Borrows a handle.
///
/// # Safety
/// `pointer` is NULL or a live handle of this library, which nobody frees during the call.
pub(super) unsafe fn borrow<'a, T>(pointer: *const T, argument: &str) -> Result<&'a T, Error> {
    // SAFETY: by this function's own contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(argument, "a handle"))
}

/// Borrows a handle that the call may change.
///
/// # Safety
/// As [`borrow`], and nobody else uses the handle during the call.
pub(super) unsafe fn borrow_mut<'a, T>(
    pointer: *mut T,
    argument: &str,
) -> Result<&'a mut T, Error> {
    // SAFETY: by this function's own contract.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(argument, "a handle"))
}

/// Gives a value to the caller, to be taken back by [`take`].
pub(super) fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes back what [`give`] gave; `None` for NULL.
///
/// # Safety
/// `pointer` is NULL or came from [`give`], and the caller gives it up.
pub(super) unsafe fn take<T>(pointer: *mut T) -> Option<Box<T>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by this function's own contract.
    Some(unsafe { Box::from_raw(pointer) })
}

/// Borrows a string.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that does not change during the call.
pub(super) unsafe fn text<'a>(pointer: *const c_char, argument: &str) -> Result<&'a str, Error> {
    // SAFETY: by this function's own contract.
    match unsafe { optional_text(pointer, argument) }? {
        Some(text) => Ok(text),
        None => Err(null(argument, "a NUL-terminated UTF-8 string")),
    }
}

/// Borrows a string; `None` for NULL.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    argument: &str,
) -> Result<Option<&'a str>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's own contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|error| {
        Error::invalid(format!(
            "argument '{argument}' is not UTF-8: byte {} of {:?}",
            error.valid_up_to(),
            text.to_string_lossy()
        ))
    })
}

/// Borrows bytes; NULL with length 0 is the empty slice.
///
/// # Safety
/// `pointer` leads to `length` bytes that do not change during the call, or `length` is 0.
pub(super) unsafe fn bytes<'a>(
    pointer: *const u8,
    length: usize,
    argument: &str,
) -> Result<&'a [u8], Error> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::invalid(format!(
            "argument '{argument}' is NULL with length {length}: NULL goes only with length 0"
        )));
    }
    if isize::try_from(length).is_err() {
        return Err(Error::invalid(format!(
            "length {length} of argument '{argument}' is more than any object has"
        )));
    }
    // SAFETY: by this function's own contract, and the length fits an object.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// Checks a place for a result before the work is done, so that a NULL loses nothing.
pub(super) fn out<T>(pointer: *mut T, argument: &str) -> Result<Out<T>, Error> {
    if pointer.is_null() {
        return Err(null(argument, "the address of a variable for the result"));
    }
    Ok(Out(pointer))
}

/// A checked place for a result.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    ///
    /// # Safety
    /// The pointer that was checked leads to a place for a `T` of the caller's.
    pub(super) unsafe fn write(self, value: T) {
        // SAFETY: not NULL by `out`, valid by this function's own contract.
        unsafe { self.0.write(value) };
    }
}
