//! When groups that were taken over from an earlier link are bound once more.
//!
//! What a probe sees is lost all at once. What it cannot see is a single binding that an admin has deleted,
//! or that a cluster has forgotten which was split when it confirmed it. So all are made again, slowly: the
//! broker does as much for a binding that is there as for a new one.

use std::time::{Duration, Instant};

/// The pause between two batches.
const PAUSE: Duration = Duration::from_millis(500);

/// The least size of a batch.
const BATCH: u32 = 10;

/// After so many batches all are done, however many they are: that is ten minutes.
const BATCHES: u32 = 1200;

/// How far the renewal has come.
#[derive(Debug)]
pub(super) struct Renewal {
    /// The next id of a group; behind the last comes the first.
    at: u32,
    /// How many ids there are, and how many are left.
    count: u32,
    left: u32,
    batch: u32,
    next: Instant,
}

impl Renewal {
    /// Of all groups with ids up to `last`, beginning at `from`.
    pub(super) fn new(last: u32, from: u32, now: Instant) -> Self {
        let count = last.saturating_add(1);
        Self {
            at: from % count,
            count,
            left: count,
            batch: count.div_ceil(BATCHES).max(BATCH),
            next: now + PAUSE,
        }
    }

    /// The ids of the next batch, if it is time.
    pub(super) fn due(&mut self, now: Instant) -> Option<impl Iterator<Item = u32> + use<>> {
        if now < self.next {
            return None;
        }
        self.next = now + PAUSE;
        let (at, count) = (self.at, self.count);
        let some = self.batch.min(self.left);
        self.left -= some;
        self.at = (at + some) % count;
        Some((0..some).map(move |step| (at + step) % count))
    }

    /// Where the next one is to begin, if this one is not over.
    pub(super) fn reached(&self) -> u32 {
        self.at
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    pub(super) fn next_due(&self) -> Instant {
        self.next
    }
}
