//! The messages that wait in memory: a FIFO queue for each channel, who receives from it, the
//! backlog of all, and what has waited too long.
//!
//! A mailbox exists while it holds a message or somebody receives from it. What is due is a
//! mailbox, never a message: one thread checks it out, runs one callback, and checks it in. While
//! it is checked out it is busy, so that its order holds for any number of threads.

mod queue;

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use slab::Slab;

use self::queue::Queue;
use crate::index::Index;
use crate::message::{Body, Message};

#[cfg(test)]
mod tests;

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

#[derive(Debug)]
struct Waiting {
    body: Arc<Body>,
    arrived: Instant,
}

#[derive(Debug)]
struct Receiver<C> {
    id: ReceiverId,
    /// `None` while it runs.
    callback: Option<C>,
    ending: Option<Ended>,
    /// Cancelled while it ran.
    cancelled: bool,
}

#[derive(Debug)]
struct Mailbox<C, W> {
    /// NUL-terminated, so that it can be lent to C.
    name: Arc<CStr>,
    messages: Queue<Waiting>,
    receivers: Queue<Receiver<C>>,
    pulls: Queue<W>,
    /// Somebody has been told that it is due.
    due: bool,
    /// One of its callbacks runs.
    busy: bool,
    /// Nothing but its pins keeps it.
    idle: bool,
    /// How often it was pinned and not unpinned.
    pins: u32,
    /// Counts how often the channel was discarded.
    discards: u32,
    /// A receiver may be ending. Where none is, nobody looks for one.
    may_be_ending: bool,
}

impl<C, W> Mailbox<C, W> {
    fn unused(&self) -> bool {
        self.messages.is_empty()
            && self.receivers.is_empty()
            && self.pulls.is_empty()
            && !self.due
            && !self.busy
    }

    fn has_work(&self) -> bool {
        let ending = |receiver: &Receiver<C>| receiver.ending.is_some();
        (!self.messages.is_empty() && !self.receivers.is_empty())
            || (self.may_be_ending && self.receivers.iter().any(ending))
    }

    /// `true` once for each time that it becomes due.
    fn becomes_due(&mut self) -> bool {
        let becomes = !self.due && !self.busy && self.has_work();
        self.due |= becomes;
        becomes
    }

    fn next_call(&mut self, now: Instant) -> Option<CheckedOut<C>> {
        if self.may_be_ending {
            let ending = |receiver: &Receiver<C>| receiver.ending.is_some();
            if let Some(receiver) = self.receivers.iter_mut().find(|r| ending(r)) {
                return Some(CheckedOut {
                    receiver: receiver.id,
                    callback: receiver.callback.take()?,
                    call: Call::Ended(receiver.ending?),
                    arrived: now,
                    discards: self.discards,
                });
            }
            self.may_be_ending = false;
        }
        let receiver = self.receivers.front_mut()?;
        let waiting = self.messages.pop_front()?;
        // Not busy, so it is there.
        let (receiver, callback) = (receiver.id, receiver.callback.take()?);
        // Receivers take turns: the one that runs goes to the end.
        self.receivers.rotate();
        Some(CheckedOut {
            receiver,
            callback,
            call: Call::Message(Message::new(waiting.body, Arc::clone(&self.name))),
            arrived: waiting.arrived,
            discards: self.discards,
        })
    }

    fn drop_expired(&mut self, now: Instant, expiry: Duration) -> usize {
        let mut dropped = 0;
        while let Some(first) = self.messages.front()
            && now.saturating_duration_since(first.arrived) >= expiry
        {
            self.messages.pop_front();
            dropped += 1;
        }
        dropped
    }

    fn end_receivers(&mut self, why: Ended) {
        self.may_be_ending = true;
        for receiver in self.receivers.iter_mut() {
            if !receiver.cancelled {
                receiver.ending.get_or_insert(why);
            }
        }
    }
}

/// One callback that is about to run.
#[derive(Debug)]
pub(crate) struct CheckedOut<C> {
    pub(crate) receiver: ReceiverId,
    pub(crate) callback: C,
    pub(crate) call: Call,
    arrived: Instant,
    discards: u32,
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

/// What became of a receiver that is to be cancelled.
#[derive(Debug)]
pub(crate) enum Cancel<C> {
    /// It is cancelled and was not running.
    Idle(C),
    /// It is cancelled, and its callback is running.
    Running,
    /// There is no such receiver, or it has ended.
    Unknown,
}

/// What a delivery has changed.
#[derive(Debug)]
pub(crate) struct Delivered<W> {
    /// This mailbox is now due.
    pub(crate) due: Option<MailboxKey>,
    /// Somebody who waits in a pull, to be woken.
    pub(crate) wake: Option<W>,
    /// The message was dropped: its channel holds as many as it may.
    pub(crate) dropped: bool,
}

/// What discarding a channel, or closing, has changed.
#[derive(Debug)]
pub(crate) struct Discarded<W> {
    pub(crate) due: Vec<MailboxKey>,
    pub(crate) wake: Vec<W>,
    pub(crate) dropped: usize,
}

/// What nobody has received in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) dropped: usize,
    /// The three channels that hold or held most of it, with their counts.
    pub(crate) biggest: Vec<(String, usize)>,
}

/// All mailboxes of a layer. `C` is a callback, `W` somebody who waits in a pull.
#[derive(Debug)]
pub(crate) struct Mailboxes<C, W> {
    slots: Slab<Mailbox<C, W>>,
    /// The keys of all, by their names.
    by_name: Index,
    receivers: HashMap<ReceiverId, MailboxKey>,
    /// How many only their pins keep.
    idle: usize,
    backlog: usize,
    taken: u64,
    last_receiver: ReceiverId,
    expiry: Duration,
    capacity: Option<usize>,
    expired: usize,
    /// No message expires before this. Of no meaning while none waits.
    none_expires_before: Option<Instant>,
}

impl<C, W: Clone + PartialEq> Mailboxes<C, W> {
    /// Messages expire `expiry` after their arrival; a mailbox holds at most `capacity`.
    pub(crate) fn new(expiry: Duration, capacity: Option<usize>) -> Self {
        Self {
            slots: Slab::new(),
            by_name: Index::default(),
            receivers: HashMap::new(),
            idle: 0,
            backlog: 0,
            taken: 0,
            last_receiver: 0,
            expiry,
            capacity,
            expired: 0,
            none_expires_before: None,
        }
    }

    /// Messages that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    /// Messages that somebody has received so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Mailboxes that hold a message or are received from.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.idle
    }

    /// Receivers that have not ended.
    pub(crate) fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// The messages that were found expired when somebody was about to take them, since the last
    /// question.
    pub(crate) fn take_expired(&mut self) -> usize {
        std::mem::take(&mut self.expired)
    }

    /// The key of a channel's mailbox, if it exists.
    pub(crate) fn key(&self, channel: &str) -> Option<MailboxKey> {
        let name = channel.as_bytes();
        let is = |key| self.get(key).is_some_and(|m| m.name.to_bytes() == name);
        self.by_name.find(name, is)
    }

    fn get(&self, key: MailboxKey) -> Option<&Mailbox<C, W>> {
        self.slots.get(key as usize)
    }

    fn get_mut(&mut self, key: MailboxKey) -> Option<&mut Mailbox<C, W>> {
        self.slots.get_mut(key as usize)
    }

    /// The mailbox of `channel`, which somebody is about to use.
    fn open(&mut self, channel: &str) -> MailboxKey {
        if let Some(key) = self.key(channel) {
            return key;
        }
        let slot = self.slots.vacant_entry();
        // Four billion channels do not fit into any memory.
        let key = slot.key() as MailboxKey;
        slot.insert(Mailbox {
            // Names are checked before they get here, so that none holds a NUL.
            name: CString::new(channel).unwrap_or_default().into(),
            messages: Queue::default(),
            receivers: Queue::default(),
            pulls: Queue::default(),
            due: false,
            busy: false,
            idle: false,
            pins: 0,
            discards: 0,
            may_be_ending: false,
        });
        let name_of = |key| self.slots.get(key as usize).map(|m| m.name.to_bytes());
        self.by_name.insert(key, name_of);
        key
    }

    /// Keeps the mailbox of `channel` until as many calls of [`Mailboxes::unpin`], so that messages
    /// find it by its key.
    pub(crate) fn pin(&mut self, channel: &str) -> MailboxKey {
        let key = self.open(channel);
        if let Some(mailbox) = self.get_mut(key) {
            mailbox.pins += 1;
        }
        self.tidy(key);
        key
    }

    /// Takes a pin back.
    pub(crate) fn unpin(&mut self, key: MailboxKey) {
        if let Some(mailbox) = self.get_mut(key) {
            mailbox.pins = mailbox.pins.saturating_sub(1);
        }
        self.tidy(key);
    }

    /// Removes the mailbox if nothing holds it, and notes whether anything but its pins does.
    #[inline]
    fn tidy(&mut self, key: MailboxKey) {
        if let Some(mailbox) = self.slots.get_mut(key as usize)
            && (mailbox.idle || mailbox.unused())
        {
            self.tidy_unused(key);
        }
    }

    fn tidy_unused(&mut self, key: MailboxKey) {
        let Some(mailbox) = self.slots.get_mut(key as usize) else {
            return;
        };
        let unused = mailbox.unused();
        let pinned = mailbox.pins > 0;
        if unused && !pinned {
            self.idle -= usize::from(mailbox.idle);
            let mailbox = self.slots.remove(key as usize);
            self.by_name.remove(mailbox.name.to_bytes(), key);
        } else if unused != mailbox.idle {
            mailbox.idle = unused;
            if unused {
                self.idle += 1;
            } else {
                self.idle -= 1;
            }
        }
    }

    /// A message has arrived for `channel`.
    pub(crate) fn deliver(&mut self, channel: &str, body: Arc<Body>, now: Instant) -> Delivered<W> {
        let key = self.open(channel);
        self.deliver_to(key, body, now)
    }

    /// The same for a mailbox that is pinned.
    pub(crate) fn deliver_to(
        &mut self,
        key: MailboxKey,
        body: Arc<Body>,
        now: Instant,
    ) -> Delivered<W> {
        self.drop_expired(key, now);
        let Some(mailbox) = self.slots.get_mut(key as usize) else {
            return Delivered {
                due: None,
                wake: None,
                dropped: true,
            };
        };
        let most = self.capacity.unwrap_or(usize::MAX);
        let dropped = mailbox.messages.len() >= most;
        if !dropped {
            // Those that wait already came before, and expire before.
            if self.backlog == 0 {
                self.none_expires_before = now.checked_add(self.expiry);
            }
            self.backlog += 1;
            mailbox.messages.push_back(Waiting { body, arrived: now });
        }
        let delivered = Delivered {
            due: mailbox.becomes_due().then_some(key),
            wake: mailbox.pulls.pop_front(),
            dropped,
        };
        self.tidy(key);
        delivered
    }

    /// Adds a receiver. `announce` is told its number before its mailbox can be due.
    pub(crate) fn add_receiver(
        &mut self,
        channel: &str,
        callback: C,
        announce: impl FnOnce(ReceiverId),
    ) -> (ReceiverId, Option<MailboxKey>) {
        let key = self.open(channel);
        self.last_receiver += 1;
        let id = self.last_receiver;
        announce(id);
        self.receivers.insert(id, key);
        let mut due = false;
        if let Some(mailbox) = self.get_mut(key) {
            mailbox.receivers.push_back(Receiver {
                id,
                callback: Some(callback),
                ending: None,
                cancelled: false,
            });
            due = mailbox.becomes_due();
        }
        self.tidy(key);
        (id, due.then_some(key))
    }

    /// Takes the next callback that is to run, with its message; `None` if there is none any more.
    pub(crate) fn check_out(&mut self, key: MailboxKey, now: Instant) -> Option<CheckedOut<C>> {
        self.drop_expired(key, now);
        let mailbox = self.slots.get_mut(key as usize)?;
        if mailbox.busy {
            return None;
        }
        mailbox.due = false;
        let checked_out = mailbox.next_call(now);
        match &checked_out {
            Some(checked_out) => {
                mailbox.busy = true;
                self.backlog -= usize::from(matches!(checked_out.call, Call::Message(_)));
            }
            None => self.tidy(key),
        }
        checked_out
    }

    /// Puts a callback back that has run. `declined` is the message if it was not taken.
    pub(crate) fn check_in(
        &mut self,
        key: MailboxKey,
        ran: CheckedOut<C>,
        flow: Flow,
    ) -> CheckedIn<C, W> {
        let mut checked_in = CheckedIn {
            retired: None,
            cancelled: false,
            due: false,
            dropped: false,
            wake: None,
        };
        let Some(mailbox) = self.slots.get_mut(key as usize) else {
            checked_in.retired = Some(ran.callback);
            return checked_in;
        };
        mailbox.busy = false;

        let ended = matches!(ran.call, Call::Ended(_));
        if flow != Flow::Decline {
            self.taken += u64::from(!ended);
        } else if let Call::Message(message) = ran.call {
            if mailbox.discards == ran.discards {
                mailbox.messages.push_front(Waiting {
                    body: Arc::clone(message.body()),
                    arrived: ran.arrived,
                });
                let expires = ran.arrived.checked_add(self.expiry);
                if self.backlog == 0 || expires < self.none_expires_before {
                    self.none_expires_before = expires;
                }
                self.backlog += 1;
                checked_in.wake = mailbox.pulls.pop_front();
            } else {
                checked_in.dropped = true;
            }
        }

        let ours = |receiver: &Receiver<C>| receiver.id == ran.receiver;
        let mut callback = Some(ran.callback);
        if let Some(receiver) = mailbox.receivers.iter_mut().find(|receiver| ours(receiver)) {
            if flow == Flow::Continue && !ended && !receiver.cancelled {
                receiver.callback = callback.take();
            } else {
                checked_in.cancelled = receiver.cancelled;
            }
        }
        if callback.is_some() {
            mailbox.receivers.remove_first(ours);
            self.receivers.remove(&ran.receiver);
        }
        checked_in.retired = callback;
        checked_in.due = mailbox.becomes_due();
        self.tidy(key);
        checked_in
    }

    /// Ends a receiver at its user's wish.
    pub(crate) fn cancel(&mut self, id: ReceiverId) -> Cancel<C> {
        let Some(key) = self.receivers.get(&id).copied() else {
            return Cancel::Unknown;
        };
        let Some(mailbox) = self.slots.get_mut(key as usize) else {
            return Cancel::Unknown;
        };
        let Some(receiver) = mailbox.receivers.iter_mut().find(|r| r.id == id) else {
            return Cancel::Unknown;
        };
        match receiver.callback.take() {
            Some(callback) => {
                mailbox.receivers.remove_first(|receiver| receiver.id == id);
                self.receivers.remove(&id);
                self.tidy(key);
                Cancel::Idle(callback)
            }
            None => {
                receiver.cancelled = true;
                receiver.ending = None;
                Cancel::Running
            }
        }
    }

    /// Whether the receiver has not ended.
    pub(crate) fn has_receiver(&self, id: ReceiverId) -> bool {
        self.receivers.contains_key(&id)
    }

    /// Takes the first message of a channel.
    pub(crate) fn pull(&mut self, channel: &str, now: Instant) -> Option<Message> {
        let key = self.key(channel)?;
        self.drop_expired(key, now);
        let mailbox = self.get_mut(key)?;
        let message = mailbox
            .messages
            .pop_front()
            .map(|waiting| Message::new(waiting.body, Arc::clone(&mailbox.name)));
        self.backlog -= usize::from(message.is_some());
        self.taken += u64::from(message.is_some());
        self.tidy(key);
        message
    }

    /// Somebody waits in a pull. It is handed out by the next message that comes to stand in the
    /// channel, or by a discard. It is added only while the channel is empty, and removed
    /// whenever it stops waiting: or it would be handed out in place of one who waits.
    pub(crate) fn add_pull(&mut self, channel: &str, waiter: W) {
        let key = self.open(channel);
        if let Some(mailbox) = self.get_mut(key) {
            mailbox.pulls.push_back(waiter);
        }
        self.tidy(key);
    }

    /// Somebody has given up waiting.
    pub(crate) fn remove_pull(&mut self, channel: &str, waiter: &W) {
        if let Some(key) = self.key(channel)
            && let Some(mailbox) = self.get_mut(key)
        {
            while mailbox
                .pulls
                .remove_first(|other| other == waiter)
                .is_some()
            {}
            self.tidy(key);
        }
    }

    /// Gives a channel up: its messages are dropped, its receivers end.
    pub(crate) fn discard(&mut self, channel: &str, why: Ended) -> Discarded<W> {
        let mut discarded = Discarded {
            due: Vec::new(),
            wake: Vec::new(),
            dropped: 0,
        };
        if let Some(key) = self.key(channel) {
            self.discard_mailbox(key, why, &mut discarded);
        }
        discarded
    }

    /// Gives all channels up.
    pub(crate) fn discard_all(&mut self, why: Ended) -> Discarded<W> {
        let mut discarded = Discarded {
            due: Vec::new(),
            wake: Vec::new(),
            dropped: 0,
        };
        let keys: Vec<_> = self
            .slots
            .iter()
            .map(|(key, _)| key as MailboxKey)
            .collect();
        for key in keys {
            self.discard_mailbox(key, why, &mut discarded);
        }
        discarded
    }

    fn discard_mailbox(&mut self, key: MailboxKey, why: Ended, discarded: &mut Discarded<W>) {
        let Some(mailbox) = self.slots.get_mut(key as usize) else {
            return;
        };
        mailbox.discards = mailbox.discards.wrapping_add(1);
        mailbox.end_receivers(why);
        let dropped = mailbox.messages.take_all().count();
        self.backlog -= dropped;
        discarded.dropped += dropped;
        discarded.wake.extend(mailbox.pulls.take_all());
        discarded.due.extend(mailbox.becomes_due().then_some(key));
        self.tidy(key);
    }

    fn drop_expired(&mut self, key: MailboxKey, now: Instant) -> usize {
        if self.none_expires_before.is_none_or(|time| now < time) {
            return 0;
        }
        let expiry = self.expiry;
        let mailbox = self.get_mut(key);
        let dropped = mailbox.map_or(0, |mailbox| mailbox.drop_expired(now, expiry));
        self.backlog -= dropped;
        self.expired += dropped;
        dropped
    }

    /// Drops what has waited too long, in all channels.
    pub(crate) fn expire(&mut self, now: Instant) -> Expired {
        let mut sizes = Vec::new();
        if self.next_expiry().is_some_and(|time| time <= now) {
            let mut oldest: Option<Instant> = None;
            let mut keys = Vec::new();
            for (key, mailbox) in &mut self.slots {
                let held = mailbox.messages.len();
                if held == 0 {
                    continue;
                }
                let dropped = mailbox.drop_expired(now, self.expiry);
                if dropped > 0 {
                    self.backlog -= dropped;
                    self.expired += dropped;
                    sizes.push((Arc::clone(&mailbox.name), held));
                    keys.push(key as MailboxKey);
                }
                if let Some(first) = mailbox.messages.front() {
                    oldest = Some(oldest.map_or(first.arrived, |time| time.min(first.arrived)));
                }
            }
            self.none_expires_before = oldest.and_then(|time| time.checked_add(self.expiry));
            for key in keys {
                self.tidy(key);
            }
        }
        sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        sizes.truncate(3);
        Expired {
            dropped: self.take_expired(),
            biggest: sizes
                .into_iter()
                .map(|(name, held)| (name.to_string_lossy().into_owned(), held))
                .collect(),
        }
    }

    /// A time before which no message expires; `None` if none waits.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.none_expires_before.filter(|_| self.backlog > 0)
    }
}
