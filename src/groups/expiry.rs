//! When memberships expire: lists of those that expire at the same tick.
//!
//! A membership expires [`TICKS`]ths of `group_expiry` late at most. So that adding again costs the
//! same however many there are, and one that was renewed by being used need not stand behind those
//! that were added since.

use std::time::{Duration, Instant};

/// Into how many ticks `group_expiry` is divided.
pub(super) const TICKS: u32 = 64;

/// More than can be in use at once, from the tick that is due to that of a membership made now.
const LISTS: usize = 2 * TICKS as usize;

/// Counts ticks since the first membership.
type Tick = u64;

/// Names the list of a tick.
pub(super) type List = u8;

/// The first entry of each list, `T`. The entries themselves link to each other.
#[derive(Debug)]
pub(super) struct Ticks<T> {
    start: Instant,
    width: Duration,
    lists: Box<[Option<T>; LISTS]>,
    /// The lists of this tick and of all before it were emptied.
    swept: Tick,
}

impl<T: Copy> Ticks<T> {
    pub(super) fn new(start: Instant, expiry: Duration) -> Self {
        Self {
            start,
            // Of no width, ticks could not be counted.
            width: (expiry / TICKS).max(Duration::from_micros(1)),
            lists: Box::new([None; LISTS]),
            swept: 0,
        }
    }

    /// The list of what expires at `at`: of a tick that is not before `at`, and that was not looked
    /// at already.
    pub(super) fn list_of(&self, at: Instant) -> List {
        let since = nanoseconds(at.saturating_duration_since(self.start));
        list(since.div_ceil(nanoseconds(self.width)).max(self.swept + 1))
    }

    /// Where a list begins.
    pub(super) fn first_mut(&mut self, list: List) -> &mut Option<T> {
        &mut self.lists[usize::from(list) % LISTS]
    }

    /// Empties the list of the next tick that is over at `now`, and gives its first entry; `None`
    /// if all such lists are empty.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let since = nanoseconds(now.saturating_duration_since(self.start));
        let over = since / nanoseconds(self.width);
        // Each list is looked at once, whatever time has passed.
        self.swept = self.swept.max(over.saturating_sub(LISTS as Tick));
        while self.swept < over {
            self.swept += 1;
            if let Some(first) = self.first_mut(list(self.swept)).take() {
                return Some(first);
            }
        }
        None
    }

    /// When the next list that is not empty is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let mut ticks = self.swept + 1..=self.swept + LISTS as Tick;
        let tick = ticks.find(|tick| self.lists[usize::from(list(*tick)) % LISTS].is_some())?;
        let since = nanoseconds(self.width).saturating_mul(tick);
        self.start.checked_add(Duration::from_nanos(since))
    }
}

fn list(tick: Tick) -> List {
    (tick % LISTS as Tick) as List
}

/// Of 584 years at most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
