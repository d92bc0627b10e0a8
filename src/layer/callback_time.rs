//! How many callbacks have run and how long they took, told to the statistics on the way.

use std::time::Instant;

use crate::stats::{Counters, Stat};

/// Reading the clock twice for each callback would be felt; a turn alone can take minutes.
const OFTEN: usize = 32;

/// What a turn has not told yet.
#[derive(Debug)]
pub(super) struct CallbackTime {
    told: usize,
    since: Instant,
}

impl CallbackTime {
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            told: 0,
            since: now,
        }
    }

    /// The turn goes on, `ran` callbacks of it having run.
    pub(super) fn after(&mut self, ran: usize, counters: &Counters) {
        if ran - self.told >= OFTEN {
            self.tell(ran, Instant::now(), counters);
        }
    }

    /// Tells what has run since it was told last.
    pub(super) fn tell(&mut self, ran: usize, now: Instant, counters: &Counters) {
        let spent = now.saturating_duration_since(self.since);
        counters.add(Stat::Callbacks, ran - self.told);
        counters.add_many(
            Stat::CallbackNanoseconds,
            u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX),
        );
        (self.told, self.since) = (ran, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_long_turn_is_told_on_the_way_and_nothing_of_it_twice() {
        let counters = Counters::new();
        let start = Instant::now();
        let mut time = CallbackTime::begin(start);
        time.after(OFTEN - 1, &counters);
        assert_eq!(counters.get(Stat::Callbacks), 0);
        time.after(OFTEN + 5, &counters);
        assert_eq!(counters.get(Stat::Callbacks), OFTEN as u64 + 5);
        time.after(2 * OFTEN + 4, &counters);
        assert_eq!(counters.get(Stat::Callbacks), OFTEN as u64 + 5);

        let end = start + Duration::from_secs(3600);
        time.tell(2 * OFTEN + 4, end, &counters);
        assert_eq!(counters.get(Stat::Callbacks), 2 * OFTEN as u64 + 4);
        assert_eq!(counters.get(Stat::CallbackNanoseconds), 3_600_000_000_000);
    }
}
