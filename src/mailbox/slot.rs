//! The mailbox of one channel: its messages in order, who receives from it, and whether one of its
//! callbacks runs.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arrivals::{ArrivalKey, Arrivals};
use super::bounds::{Bound, Lost};
use super::call::{Call, CheckedOut, Ended, ReceiverId};
use super::queue::Queue;
use crate::message::Message;

#[derive(Debug)]
pub(super) struct Receiver<C> {
    pub(super) id: ReceiverId,
    /// `None` while it runs.
    pub(super) callback: Option<C>,
    pub(super) ending: Option<Ended>,
    /// Cancelled while it ran.
    pub(super) cancelled: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox<C, W> {
    /// NUL-terminated, so that it can be lent to C.
    pub(super) name: Arc<CStr>,
    pub(super) messages: Queue<ArrivalKey>,
    pub(super) receivers: Queue<Receiver<C>>,
    pub(super) pulls: Queue<W>,
    /// The dispatcher has been told that it is due.
    pub(super) due: bool,
    /// One of its callbacks runs.
    pub(super) busy: bool,
    /// Nothing but its pins keeps it.
    pub(super) idle: bool,
    /// How often it was pinned and not unpinned.
    pub(super) pins: u32,
    /// Counts how often the channel was discarded.
    pub(super) discards: u32,
    /// A receiver may be ending. Where none is, nobody looks for one.
    pub(super) may_be_ending: bool,
    /// When a message was last pulled, or a receiver ended: while there is one, it is in use.
    pub(super) last_used: Option<Instant>,
}

impl<C, W> Mailbox<C, W> {
    pub(super) fn new(name: Arc<CStr>) -> Self {
        Self {
            name,
            messages: Queue::default(),
            receivers: Queue::default(),
            pulls: Queue::default(),
            due: false,
            busy: false,
            idle: false,
            pins: 0,
            discards: 0,
            may_be_ending: false,
            last_used: None,
        }
    }

    pub(super) fn unused(&self) -> bool {
        self.messages.is_empty() && !self.is_received_from() && !self.due
    }

    /// Whether a receiver or a pull waits, or a callback runs.
    pub(super) fn is_received_from(&self) -> bool {
        !self.receivers.is_empty() || !self.pulls.is_empty() || self.busy
    }

    fn has_work(&self) -> bool {
        let ending = |receiver: &Receiver<C>| receiver.ending.is_some();
        (!self.messages.is_empty() && !self.receivers.is_empty())
            || (self.may_be_ending && self.receivers.iter().any(ending))
    }

    /// `true` once for each time that it becomes due.
    pub(super) fn becomes_due(&mut self) -> bool {
        let becomes = !self.due && !self.busy && self.has_work();
        self.due |= becomes;
        becomes
    }

    pub(super) fn next_call(
        &mut self,
        now: Instant,
        arrivals: &mut Arrivals,
    ) -> Option<CheckedOut<C>> {
        if self.may_be_ending {
            let ending = |receiver: &Receiver<C>| receiver.ending.is_some();
            if let Some(receiver) = self.receivers.iter_mut().find(|r| ending(r)) {
                return Some(CheckedOut {
                    receiver: receiver.id,
                    callback: receiver.callback.take()?,
                    call: Call::Ended(receiver.ending?),
                    arrival: 0,
                    arrived: now,
                    discards: self.discards,
                });
            }
            self.may_be_ending = false;
        }
        let receiver = self.receivers.front_mut()?;
        let arrival = self.messages.pop_front()?;
        let (body, arrived) = arrivals.take(arrival)?;
        // Not busy, so it is there.
        let (receiver, callback) = (receiver.id, receiver.callback.take()?);
        // Receivers take turns: the one that runs goes to the end.
        self.receivers.rotate();
        Some(CheckedOut {
            receiver,
            callback,
            call: Call::Message(Message::new(body, Arc::clone(&self.name))),
            arrival,
            arrived,
            discards: self.discards,
        })
    }

    pub(super) fn drop_expired(
        &mut self,
        now: Instant,
        expiry: Duration,
        arrivals: &mut Arrivals,
    ) -> usize {
        let mut dropped = 0;
        while let Some(first) = self.messages.front()
            && arrivals
                .at(*first)
                .is_none_or(|at| now.saturating_duration_since(at) >= expiry)
        {
            arrivals.remove_copy(*first);
            self.messages.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// One message of it is lost.
    pub(super) fn loses(&self, bound: Bound) -> Option<Lost> {
        let channel = Arc::clone(&self.name);
        Some(Lost { channel, bound })
    }

    pub(super) fn end_receivers(&mut self, why: Ended) {
        self.may_be_ending = true;
        for receiver in self.receivers.iter_mut() {
            if !receiver.cancelled {
                receiver.ending.get_or_insert(why);
            }
        }
    }
}
