//! Back-pressure: which deliveries stay unacked, so that the broker sends no more, and when none
//! does, so that no channel keeps another waiting.
//!
//! The queue is exclusive and delivery at most once, so an ack says only 'send me more'. What
//! should stay unacked is `min(outstanding, max(0, backlog - local_capacity))`: memory never holds
//! more than `local_capacity + prefetch_count` arrivals, whatever the receivers do.
//!
//! Credit is used up while `prefetch_count` deliveries are unacked. Then the broker sends nothing
//! more, to any channel: what waits there for a prompt receiver waits behind the slow ones. So one
//! clock runs for the whole process. From time to time it marks the moment: a message that is on
//! the broker then has at most `remote_capacity - 1` others before it, so it has arrived once
//! `remote_capacity` more have; or once credit was free for so long that the broker must have sent
//! all it had. Where a mark is `stall_after` old and neither has happened, the process is stalled.
//! If no message was taken since, or a channel that is received from has none, the layer *isolates*:
//! nothing is held back any more, and each channel is bounded by itself ([`crate::mailbox`]), until
//! the backlog is at most half of `local_capacity + prefetch_count`. Else each receiver has work:
//! none waits behind another, and senders are held back as long as that is so.
//!
//! A clock for each channel does not do: readers that take a message each now and then reset it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A message waits at most this part of `stall_after` longer: it spares a mark for each arrival.
const MARKS: u32 = 8;

/// What part of `stall_after` credit must have been free before the broker has surely sent all it
/// had, and the longest that this takes: a round trip, with room for a busy machine.
const QUIET: u32 = 4;
const LONGEST_QUIET: Duration = Duration::from_millis(250);

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

/// A moment at which credit was used up.
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
    unacked: usize,
    /// Counts all deliveries.
    arrived: u64,
    /// Oldest first. None while credit is free, and has been for a while.
    marks: VecDeque<Mark>,
    /// Since when credit is free after the last mark.
    free_since: Option<Instant>,
    /// Stalled, and no channel was kept waiting: not to be looked at again before this.
    look_again: Option<Instant>,
    isolating_since: Option<Instant>,
}

impl BackPressure {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            unacked: 0,
            arrived: 0,
            marks: VecDeque::new(),
            free_since: None,
            look_again: None,
            isolating_since: None,
        }
    }

    /// A new connection starts a new count: what was unacked on the old one died with its queue,
    /// and so did what waited there.
    pub(crate) fn reset(&mut self) {
        self.unacked = 0;
        self.forget_stall();
    }

    /// Deliveries have arrived.
    pub(crate) fn arrived(&mut self, count: usize) {
        self.unacked += count;
        self.arrived += count as u64;
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
        let mut keep = match self.isolating_since {
            Some(_) => 0,
            None => self.wanted_unacked(memory.backlog),
        };
        if keep >= self.rules.prefetch {
            let stalled = self.stalled_since(memory.taken, now);
            if stalled.is_some_and(|since| {
                self.must_isolate(since, memory.taken, now, is_one_kept_waiting)
            }) {
                change = Some(Change::Began);
                self.isolating_since = Some(now);
                self.forget_stall();
                keep = 0;
            }
        } else if !self.marks.is_empty() {
            self.free_since.get_or_insert(now);
        }
        let released = self.unacked - keep;
        self.unacked = keep;
        (released, change)
    }

    fn forget_stall(&mut self) {
        self.marks.clear();
        self.free_since = None;
        self.look_again = None;
    }

    fn wanted_unacked(&self, backlog: usize) -> usize {
        self.unacked
            .min(backlog.saturating_sub(self.rules.local_capacity))
    }

    /// Credit is used up now. The mark since which something may have waited on the broker, if that
    /// is `stall_after` old.
    fn stalled_since(&mut self, taken: u64, now: Instant) -> Option<(Instant, u64)> {
        let stall_after = self.rules.stall_after?;
        if let Some(free_since) = self.free_since.take()
            && now.saturating_duration_since(free_since) >= quiet(stall_after)
        {
            self.marks.clear();
        }
        let age = |mark: &Mark| now.saturating_duration_since(mark.at);
        if self
            .marks
            .back()
            .is_none_or(|mark| age(mark) >= stall_after / MARKS)
        {
            self.marks.push_back(Mark {
                at: now,
                arrived_by: self.arrived.saturating_add(self.rules.remote_capacity),
                taken,
            });
        }
        // Of those that are old enough the newest says all.
        while let Some(oldest) = self.marks.front()
            && (oldest.arrived_by <= self.arrived
                || self
                    .marks
                    .get(1)
                    .is_some_and(|mark| age(mark) >= stall_after))
        {
            self.marks.pop_front();
        }
        let oldest = self.marks.front().filter(|mark| age(mark) >= stall_after)?;
        Some((oldest.at, oldest.taken))
    }

    fn must_isolate(
        &mut self,
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
        let stall_after = self.rules.stall_after.unwrap_or_default();
        self.look_again = (!kept_waiting).then(|| now + stall_after / MARKS);
        kept_waiting
    }

    /// Ends isolation if it lasts, whatever waits; says for how long it did.
    pub(crate) fn stop_isolating(&mut self, now: Instant) -> Option<Duration> {
        let since = self.isolating_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    fn end_isolation(&mut self, backlog: usize, now: Instant) -> Option<Change> {
        let since = self.isolating_since?;
        if !self.may_end(backlog) || now < self.ends_at(since) {
            return None;
        }
        let lasted = self.stop_isolating(now)?;
        Some(Change::Ended { lasted })
    }

    fn may_end(&self, backlog: usize) -> bool {
        backlog <= (self.rules.local_capacity + self.rules.prefetch) / 2
    }

    /// Before this, not all may have arrived that had waited on the broker.
    fn ends_at(&self, since: Instant) -> Instant {
        since + quiet(self.rules.stall_after.unwrap_or_default())
    }

    /// When [`BackPressure::release`] is to be called even if nothing happens.
    pub(crate) fn next_change(&self, backlog: usize) -> Option<Instant> {
        if let Some(since) = self.isolating_since {
            return self.may_end(backlog).then(|| self.ends_at(since));
        }
        let oldest = self.marks.front().filter(|_| self.free_since.is_none())?;
        let stalled = oldest.at.checked_add(self.rules.stall_after?)?;
        Some(self.look_again.map_or(stalled, |at| at.max(stalled)))
    }

    /// Whether nothing is held back, and each channel is bounded by itself.
    pub(crate) fn is_isolating(&self) -> bool {
        self.isolating_since.is_some()
    }

    /// Deliveries that are unacked.
    pub(crate) fn unacked(&self) -> usize {
        self.unacked
    }
}

fn quiet(stall_after: Duration) -> Duration {
    (stall_after / QUIET).min(LONGEST_QUIET)
}

#[cfg(test)]
mod tests;
