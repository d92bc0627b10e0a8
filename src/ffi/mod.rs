//! The C API: the only files that know C, and the only ones (with `runtime.rs`) that hold
//! `unsafe`. Each export checks its pointers in `handle`, runs in a guard of `status`, and calls
//! the Rust API.

#![allow(
    unsafe_code,
    non_camel_case_types,
    unreachable_pub,
    missing_docs,
    clippy::missing_safety_doc,
    reason = "the header states each function's contract, for readers of C"
)]

mod callback;
mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handle;
mod layer;
mod message;
mod stat;
mod status;
mod version;
