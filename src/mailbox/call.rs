//! One call of a receiver's callback: with what, what it said, and what follows.

use std::time::Instant;

use super::arrivals::ArrivalKey;
use crate::message::Message;

/// Names a mailbox while it is due, checked out or pinned.
pub(crate) type MailboxKey = u32;

/// Names a receiver; never 0, never used again.
pub(crate) type ReceiverId = u64;

/// Why the layer ended a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its channel was discarded.
    Discarded,
    /// The layer was closed.
    Closed,
}

/// One callback that is about to run.
#[derive(Debug)]
pub(crate) struct CheckedOut<C> {
    pub(crate) receiver: ReceiverId,
    pub(crate) callback: C,
    pub(crate) call: Call,
    /// The message while it waited, when it came, and how often its channel had been discarded.
    pub(super) arrival: ArrivalKey,
    pub(super) arrived: Instant,
    pub(super) discards: u32,
}

/// What the callback is called with.
#[derive(Debug)]
pub(crate) enum Call {
    Message(Message),
    Ended(Ended),
}

/// What the callback said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The message was taken; go on.
    Continue,
    /// The message was taken; the receiver ends.
    Stop,
    /// The message was not taken: it stays first in its channel. The receiver ends.
    Decline,
}

/// After a callback has run.
#[derive(Debug)]
pub(crate) struct CheckedIn<C, W> {
    /// The callback, if the receiver has ended.
    pub(crate) retired: Option<C>,
    /// It was cancelled while it ran.
    pub(crate) cancelled: bool,
    /// There is more to run.
    pub(crate) due: bool,
    /// The declined message was dropped: its channel had been discarded.
    pub(crate) dropped: bool,
    /// Somebody who waits in a pull, to be woken for the declined message.
    pub(crate) wake: Option<W>,
}

impl<C, W> CheckedIn<C, W> {
    /// Whether nothing is to be done but to go on.
    pub(crate) fn is_routine(&self) -> bool {
        self.retired.is_none() && !self.cancelled && !self.dropped && self.wake.is_none()
    }
}
