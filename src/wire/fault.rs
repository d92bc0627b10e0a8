//! What is wrong with a value, and where in the message it is.

use std::fmt::{self, Write as _};

use crate::error::Error;

/// How many steps of a path an error shows at either end.
const SHOWN_STEPS: usize = 12;

/// How much of a key an error shows, in characters.
const SHOWN_KEY_CHARS: usize = 40;

/// A reason and a path. The path grows from the inside out, on the way back to the outer map, so
/// that a good message costs nothing for it.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: String,
    /// The innermost step is the first.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Item(usize),
}

impl Fault {
    /// A fault right here.
    #[cold]
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            reason: reason.into(),
            steps: Vec::new(),
        }))
    }

    /// The same fault, seen from the map that holds it under `key`.
    #[cold]
    pub(super) fn under_key(mut self, key: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(key.get(..4 * SHOWN_KEY_CHARS).unwrap_or(key))
            .chars()
            .take(SHOWN_KEY_CHARS)
            .collect();
        self.0.steps.push(Step::Key(shown));
        self
    }

    /// The same fault, seen from the array that holds it as its item `index`.
    #[cold]
    pub(super) fn at_item(mut self, index: usize) -> Self {
        self.0.steps.push(Step::Item(index));
        self
    }

    /// The error for the caller, with the whole path from the `root`.
    #[cold]
    pub(super) fn into_error(self, root: &str) -> Error {
        let mut message = root.to_owned();
        let count = self.0.steps.len();
        let hidden = count.saturating_sub(2 * SHOWN_STEPS);
        for (i, step) in self.0.steps.iter().rev().enumerate() {
            // Writing to a string cannot fail.
            if hidden == 0 || i < SHOWN_STEPS || i >= SHOWN_STEPS + hidden {
                let _ = write!(message, "{step}");
            } else if i == SHOWN_STEPS {
                let _ = write!(message, "...({hidden} more)...");
            }
        }
        message.push_str(": ");
        message.push_str(&self.0.reason);
        Error::invalid(message)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(index) => write!(f, "[{index}]"),
            Self::Key(key) if is_identifier(key) => write!(f, ".{key}"),
            Self::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

fn is_identifier(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reads_from_the_outside_in() {
        let fault = Fault::new("no")
            .at_item(3)
            .under_key(b"tags")
            .under_key(b"a b")
            .under_key(b"3")
            .under_key(b"")
            .under_key(b"user");
        assert_eq!(
            fault.into_error("message").to_string(),
            r#"message.user[""]["3"]["a b"].tags[3]: no"#
        );
        let fault = Fault::new("no");
        assert_eq!(fault.into_error("delivery").to_string(), "delivery: no");
    }

    #[test]
    fn a_long_path_and_a_long_key_are_cut() {
        let mut fault = Fault::new("no").under_key(&b"\xff".repeat(1_000_000));
        for _ in 0..127 {
            fault = fault.under_key(b"a");
        }
        let message = fault.into_error("message").to_string();
        let (start, end) = (".a".repeat(12), ".a".repeat(11));
        let key = "\u{fffd}".repeat(SHOWN_KEY_CHARS);
        assert_eq!(
            message,
            format!("message{start}...(104 more)...{end}[{key:?}]: no")
        );
    }

    #[test]
    fn as_much_of_a_key_is_shown_whatever_its_characters_take() {
        for character in ["k", "\u{e4}", "\u{20ac}", "\u{1f600}"] {
            let fault = Fault::new("no").under_key(character.repeat(100).as_bytes());
            let message = fault.into_error("message").to_string();
            assert_eq!(message.matches(character).count(), SHOWN_KEY_CHARS);
        }
    }
}
