//! What a user of the layer hands in to be called. No lock is held while one runs or is dropped.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::log::Record;
use crate::mailbox::{Ended, Flow};
use crate::message::Message;

/// Takes the outcome of an async call. A closure will do.
pub trait Done: Send + 'static {
    /// Called once.
    fn done(self: Box<Self>, result: Result<(), Error>);
}

impl<F: FnOnce(Result<(), Error>) + Send + 'static> Done for F {
    fn done(self: Box<Self>, result: Result<(), Error>) {
        self(result);
    }
}

/// Takes the messages of a channel. A closure from a message to a [`Flow`] will do.
pub trait Receive: Send + 'static {
    /// One message of the channel, in order.
    fn receive(&mut self, message: &Message) -> Flow;

    /// The layer has ended the receiver: the last call.
    fn ended(&mut self, why: Ended) {
        let _ = why;
    }
}

impl<F: FnMut(&Message) -> Flow + Send + 'static> Receive for F {
    fn receive(&mut self, message: &Message) -> Flow {
        self(message)
    }
}

/// Takes log records, of several layers perhaps.
pub trait OnLog: Send + Sync + 'static {
    /// One record; those of one layer come in order.
    fn log(&self, record: &Record);
}

/// Takes changes of state, of several layers perhaps.
pub trait OnState: Send + Sync + 'static {
    /// The new state; `generation` counts the consuming connections so far.
    fn state(&self, state: State, generation: u64);
}

/// What isolation does in a layer: when messages that wait have kept the broker from sending any for
/// option `stall_after`, each channel is bounded by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Channels are isolated from now on.
    Began {
        /// How many messages wait in memory.
        waiting: u64,
    },
    /// A channel has lost its newest messages.
    Lost {
        /// Which; `None` for several that are not told apart.
        channel: Option<Arc<CStr>>,
        /// How many since that was last told.
        count: u64,
    },
    /// Channels are not isolated any more.
    Ended {
        /// How many messages were lost in all since it began.
        lost: u64,
    },
}

/// Takes what isolation does, in several layers perhaps.
pub trait OnIsolation: Send + Sync + 'static {
    /// One event; those of one layer come in order.
    fn isolation(&self, event: &Isolation);
}

/// Who is told what happens in a layer.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Gets the log.
    pub on_log: Option<Arc<dyn OnLog>>,
    /// Gets the changes of state.
    pub on_state: Option<Arc<dyn OnState>>,
    /// Gets what isolation does.
    pub on_isolation: Option<Arc<dyn OnIsolation>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_log", &self.on_log.is_some())
            .field("on_state", &self.on_state.is_some())
            .field("on_isolation", &self.on_isolation.is_some())
            .finish()
    }
}

/// The state of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not connected, or not wholly: attempts go on for ever.
    Connecting,
    /// Both connections stand and every group is bound.
    Ready,
    /// Each host refused its last attempt for credentials, vhost or TLS. Attempts go on.
    Refused,
    /// The layer is closed or closing.
    Closed,
}

/// A call that failed and has taken nothing: `callback` is the caller's again.
pub struct Rejected<C> {
    /// Why it failed.
    pub error: Error,
    /// What the caller had brought.
    pub callback: C,
}

impl<C> fmt::Debug for Rejected<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
