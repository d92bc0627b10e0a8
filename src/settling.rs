//! What waits to be published, and how it is released after a lost connection.
//!
//! Processes that lose a broker together come back one after the other. What is published before the
//! others have bound their groups is confirmed and reaches nobody. So what waited for a connection is
//! held for the option `settle` once the connection is back, and then released in batches that grow. What
//! is sent meanwhile stays behind it, so that order is kept. Nothing is held beyond its own time: what
//! would otherwise expire goes early, with all that stands before it.
//!
//! | phase | what may be taken |
//! |---|---|
//! | new, lost | nothing |
//! | open | all |
//! | settling | what must go for its deadline |
//! | releasing | the same, or a batch each [`INTERVAL`]; halved where queues are full |
//!
//! A queue that has run empty is open again, and a layer that does not lose a connection never leaves that
//! phase. Before the first connection nothing is taken either: the own queue is not there yet. A connection that could not be made counts as lost: the broker was away for others too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A process with the default capacities holds about 200 messages that nobody has taken, and the
/// slowest receivers in use, in Python, take 3,000 a second. Batches begin at half of that rate. They
/// double, so that 10,000 sends, the default of `max_in_flight`, are gone in 2 s, and so that no rate of
/// new sends keeps the queue from running empty.
const FIRST_BATCH: usize = 16;
const INTERVAL: Duration = Duration::from_millis(10);
const DOUBLES_EACH: Duration = Duration::from_millis(500);

/// A queue that is full shows that batches are too large for its process: they are halved, and keep their
/// size for this long. Refusals that come within an interval are of the same batches.
const HALVED_FOR: Duration = Duration::from_secs(1);
const REFUSALS_APART: Duration = Duration::from_millis(200);

/// A queue that stays full, since nobody reads it, is not to keep the others waiting: refusals count for
/// this long.
const REFUSALS_COUNT_FOR: Duration = Duration::from_secs(4);

/// What is left of the time of a send for the broker to confirm it: a quarter, and no more than this.
const TO_CONFIRM: Duration = Duration::from_millis(250);

/// Sends that were held and are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Released {
    /// Those that had waited for the connection.
    pub(crate) waited: usize,
    /// Those that came later, and were held so that they stayed behind.
    pub(crate) behind: usize,
    /// From the connection to the last of them.
    pub(crate) took: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Neither a connection nor a failure was reported.
    New,
    Open,
    Lost,
    Settling {
        ends: Instant,
    },
    Releasing(Pace),
}

/// How fast entries are released.
#[derive(Debug, Clone, Copy)]
struct Pace {
    began: Instant,
    next_batch: Instant,
    batch: usize,
    grows: Instant,
    /// Since the last batch was halved, so much is over that it may be again.
    may_halve: Instant,
    /// Of the batch that began last.
    left: usize,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            next_batch: now,
            batch: FIRST_BATCH,
            grows: now + DOUBLES_EACH,
            may_halve: now,
            left: 0,
        }
    }

    /// How many may go now. What was not taken of a batch is not added to the next: a broker that blocked
    /// us for a while gets no burst by it.
    fn permitted(&mut self, now: Instant) -> usize {
        if self.grows <= now {
            self.batch = self.batch.saturating_mul(2);
            self.grows = now + DOUBLES_EACH;
        }
        if self.next_batch <= now {
            self.left = self.batch;
            self.next_batch = now + INTERVAL;
        }
        self.left
    }

    /// A queue was full.
    fn refused(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.began);
        if self.may_halve <= now && since < REFUSALS_COUNT_FOR {
            self.batch = (self.batch / 2).max(FIRST_BATCH);
            self.grows = now + HALVED_FOR;
            self.may_halve = now + REFUSALS_APART;
        }
    }
}

#[derive(Debug)]
struct Entry<T> {
    /// When it must go for its own deadline.
    own: Instant,
    /// When it must go for that of its own or of one behind it. Kept only while entries are released.
    release_by: Instant,
    item: T,
}

/// What waits to be published, oldest first.
#[derive(Debug)]
pub(crate) struct SettlingQueue<T> {
    entries: VecDeque<Entry<T>>,
    phase: Phase,
    /// `None`: what waited is released at once.
    settle: Option<Duration>,
    /// How long before its deadline an entry must go.
    margin: Duration,
    /// The broker was told that it may take something, and has not asked since.
    is_notified: bool,
    /// When the connection came back, while what waited for it is held or released.
    ready: Option<Instant>,
    /// How many entries, from the first, had waited for it.
    waited: usize,
    released: Released,
}

const NONE_RELEASED: Released = Released {
    waited: 0,
    behind: 0,
    took: Duration::ZERO,
};

impl<T> SettlingQueue<T> {
    /// `timeout` is how long each send has from its call to its confirm.
    pub(crate) fn new(settle: Option<Duration>, timeout: Duration) -> Self {
        Self {
            entries: VecDeque::new(),
            phase: Phase::New,
            settle,
            margin: (timeout / 4).min(TO_CONFIRM),
            is_notified: false,
            ready: None,
            waited: 0,
            released: NONE_RELEASED,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether all may be taken, so that nobody needs to ask how many.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Adds `item`, which ends at `deadline` if it was not taken. Returns when it is due: it must go
    /// then, or it ends.
    pub(crate) fn push(&mut self, item: T, deadline: Instant) -> Instant {
        let own = deadline.checked_sub(self.margin).unwrap_or(deadline);
        let is_released = self.ready.is_some();
        if is_released {
            // Nearly all have equally long, so that this is a look at one.
            let before = self.entries.iter_mut().rev();
            for before in before.take_while(|before| before.release_by > own) {
                before.release_by = own;
            }
        }
        self.entries.push_back(Entry {
            own,
            release_by: own,
            item,
        });
        if is_released { own } else { deadline }
    }

    /// The connection is lost, or could not be made. Returns what was released since the one before.
    pub(crate) fn lost(&mut self, now: Instant) -> Option<Released> {
        let released = self.end(now);
        self.phase = Phase::Lost;
        released
    }

    /// The connection is back. If it was not lost nothing changes. What `is_live` does not hold for has
    /// ended.
    pub(crate) fn ready(&mut self, now: Instant, mut is_live: impl FnMut(&T) -> bool) {
        match self.phase {
            Phase::New => {
                self.phase = Phase::Open;
                return;
            }
            Phase::Lost => {}
            Phase::Open | Phase::Settling { .. } | Phase::Releasing(_) => return,
        }
        self.entries.retain(|entry| is_live(&entry.item));
        self.is_notified = false;
        self.phase = match self.settle {
            Some(settle) if !self.entries.is_empty() => {
                let mut behind = None;
                for entry in self.entries.iter_mut().rev() {
                    entry.release_by = behind.map_or(entry.own, |behind| entry.own.min(behind));
                    behind = Some(entry.release_by);
                }
                self.ready = Some(now);
                self.waited = self.entries.len();
                Phase::Settling {
                    ends: now.checked_add(settle).unwrap_or(now),
                }
            }
            _ => Phase::Open,
        };
    }

    /// All may be taken from now on. Returns what was released so far, if anything was held.
    pub(crate) fn open(&mut self, now: Instant) -> Option<Released> {
        let released = self.end(now);
        self.phase = Phase::Open;
        released
    }

    /// How many may be taken now, up to `limit`.
    pub(crate) fn permitted(&mut self, now: Instant, limit: usize) -> usize {
        self.is_notified = false;
        if let Phase::Settling { ends } = self.phase
            && ends <= now
        {
            self.phase = Phase::Releasing(Pace::new(now));
        }
        let batch = match &mut self.phase {
            Phase::Open => return limit,
            Phase::New | Phase::Lost => return 0,
            Phase::Settling { .. } => 0,
            Phase::Releasing(pace) => pace.permitted(now),
        };
        let due = self.entries.iter().take(limit);
        let due = due.take_while(|entry| entry.release_by <= now).count();
        batch.max(due).min(limit)
    }

    /// Takes the first for which `is_live` holds, and drops those before it. The caller has asked how
    /// many are permitted.
    pub(crate) fn pop(&mut self, mut is_live: impl FnMut(&T) -> bool) -> Option<T> {
        while let Some(entry) = self.entries.pop_front() {
            let has_waited = self.waited > 0;
            self.waited = self.waited.saturating_sub(1);
            if !is_live(&entry.item) {
                continue;
            }
            if self.ready.is_some() {
                if has_waited {
                    self.released.waited += 1;
                } else {
                    self.released.behind += 1;
                }
                if let Phase::Releasing(pace) = &mut self.phase {
                    pace.left = pace.left.saturating_sub(1);
                }
            }
            return Some(entry.item);
        }
        None
    }

    /// Drops from the front what `is_live` does not hold for.
    pub(crate) fn drop_ended(&mut self, mut is_live: impl FnMut(&T) -> bool) {
        while let Some(first) = self.entries.front()
            && !is_live(&first.item)
        {
            self.entries.pop_front();
            self.waited = self.waited.saturating_sub(1);
        }
    }

    /// Opens the queue if it was held and has run empty. Returns what was released.
    pub(crate) fn opened_when_empty(&mut self, now: Instant) -> Option<Released> {
        if self.ready.is_none() || !self.entries.is_empty() {
            return None;
        }
        self.open(now)
    }

    /// A queue was full and refused something that was taken.
    pub(crate) fn refused(&mut self, now: Instant) {
        if let Phase::Releasing(pace) = &mut self.phase {
            pace.refused(now);
        }
    }

    /// When batches grow next, while entries are released.
    #[cfg(test)]
    pub(crate) fn grows_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Releasing(pace) => Some(pace.grows),
            _ => None,
        }
    }

    /// When the broker is to be told that it may take something.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        let first = self.entries.front().filter(|_| !self.is_notified)?;
        match self.phase {
            Phase::New | Phase::Open | Phase::Lost => None,
            Phase::Settling { ends: at } | Phase::Releasing(Pace { next_batch: at, .. }) => {
                Some(at.min(first.release_by))
            }
        }
    }

    /// Whether the broker is to be told now; it is told once.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_release().is_some_and(|at| at <= now);
        self.is_notified |= is_due;
        is_due
    }

    /// Ends what began with the last connection.
    fn end(&mut self, now: Instant) -> Option<Released> {
        let ready = self.ready.take()?;
        self.waited = 0;
        let mut released = std::mem::replace(&mut self.released, NONE_RELEASED);
        released.took = now.saturating_duration_since(ready);
        (released.waited + released.behind > 0).then_some(released)
    }
}

#[cfg(test)]
mod tests;
