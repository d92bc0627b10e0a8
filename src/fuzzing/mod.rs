//! Hostile input: for each kind a function that takes any bytes, gives them to the library and
//! holds what comes out against a plain reading of the rules. It returns what is wrong, in words.
//!
//! The fuzzers in `fuzz/` and the tests here call the same functions. They reach what is private to
//! the crate, so they live in it: built for its own tests, and with the feature `fuzzing`, which is
//! for `fuzz/` alone. The library that people use has none of it.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fuzzer fails by a panic, and so does a reading of the rules that is wrong itself"
)]

mod amqp;
mod json;
mod json_reading;
mod names;
mod options;
mod reading;
#[cfg(test)]
mod tests;
mod wire;

/// What is wrong, if anything is.
pub type Verdict = Result<(), String>;

/// Returns from a function with a [`Verdict`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
use ensure;

/// Bytes as a delivery and as a message to be sent.
pub fn wire(input: &[u8]) -> Verdict {
    wire::check(&wire::Library, input)
}

/// Lines of `name=value` as options; each value as the list of hosts too.
pub fn options(input: &[u8]) -> Verdict {
    options::check(&options::Library, input)
}

/// Lines as names of channels, groups and queues.
pub fn names(input: &[u8]) -> Verdict {
    names::check(&names::Library, input)
}

/// Bytes as JSON text.
pub fn json(input: &[u8]) -> Verdict {
    json::check(&wire::Library, input)
}

/// Bytes as what a broker sends and what lapin sends, on the connection that they share.
pub fn amqp(input: &[u8]) -> Verdict {
    amqp::check(&amqp::Library, input)
}

/// Bytes as a program that calls the C API.
pub fn c_api(input: &[u8]) -> Verdict {
    crate::ffi::fuzzing::check(input)
}
