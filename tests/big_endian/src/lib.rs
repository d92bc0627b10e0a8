//! The pure files of the library with their own tests, to be run on a big-endian machine:
//! `make big-endian`. They hold all that turns numbers into bytes and back; what is above them
//! hands bytes on.

/// The files of the library as they are.
#[path = "../../../src"]
#[allow(
    dead_code,
    unused_imports,
    reason = "floors above use what is not used here"
)]
mod floor {
    pub(crate) mod error;
    pub(crate) mod message;
    pub(crate) mod name;
    pub(crate) mod wire;
}

// By the paths under which these files know each other.
#[allow(
    unused_imports,
    reason = "of the files that are here none asks for all"
)]
use floor::{error, message, name, wire};

#[cfg(test)]
mod tests {
    /// Else all that passed here would say nothing.
    #[test]
    fn this_machine_is_big_endian() {
        assert_eq!(1_u16.to_ne_bytes(), [0, 1]);
    }
}
