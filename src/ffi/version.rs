//! What was loaded.

use std::ffi::{CStr, c_char};

use crate::name;

/// The ABI that this header describes. It changes with the SONAME, and only then.
pub const LAYER_ABI_VERSION: u32 = 0;

/// The room that a channel name needs at most, its NUL included.
pub const LAYER_NAME_SIZE: usize = 100;

const _: () = assert!(LAYER_NAME_SIZE == name::MAX_NAME_BYTES + 1);

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// The version of the library that is loaded, as "0.1.0"; `LAYER_VERSION` is that of the header.
///
/// The result is static. Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn layer_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The ABI of the library that is loaded, to be compared with `LAYER_ABI_VERSION` by programs that
/// load it at run time.
///
/// Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn layer_abi_version() -> u32 {
    LAYER_ABI_VERSION
}
