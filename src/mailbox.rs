//! The messages that wait in memory: a FIFO queue for each channel, who receives from it, the
//! backlog of all, and what has waited too long.
//!
//! A mailbox exists while it holds a message or is received from. What is due is a mailbox, never a
//! message: one thread checks it out, runs one callback, and checks it in. While it is checked out
//! it is busy, so that its order holds for any number of threads.
//!
//! A message to a group waits in many mailboxes and is kept once. As a rule nothing bounds a
//! mailbox but back-pressure; where that is off ([`crate::back_pressure`]) there are [`Bounds`].

mod arrivals;
mod bounds;
mod call;
mod queue;
mod slot;

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use slab::Slab;

use self::arrivals::{ArrivalKey, Arrivals};
use self::bounds::Fullest;
use self::slot::{Mailbox, Receiver};
use crate::index::Index;
use crate::message::{Body, Message};

pub(crate) use self::bounds::{Bound, Bounds, Lost};
pub(crate) use self::call::{Call, CheckedIn, CheckedOut, MailboxKey, ReceiverId};
pub use self::call::{Ended, Flow};

#[cfg(test)]
mod tests;

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
    /// A message was dropped to make room, this one or another channel's.
    pub(crate) lost: Option<Lost>,
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
    /// The channels that hold or held most of it, [`NAMED`] at most, with their counts.
    pub(crate) biggest: Vec<(Arc<CStr>, usize)>,
}

/// How many channels a log record names.
pub(crate) const NAMED: usize = 3;

/// A channel that is received from may hold so many, whatever the others hold: several may come at
/// once, and how prompt it is shows only after that.
const SPARED: usize = 8;

/// So many entries more than channels are worth no work.
const FEW: usize = 1024;

/// The first of `held` by their numbers, then by their names.
fn biggest<'a>(
    held: impl Iterator<Item = (&'a Arc<CStr>, usize)>,
    count: usize,
) -> Vec<(Arc<CStr>, usize)> {
    let mut first: Vec<(&Arc<CStr>, usize)> = Vec::new();
    for (name, number) in held {
        let is_before =
            |other: &(&Arc<CStr>, usize)| other.1 > number || (other.1 == number && other.0 < name);
        let place = first.partition_point(is_before);
        if place < count {
            first.truncate(count - 1);
            first.insert(place, (name, number));
        }
    }
    let owned = first.into_iter();
    owned
        .map(|(name, number)| (Arc::clone(name), number))
        .collect()
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
    arrivals: Arrivals,
    taken: u64,
    last_receiver: ReceiverId,
    expiry: Duration,
    bounds: Option<Bounds>,
    /// From when the total bound is reached until there is no bound.
    fullest: Option<Fullest>,
    expired: usize,
    /// When a message was last pulled from a channel without a mailbox.
    pulled_in_vain: Option<Instant>,
    /// No message expires before this. Of no meaning while none waits.
    none_expires_before: Option<Instant>,
}

impl<C, W: Clone + PartialEq> Mailboxes<C, W> {
    /// Messages expire `expiry` after their arrival.
    pub(crate) fn new(expiry: Duration) -> Self {
        Self {
            slots: Slab::new(),
            by_name: Index::default(),
            receivers: HashMap::new(),
            idle: 0,
            arrivals: Arrivals::default(),
            taken: 0,
            last_receiver: 0,
            expiry,
            bounds: None,
            fullest: None,
            expired: 0,
            pulled_in_vain: None,
            none_expires_before: None,
        }
    }

    /// Messages that wait; one to a group counts once for each channel that it waits in.
    pub(crate) fn backlog(&self) -> usize {
        self.arrivals.copies()
    }

    /// Deliveries of which at least one channel has not taken its copy.
    pub(crate) fn deliveries(&self) -> usize {
        self.arrivals.len()
    }

    /// Bounds what waits from now on, or does not bound it any more. What waits already stays.
    pub(crate) fn set_bounds(&mut self, bounds: Option<Bounds>) {
        self.bounds = bounds;
        self.fullest = None;
    }

    /// The channels that hold most messages, at most `count`, with their numbers.
    pub(crate) fn biggest(&self, count: usize) -> Vec<(Arc<CStr>, usize)> {
        let held = self.slots.iter().map(|(_, mailbox)| {
            let held = mailbox.messages.len();
            (&mailbox.name, held)
        });
        biggest(held.filter(|(_, held)| *held > 0), count)
    }

    /// Whether a channel that is received from holds nothing: one at which a receiver or a pull
    /// waits, or that was used since then.
    pub(crate) fn is_one_kept_waiting(&self, since: Instant) -> bool {
        if self.pulled_in_vain.is_some_and(|at| at > since) {
            return true;
        }
        let is_used = |mailbox: &Mailbox<C, W>| {
            mailbox.is_received_from() || mailbox.last_used.is_some_and(|at| at >= since)
        };
        let mut mailboxes = self.slots.iter().map(|(_, mailbox)| mailbox);
        mailboxes.any(|mailbox| mailbox.messages.is_empty() && is_used(mailbox))
    }

    /// The name of a channel that has a mailbox.
    pub(crate) fn name(&self, key: MailboxKey) -> String {
        let mailbox = self.get(key);
        mailbox.map_or(String::new(), |m| m.name.to_string_lossy().into_owned())
    }

    /// When the channel was last used: now, if a receiver or a pull waits or a callback runs; else
    /// when that was last so, or a message was taken; `None` for never.
    pub(crate) fn last_used(&self, key: MailboxKey, now: Instant) -> Option<Instant> {
        let mailbox = self.get(key)?;
        if mailbox.is_received_from() {
            Some(now)
        } else {
            mailbox.last_used
        }
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
        // Names are checked before they get here, so that none holds a NUL.
        slot.insert(Mailbox::new(
            CString::new(channel).unwrap_or_default().into(),
        ));
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
        let arrival = self.arrivals.insert(body, now);
        let key = self.open(channel);
        let delivered = self.deliver_copy(key, arrival, now);
        self.arrivals.delivered(arrival);
        delivered
    }

    /// A message has arrived for several channels, whose mailboxes are pinned.
    pub(crate) fn deliver_to_all(
        &mut self,
        keys: &[MailboxKey],
        body: Arc<Body>,
        now: Instant,
        mut then: impl FnMut(Delivered<W>),
    ) {
        let arrival = self.arrivals.insert(body, now);
        for key in keys {
            then(self.deliver_copy(*key, arrival, now));
        }
        self.arrivals.delivered(arrival);
    }

    fn deliver_copy(&mut self, key: MailboxKey, arrival: ArrivalKey, now: Instant) -> Delivered<W> {
        self.drop_expired(key, now);
        let mut delivered = Delivered {
            due: None,
            wake: None,
            lost: None,
        };
        let (is_let_in, lost) = match self.bounds {
            None => (true, None),
            Some(bounds) => self.make_room(key, bounds),
        };
        delivered.lost = lost;
        // Those that wait already came before, and expire before.
        if is_let_in && self.arrivals.copies() == 0 {
            self.none_expires_before = now.checked_add(self.expiry);
        }
        if let Some(mailbox) = self.slots.get_mut(key as usize) {
            if is_let_in {
                self.arrivals.add_copy(arrival);
                mailbox.messages.push_back(arrival);
                delivered.due = mailbox.becomes_due().then_some(key);
                delivered.wake = mailbox.pulls.pop_front();
                let length = mailbox.messages.len();
                self.grown(key, length);
            }
            self.tidy(key);
        }
        delivered
    }

    /// Whether one more message may wait in the mailbox, and what was lost for it.
    fn make_room(&mut self, key: MailboxKey, bounds: Bounds) -> (bool, Option<Lost>) {
        let Some(mailbox) = self.slots.get(key as usize) else {
            return (false, None);
        };
        let held = mailbox.messages.len();
        if held >= bounds.channel {
            return (false, mailbox.loses(Bound::Channel));
        }
        if self.arrivals.copies() < bounds.total {
            return (true, None);
        }
        let is_received_from = mailbox.is_received_from();
        if (held == 0 && mailbox.pins > 0) || (held < SPARED && is_received_from) {
            return (true, None);
        }
        match self.fullest() {
            // With this message it would hold one more.
            Some((fullest, most)) if most > held + 1 => (true, self.lose_newest(fullest)),
            _ => (false, self.get(key).and_then(|m| m.loses(Bound::Total))),
        }
    }

    fn lose_newest(&mut self, key: MailboxKey) -> Option<Lost> {
        let mailbox = self.slots.get_mut(key as usize)?;
        if let Some(newest) = mailbox.messages.pop_back() {
            self.arrivals.remove_copy(newest);
        }
        let lost = mailbox.loses(Bound::Total);
        self.tidy(key);
        lost
    }

    /// The fullest channel and how many messages it holds.
    fn fullest(&mut self) -> Option<(MailboxKey, usize)> {
        let slots = &self.slots;
        let length_of = |key: MailboxKey| slots.get(key as usize).map_or(0, |m| m.messages.len());
        let fullest = self.fullest.get_or_insert_with(|| {
            let keys = slots.iter().map(|(key, _)| key as MailboxKey);
            Fullest::new(keys.map(|key| (length_of(key), key)))
        });
        fullest.find(length_of)
    }

    /// A mailbox holds one more message now.
    fn grown(&mut self, key: MailboxKey, length: usize) {
        let Some(fullest) = &mut self.fullest else {
            return;
        };
        fullest.grown(key, length);
        // Channels that grow and shrink leave entries behind.
        if fullest.entries() > 4 * self.slots.len() + FEW {
            self.fullest = None;
        }
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
        let checked_out = mailbox.next_call(now, &mut self.arrivals);
        match &checked_out {
            Some(_) => mailbox.busy = true,
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
        now: Instant,
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
        let mut grown_to = None;

        let ended = matches!(ran.call, Call::Ended(_));
        if flow != Flow::Decline {
            self.taken += u64::from(!ended);
        } else if let Call::Message(message) = ran.call {
            if mailbox.discards == ran.discards {
                let expires = ran.arrived.checked_add(self.expiry);
                if self.arrivals.copies() == 0 || expires < self.none_expires_before {
                    self.none_expires_before = expires;
                }
                let arrival = self
                    .arrivals
                    .put_back(ran.arrival, message.body(), ran.arrived);
                mailbox.messages.push_front(arrival);
                grown_to = Some(mailbox.messages.len());
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
            mailbox.last_used = Some(now);
            self.receivers.remove(&ran.receiver);
        }
        checked_in.retired = callback;
        checked_in.due = mailbox.becomes_due();
        if let Some(length) = grown_to {
            self.grown(key, length);
        }
        self.tidy(key);
        checked_in
    }

    /// Ends a receiver at its user's wish.
    pub(crate) fn cancel(&mut self, id: ReceiverId, now: Instant) -> Cancel<C> {
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
                mailbox.last_used = Some(now);
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
        let Some(key) = self.key(channel) else {
            self.pulled_in_vain = Some(now);
            return None;
        };
        self.drop_expired(key, now);
        let mailbox = self.slots.get_mut(key as usize)?;
        mailbox.last_used = Some(now);
        let message = mailbox
            .messages
            .pop_front()
            .and_then(|arrival| self.arrivals.take(arrival))
            .map(|(body, _)| Message::new(body, Arc::clone(&mailbox.name)));
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
        for arrival in mailbox.messages.take_all() {
            self.arrivals.remove_copy(arrival);
            discarded.dropped += 1;
        }
        discarded.wake.extend(mailbox.pulls.take_all());
        discarded.due.extend(mailbox.becomes_due().then_some(key));
        self.tidy(key);
    }

    fn drop_expired(&mut self, key: MailboxKey, now: Instant) -> usize {
        if self.none_expires_before.is_none_or(|time| now < time) {
            return 0;
        }
        let (expiry, arrivals) = (self.expiry, &mut self.arrivals);
        let mailbox = self.slots.get_mut(key as usize);
        let dropped = mailbox.map_or(0, |mailbox| mailbox.drop_expired(now, expiry, arrivals));
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
                let dropped = mailbox.drop_expired(now, self.expiry, &mut self.arrivals);
                if dropped > 0 {
                    self.expired += dropped;
                    sizes.push((Arc::clone(&mailbox.name), held));
                    keys.push(key as MailboxKey);
                }
                let first = mailbox.messages.front();
                if let Some(at) = first.and_then(|first| self.arrivals.at(*first)) {
                    oldest = Some(oldest.map_or(at, |time| time.min(at)));
                }
            }
            self.none_expires_before = oldest.and_then(|time| time.checked_add(self.expiry));
            for key in keys {
                self.tidy(key);
            }
        }
        Expired {
            dropped: self.take_expired(),
            biggest: biggest(sizes.iter().map(|(name, held)| (name, *held)), NAMED),
        }
    }

    /// A time before which no message expires; `None` if none waits.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.none_expires_before
            .filter(|_| self.arrivals.copies() > 0)
    }
}
