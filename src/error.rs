//! What can go wrong, in words for people: one kind for each status of the C API.

use std::fmt;
use std::sync::Arc;

/// The kind of an [`Error`]; each has a status of the C API as its twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An argument, option, name or message that is not allowed, or a channel of somebody else.
    Invalid,
    /// The broker refused the message: a queue that it goes to is full or failing.
    Full,
    /// No queue for this channel exists now: its owner is gone or reconnecting.
    NoChannel,
    /// The encoded message is larger than `max_message_size`, or than what the broker takes.
    TooLarge,
    /// Certainly not sent: it was not handed over to the broker by the deadline.
    Disconnected,
    /// Certainly not sent: too many sends in flight, or the broker blocks publishers.
    Busy,
    /// Handed over, and no confirm by the deadline; or a wait that ran out.
    Timeout,
    /// Handed over, and the connection was lost before the confirm: nobody knows.
    Unconfirmed,
    /// Each host refused its last attempt for credentials, vhost, TLS, rights or limits; or the user
    /// may not send this message.
    Refused,
    /// The channel of a receiver was discarded.
    Cancelled,
    /// The layer is closed.
    Closed,
    /// The call would have waited inside a callback.
    WouldDeadlock,
    /// The layer belongs to the parent of this forked process.
    Forked,
    /// A bug in this library.
    Internal,
}

/// An error: its kind, a message for people, and what caused it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what failed, with which value, what is allowed, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Shorthand for the most frequent kind.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// What every call on a closed layer gets.
    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the layer is closed")
    }

    /// What a call inside a callback gets if it would wait.
    pub(crate) fn would_deadlock() -> Self {
        Self::new(
            ErrorKind::WouldDeadlock,
            "this call would wait inside a callback, which would keep back the callbacks that it \
             may wait for: use the async form, or call it from another thread",
        )
    }

    /// What every call on a layer of a parent process gets.
    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Forked,
            "this layer was opened before a fork, by the parent process: open one in the child",
        )
    }

    /// The same error with the one that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same error with `what` said before its message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Its message, without that of its cause.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// What a caught panic says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_the_context_the_message_and_the_cause() {
        let error = Error::invalid("port 'x' is not a number")
            .caused_by(std::fmt::Error)
            .context("option 'host'");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.message(), "option 'host': port 'x' is not a number");
        assert!(error.to_string().ends_with(&std::fmt::Error.to_string()));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_panic_says_its_text_whichever_form_that_has() {
        for (panic, text) in [
            (Box::new("text") as Box<dyn std::any::Any + Send>, "text"),
            (Box::new("made".to_owned()), "made"),
            (Box::new(7), "no message"),
        ] {
            assert_eq!(panic_text(&*panic), text);
        }
    }
}
