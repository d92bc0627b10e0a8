//! Back-pressure: which deliveries stay unacked, so that the broker sends no more, and when none
//! does, so that no channel keeps another waiting.
//!
//! The queue is exclusive and delivery at most once, so an ack says only 'send me more'. What
//! should stay unacked is `min(outstanding, max(0, backlog - local_capacity))`: memory never holds
//! more than `local_capacity + prefetch_count` arrivals, whatever the receivers do.
//!
//! While deliveries are unacked for that, the broker soon sends nothing more, to any channel: what
//! waits there for a prompt receiver waits behind the slow ones. So one clock runs for the whole
//! process. From time to time it marks the moment: a message that is on the broker then has at most
//! `remote_capacity - 1` others before it, so it has arrived once `remote_capacity` more have; or once
//! the broker has left credit unused that it was given long enough ago: then it has sent all it had.
//! Where a mark is `stall_after` old and neither has happened, the process is stalled. If no message
//! was taken since, or a channel that is received from has none, the layer *isolates*: nothing is held
//! back any more, and each channel is bounded by itself ([`crate::mailbox`]), until the backlog is at
//! most half of `local_capacity + prefetch_count` and what waited on the broker has arrived. Else each
//! receiver has work: none waits behind another, and senders are held back as long as that is so.
//!
//! A clock for each channel does not do: readers that take a message each now and then reset it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A message waits at most this part of `stall_after` longer: it spares a mark for each arrival.
const MARKS: u32 = 8;

/// How long an ack may take to the broker and what it sends for it back: a part of `stall_after`, within
/// what round trips and busy machines take. On a link with a longer round trip the clock stops too soon.
const ROUND_TRIP: u32 = 4;
const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(100);
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(400);

/// The least time between two looks at all channels.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The options that rule it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How many messages may wait in memory before deliveries are held back.
    pub(crate) local_capacity: usize,
    /// How many deliveries the broker sends ahead of acks.
    pub(crate) prefetch: usize,
    /// How many messages may wait on the broker.
    pub(crate) remote_capacity: u64,
    /// How long credit may be used up; `None`: for as long as it takes.
    pub(crate) stall_after: Option<Duration>,
}

/// What `stall_after` makes of the periods above.
#[derive(Debug, Clone, Copy)]
struct Periods {
    stall_after: Duration,
    between_marks: Duration,
    round_trip: Duration,
}

impl Periods {
    fn of(stall_after: Duration) -> Self {
        Self {
            stall_after,
            between_marks: stall_after / MARKS,
            round_trip: (stall_after / ROUND_TRIP).clamp(SHORTEST_ROUND_TRIP, LONGEST_ROUND_TRIP),
        }
    }
}

/// A moment at which deliveries were unacked, and the broker had no credit left that it did not use.
#[derive(Debug)]
struct Mark {
    at: Instant,
    /// What was on the broker then has arrived once so many deliveries have.
    arrived_by: u64,
    /// How many messages had been taken.
    taken: u64,
}

/// What is in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What waits: copies, or with a `local_capacity` of 0 deliveries.
    pub(crate) backlog: usize,
    /// Counts messages that were taken.
    pub(crate) taken: u64,
}

/// Isolation has begun or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Began,
    Ended { lasted: Duration },
}

/// Counts the deliveries of one consuming connection that are unacked.
#[derive(Debug)]
pub(crate) struct BackPressure {
    rules: Rules,
    /// `None`: there is no clock.
    periods: Option<Periods>,
    unacked: usize,
    /// How many of them are so on purpose, and have not just arrived.
    kept: usize,
    /// Count all deliveries of the connection, and those that were acked.
    arrived: u64,
    released: u64,
    /// When the last of them was.
    released_at: Option<Instant>,
    /// How many had been acked at some moments, oldest first: the first is older than a round trip.
    history: VecDeque<(Instant, u64)>,
    /// Oldest first.
    marks: VecDeque<Mark>,
    /// When something was last unacked.
    held_at: Option<Instant>,
    /// Stalled, and no channel was kept waiting: not to be looked at again before this.
    look_again: Option<Instant>,
    isolation: Option<Isolation>,
}

/// While it lasts.
#[derive(Debug)]
struct Isolation {
    since: Instant,
    /// What was on the broker when it began has arrived once so many deliveries have.
    arrived_by: u64,
    /// Not to be looked at before this.
    look_again: Instant,
}

impl BackPressure {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            periods: rules.stall_after.map(Periods::of),
            unacked: 0,
            kept: 0,
            arrived: 0,
            released: 0,
            released_at: None,
            history: VecDeque::new(),
            marks: VecDeque::new(),
            held_at: None,
            look_again: None,
            isolation: None,
        }
    }

    /// A new connection starts a new count: what was unacked on the old one died with its queue,
    /// and so did what waited there.
    pub(crate) fn reset(&mut self) {
        (self.unacked, self.kept) = (0, 0);
        (self.arrived, self.released) = (0, 0);
        self.released_at = None;
        self.history.clear();
        self.forget_stall();
        if let Some(isolation) = &mut self.isolation {
            isolation.arrived_by = self.rules.remote_capacity;
        }
    }

    /// Deliveries have arrived.
    pub(crate) fn arrived(&mut self, count: usize, now: Instant) {
        // They may be the first after a while without any.
        if self.held_at.is_some() && self.has_sent_all(now) {
            self.forget_stall();
        }
        self.unacked += count;
        self.arrived += count as u64;
    }

    /// Whether the broker has left credit unused that it was given a round trip ago or earlier.
    fn has_sent_all(&self, now: Instant) -> bool {
        let Some(periods) = self.periods else {
            return false;
        };
        let is_over = |at: Instant| since(at, now) >= periods.round_trip;
        let released = match self.history.front() {
            _ if self.released_at.is_none_or(is_over) => self.released,
            Some((at, count)) if is_over(*at) => *count,
            _ => 0,
        };
        self.arrived < released + self.rules.prefetch as u64
    }

    /// How many of the oldest may be acked, and whether isolation has begun or ended by this.
    /// `is_one_kept_waiting` says, of the time since a moment, whether a channel that was received
    /// from holds nothing; it may take long, and is not asked often.
    #[must_use]
    pub(crate) fn release(
        &mut self,
        memory: Memory,
        now: Instant,
        is_one_kept_waiting: impl FnOnce(Instant) -> bool,
    ) -> (usize, Option<Change>) {
        let mut change = self.end_isolation(memory.backlog, now);
        let mut keep = match self.isolation {
            Some(_) => 0,
            None => self.wanted_unacked(memory.backlog),
        };
        if self.isolation.is_none()
            && let Some(periods) = self.periods
            && let Some(stalled) = self.stalled_since(&periods, keep, memory.taken, now)
            && self.must_isolate(&periods, stalled, memory.taken, now, is_one_kept_waiting)
        {
            change = Some(Change::Began);
            self.isolation = Some(Isolation {
                since: now,
                arrived_by: self.arrived.saturating_add(self.rules.remote_capacity),
                look_again: now + periods.round_trip,
            });
            self.forget_stall();
            keep = 0;
        }
        let released = self.unacked - keep;
        (self.unacked, self.kept) = (keep, keep);
        self.note_released(released, now);
        (released, change)
    }

    fn note_released(&mut self, count: usize, now: Instant) {
        let Some(periods) = self.periods else {
            return;
        };
        if count == 0 {
            return;
        }
        self.released += count as u64;
        self.released_at = Some(now);
        let last = self.history.back();
        if last.is_none_or(|(at, _)| since(*at, now) >= periods.round_trip / MARKS) {
            self.history.push_back((now, self.released));
        }
        while let Some((at, _)) = self.history.get(1)
            && since(*at, now) >= periods.round_trip
        {
            self.history.pop_front();
        }
    }

    fn forget_stall(&mut self) {
        self.marks.clear();
        self.held_at = None;
        self.look_again = None;
    }

    fn wanted_unacked(&self, backlog: usize) -> usize {
        self.unacked
            .min(backlog.saturating_sub(self.rules.local_capacity))
    }

    /// The mark since which something may have waited on the broker behind what is unacked, if that is
    /// `stall_after` old, and how many messages had been taken then.
    fn stalled_since(
        &mut self,
        periods: &Periods,
        keep: usize,
        taken: u64,
        now: Instant,
    ) -> Option<(Instant, u64)> {
        // What was kept by the last call was unacked until now.
        if keep > 0 || self.kept > 0 {
            self.held_at = Some(now);
        }
        let is_held = |at: Instant| since(at, now) < periods.round_trip;
        if !self.held_at.is_some_and(is_held) || self.has_sent_all(now) {
            self.forget_stall();
            return None;
        }
        let age = |mark: &Mark| since(mark.at, now);
        // Of those that are old enough the newest says all.
        while let Some(oldest) = self.marks.front()
            && (oldest.arrived_by <= self.arrived
                || self
                    .marks
                    .get(1)
                    .is_some_and(|mark| age(mark) >= periods.stall_after))
        {
            self.marks.pop_front();
        }
        if self
            .marks
            .back()
            .is_none_or(|mark| age(mark) >= periods.between_marks)
        {
            self.marks.push_back(Mark {
                at: now,
                arrived_by: self.arrived.saturating_add(self.rules.remote_capacity),
                taken,
            });
        }
        let oldest = self
            .marks
            .front()
            .filter(|mark| age(mark) >= periods.stall_after)?;
        Some((oldest.at, oldest.taken))
    }

    fn must_isolate(
        &mut self,
        periods: &Periods,
        (since, taken_then): (Instant, u64),
        taken: u64,
        now: Instant,
        is_one_kept_waiting: impl FnOnce(Instant) -> bool,
    ) -> bool {
        if taken == taken_then {
            return true;
        }
        if self.look_again.is_some_and(|at| now < at) {
            return false;
        }
        let kept_waiting = is_one_kept_waiting(since);
        self.look_again = (!kept_waiting).then(|| now + periods.between_marks.max(LOOK_PAUSE));
        kept_waiting
    }

    /// Ends isolation if it lasts, whatever waits; says for how long it did.
    pub(crate) fn stop_isolating(&mut self, now: Instant) -> Option<Duration> {
        let isolation = self.isolation.take()?;
        Some(since(isolation.since, now))
    }

    fn end_isolation(&mut self, backlog: usize, now: Instant) -> Option<Change> {
        let isolation = self.isolation.as_ref()?;
        if !self.may_end(backlog) || now < isolation.look_again {
            return None;
        }
        // Else what is on the broker could wait behind the same channels once more.
        if self.arrived < isolation.arrived_by && !self.has_sent_all(now) {
            self.isolation.as_mut()?.look_again = now + SHORTEST_ROUND_TRIP / ROUND_TRIP;
            return None;
        }
        let lasted = self.stop_isolating(now)?;
        Some(Change::Ended { lasted })
    }

    fn may_end(&self, backlog: usize) -> bool {
        backlog <= (self.rules.local_capacity + self.rules.prefetch) / 2
    }

    /// When [`BackPressure::release`] is to be called even if nothing happens.
    pub(crate) fn next_change(&self, backlog: usize) -> Option<Instant> {
        if let Some(isolation) = &self.isolation {
            return self.may_end(backlog).then_some(isolation.look_again);
        }
        // However little happens, there is a mark from time to time.
        let last = self.marks.back()?.at;
        let next_mark = last.checked_add(self.periods?.between_marks);
        self.next_stall().into_iter().chain(next_mark).min()
    }

    /// When the process will be stalled, if nothing happens.
    fn next_stall(&self) -> Option<Instant> {
        let oldest = self.marks.front()?.at;
        let stalled = oldest.checked_add(self.periods?.stall_after)?;
        Some(self.look_again.map_or(stalled, |at| at.max(stalled)))
    }

    /// Whether nothing is held back, and each channel is bounded by itself.
    pub(crate) fn is_isolating(&self) -> bool {
        self.isolation.is_some()
    }

    /// Deliveries that are unacked.
    pub(crate) fn unacked(&self) -> usize {
        self.unacked
    }
}

fn since(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

#[cfg(test)]
mod tests;
