//! The messages that wait in memory: a FIFO queue for each channel, who receives from it, the
//! backlog of all, and what has waited too long.
//!
//! A mailbox exists while it holds a message or somebody receives from it. What is due is a
//! mailbox, never a message: one thread checks it out, runs one callback, and checks it in. While
//! it is checked out it is busy, so that its order holds for any number of threads.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::message::{Body, Message};

#[cfg(test)]
mod tests;

/// Names a mailbox while it is due or checked out.
pub(crate) type MailboxKey = usize;

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

/// The name of a channel: found by its bytes, lent NUL-terminated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name(Arc<CStr>);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.0.to_bytes()
    }
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
    name: Name,
    messages: VecDeque<Waiting>,
    receivers: VecDeque<Receiver<C>>,
    pulls: VecDeque<W>,
    /// Somebody has been told that it is due.
    due: bool,
    /// One of its callbacks runs.
    busy: bool,
    /// Counts how often the channel was discarded.
    discards: u64,
    /// Its place in `Mailboxes::holding` while it holds a message.
    place: usize,
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
        self.receivers.iter().any(ending)
            || (!self.messages.is_empty() && !self.receivers.is_empty())
    }

    /// `true` once for each time that it becomes due.
    fn becomes_due(&mut self) -> bool {
        let becomes = !self.due && !self.busy && self.has_work();
        self.due |= becomes;
        becomes
    }

    fn end_receivers(&mut self, why: Ended) {
        for receiver in &mut self.receivers {
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
    discards: u64,
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
    by_name: HashMap<Name, MailboxKey>,
    receivers: HashMap<ReceiverId, MailboxKey>,
    /// The mailboxes that hold a message.
    holding: Vec<MailboxKey>,
    backlog: usize,
    last_receiver: ReceiverId,
    expiry: Duration,
    capacity: Option<usize>,
    expired: usize,
}

impl<C, W: Clone + PartialEq> Mailboxes<C, W> {
    /// Messages expire `expiry` after their arrival; a mailbox holds at most `capacity`.
    pub(crate) fn new(expiry: Duration, capacity: Option<usize>) -> Self {
        Self {
            slots: Slab::new(),
            by_name: HashMap::new(),
            receivers: HashMap::new(),
            holding: Vec::new(),
            backlog: 0,
            last_receiver: 0,
            expiry,
            capacity,
            expired: 0,
        }
    }

    /// Messages that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    /// Mailboxes that exist.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
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

    fn open(&mut self, channel: &str) -> MailboxKey {
        if let Some(key) = self.by_name.get(channel.as_bytes()) {
            return *key;
        }
        // Names are checked before they get here, so that none holds a NUL.
        let name = Name(CString::new(channel).unwrap_or_default().into());
        let key = self.slots.insert(Mailbox {
            name: name.clone(),
            messages: VecDeque::new(),
            receivers: VecDeque::new(),
            pulls: VecDeque::new(),
            due: false,
            busy: false,
            discards: 0,
            place: usize::MAX,
        });
        self.by_name.insert(name, key);
        key
    }

    /// Removes the mailbox if nothing holds it.
    fn tidy(&mut self, key: MailboxKey) {
        if self.slots.get(key).is_some_and(Mailbox::unused) {
            let mailbox = self.slots.remove(key);
            self.by_name.remove(mailbox.name.0.to_bytes());
        }
    }

    /// Keeps `holding` in step after messages were added to or taken from a mailbox.
    fn track(&mut self, key: MailboxKey) {
        let Some(mailbox) = self.slots.get_mut(key) else {
            return;
        };
        if mailbox.messages.is_empty() == (mailbox.place == usize::MAX) {
            return;
        }
        if mailbox.place == usize::MAX {
            mailbox.place = self.holding.len();
            self.holding.push(key);
            return;
        }
        let place = std::mem::replace(&mut mailbox.place, usize::MAX);
        self.holding.swap_remove(place);
        if let Some(moved) = self.holding.get(place).copied()
            && let Some(mailbox) = self.slots.get_mut(moved)
        {
            mailbox.place = place;
        }
    }

    /// A message has arrived for `channel`.
    pub(crate) fn deliver(&mut self, channel: &str, body: Arc<Body>, now: Instant) -> Delivered<W> {
        let key = self.open(channel);
        self.drop_expired(key, now);
        let mailbox = &mut self.slots[key];
        let dropped = self
            .capacity
            .is_some_and(|most| mailbox.messages.len() >= most);
        if !dropped {
            mailbox.messages.push_back(Waiting { body, arrived: now });
            self.backlog += 1;
        }
        let delivered = Delivered {
            due: mailbox.becomes_due().then_some(key),
            wake: mailbox.pulls.pop_front(),
            dropped,
        };
        self.track(key);
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
        let mailbox = &mut self.slots[key];
        self.last_receiver += 1;
        let id = self.last_receiver;
        announce(id);
        mailbox.receivers.push_back(Receiver {
            id,
            callback: Some(callback),
            ending: None,
            cancelled: false,
        });
        self.receivers.insert(id, key);
        (id, mailbox.becomes_due().then_some(key))
    }

    /// Takes the next callback that is to run, with its message; `None` if there is none any more.
    pub(crate) fn check_out(&mut self, key: MailboxKey, now: Instant) -> Option<CheckedOut<C>> {
        let mailbox = self.slots.get_mut(key)?;
        if mailbox.busy {
            return None;
        }
        mailbox.due = false;
        self.drop_expired(key, now);
        let checked_out = self.next_call(key, now);
        if let Some(mailbox) = self.slots.get_mut(key) {
            mailbox.busy = checked_out.is_some();
        }
        self.track(key);
        self.tidy(key);
        checked_out
    }

    fn next_call(&mut self, key: MailboxKey, now: Instant) -> Option<CheckedOut<C>> {
        let mailbox = self.slots.get_mut(key)?;
        let ending = |receiver: &Receiver<C>| receiver.ending.is_some();
        if let Some(receiver) = mailbox.receivers.iter_mut().find(|r| ending(r)) {
            return Some(CheckedOut {
                receiver: receiver.id,
                callback: receiver.callback.take()?,
                call: Call::Ended(receiver.ending?),
                arrived: now,
                discards: mailbox.discards,
            });
        }
        // Receivers take turns: the one that runs goes to the end.
        let mut receiver = mailbox.receivers.pop_front()?;
        let checked_out = mailbox.messages.pop_front().and_then(|waiting| {
            Some(CheckedOut {
                receiver: receiver.id,
                callback: receiver.callback.take()?,
                call: Call::Message(Message::new(waiting.body, Arc::clone(&mailbox.name.0))),
                arrived: waiting.arrived,
                discards: mailbox.discards,
            })
        });
        mailbox.receivers.push_back(receiver);
        self.backlog -= usize::from(checked_out.is_some());
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
        let Some(mailbox) = self.slots.get_mut(key) else {
            checked_in.retired = Some(ran.callback);
            return checked_in;
        };
        mailbox.busy = false;

        let ended = matches!(ran.call, Call::Ended(_));
        if let (Call::Message(message), Flow::Decline) = (ran.call, flow) {
            if mailbox.discards == ran.discards {
                mailbox.messages.push_front(Waiting {
                    body: Arc::clone(message.body()),
                    arrived: ran.arrived,
                });
                self.backlog += 1;
                checked_in.wake = mailbox.pulls.pop_front();
            } else {
                checked_in.dropped = true;
            }
        }

        let place = mailbox.receivers.iter().position(|r| r.id == ran.receiver);
        let stays =
            |receiver: &Receiver<C>| flow == Flow::Continue && !ended && !receiver.cancelled;
        match place.and_then(|place| mailbox.receivers.get_mut(place).map(|r| (place, r))) {
            Some((_, receiver)) if stays(receiver) => receiver.callback = Some(ran.callback),
            Some((place, receiver)) => {
                checked_in.cancelled = receiver.cancelled;
                checked_in.retired = Some(ran.callback);
                mailbox.receivers.remove(place);
                self.receivers.remove(&ran.receiver);
            }
            None => checked_in.retired = Some(ran.callback),
        }
        checked_in.due = mailbox.becomes_due();
        self.track(key);
        self.tidy(key);
        checked_in
    }

    /// Ends a receiver at its user's wish.
    pub(crate) fn cancel(&mut self, id: ReceiverId) -> Cancel<C> {
        let Some(key) = self.receivers.get(&id).copied() else {
            return Cancel::Unknown;
        };
        let Some(mailbox) = self.slots.get_mut(key) else {
            return Cancel::Unknown;
        };
        let Some(place) = mailbox.receivers.iter().position(|r| r.id == id) else {
            return Cancel::Unknown;
        };
        let Some(receiver) = mailbox.receivers.get_mut(place) else {
            return Cancel::Unknown;
        };
        match receiver.callback.take() {
            Some(callback) => {
                mailbox.receivers.remove(place);
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
        let key = self.by_name.get(channel.as_bytes()).copied()?;
        self.drop_expired(key, now);
        let mailbox = self.slots.get_mut(key)?;
        let message = mailbox
            .messages
            .pop_front()
            .map(|waiting| Message::new(waiting.body, Arc::clone(&mailbox.name.0)));
        self.backlog -= usize::from(message.is_some());
        self.track(key);
        self.tidy(key);
        message
    }

    /// Somebody waits in a pull. It is handed out by the next message that comes to stand in the
    /// channel, or by a discard. It is added only while the channel is empty, and removed
    /// whenever it stops waiting: or it would be handed out in place of one who waits.
    pub(crate) fn add_pull(&mut self, channel: &str, waiter: W) {
        let key = self.open(channel);
        self.slots[key].pulls.push_back(waiter);
    }

    /// Somebody has given up waiting.
    pub(crate) fn remove_pull(&mut self, channel: &str, waiter: &W) {
        if let Some(key) = self.by_name.get(channel.as_bytes()).copied()
            && let Some(mailbox) = self.slots.get_mut(key)
        {
            mailbox.pulls.retain(|other| other != waiter);
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
        if let Some(key) = self.by_name.get(channel.as_bytes()).copied() {
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
        let keys: Vec<MailboxKey> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.discard_mailbox(key, why, &mut discarded);
        }
        discarded
    }

    fn discard_mailbox(&mut self, key: MailboxKey, why: Ended, discarded: &mut Discarded<W>) {
        let Some(mailbox) = self.slots.get_mut(key) else {
            return;
        };
        mailbox.discards += 1;
        mailbox.end_receivers(why);
        self.backlog -= mailbox.messages.len();
        discarded.dropped += mailbox.messages.len();
        mailbox.messages.clear();
        discarded.wake.extend(mailbox.pulls.drain(..));
        discarded.due.extend(mailbox.becomes_due().then_some(key));
        self.track(key);
        self.tidy(key);
    }

    fn drop_expired(&mut self, key: MailboxKey, now: Instant) -> usize {
        let Some(mailbox) = self.slots.get_mut(key) else {
            return 0;
        };
        let mut dropped = 0;
        while let Some(first) = mailbox.messages.front() {
            if now.saturating_duration_since(first.arrived) < self.expiry {
                break;
            }
            mailbox.messages.pop_front();
            dropped += 1;
        }
        self.backlog -= dropped;
        self.expired += dropped;
        dropped
    }

    /// Drops what has waited too long, in all channels.
    pub(crate) fn expire(&mut self, now: Instant) -> Expired {
        let mut sizes = Vec::new();
        for key in self.holding.clone() {
            let held = self.slots.get(key).map_or(0, |m| m.messages.len());
            if self.drop_expired(key, now) > 0
                && let Some(mailbox) = self.slots.get(key)
            {
                sizes.push((mailbox.name.0.to_string_lossy().into_owned(), held));
            }
            self.track(key);
            self.tidy(key);
        }
        sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        sizes.truncate(3);
        Expired {
            dropped: self.take_expired(),
            biggest: sizes,
        }
    }

    /// When the next message expires, unless somebody takes it.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.holding
            .iter()
            .filter_map(|key| self.slots.get(*key)?.messages.front())
            .map(|first| first.arrived)
            .min()
            .and_then(|arrived| arrived.checked_add(self.expiry))
    }
}
