//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that double from 0.1 s to 1 s, each shortened by chance so that the processes that lost
/// a broker together do not come back together. While each host refuses the layer they go on to grow:
/// that will not pass by itself, and a hundred layers would fill the broker's log.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// The longest wait while refused.
    most: Duration,
}

impl Backoff {
    /// `most` bounds all waits.
    pub(super) fn new(most: Duration) -> Self {
        Self { next: FIRST, most }
    }

    /// The next wait.
    pub(super) fn next(&mut self, is_refused: bool) -> Duration {
        self.next_by(is_refused, fastrand::f64())
    }

    /// The same where `chance`, from 0 to 1, was drawn.
    fn next_by(&mut self, is_refused: bool, chance: f64) -> Duration {
        let most = if is_refused {
            self.most
        } else {
            self.most.min(LONGEST)
        };
        let longest = self.next.min(most);
        self.next = (longest * 2).min(most);
        longest.mul_f64(1.0 - 0.3 * chance.clamp(0.0, 1.0))
    }

    /// The next wait is a short one again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_second_and_chance_only_shortens_them() {
        let mut backoff = Backoff::new(Duration::from_secs(30));
        let mut waits = |count, is_refused| -> Vec<u128> {
            (0..count)
                .map(|_| backoff.next_by(is_refused, 0.0).as_millis())
                .collect()
        };
        assert_eq!(waits(6, false), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(
            waits(7, true),
            [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(waits(2, false), [1000, 1000], "it is not refused any more");
        assert_eq!(backoff.next_by(false, 1.0), Duration::from_millis(700));
        backoff.reset();
        assert_eq!(backoff.next_by(true, 0.5), Duration::from_millis(85));
    }

    #[test]
    fn no_wait_is_longer_than_the_option_says() {
        let mut backoff = Backoff::new(Duration::from_millis(300));
        let waits = [false, true, false, true].map(|refused| backoff.next_by(refused, 0.0));
        assert_eq!(waits.map(|wait| wait.as_millis()), [100, 200, 300, 300]);
    }

    #[test]
    fn waits_of_many_processes_spread_over_their_whole_range() {
        let mut waits: Vec<_> = std::iter::repeat_with(|| {
            let mut backoff = Backoff::new(Duration::from_secs(30));
            backoff.next(false).as_micros()
        })
        .take(200)
        .collect();
        waits.sort_unstable();
        // That none of 200 falls into a third of the range happens once in 10^35 runs.
        let (shortest, longest) = (waits[0], waits[199]);
        assert!((70_000..80_000).contains(&shortest), "{shortest}");
        assert!((90_000..=100_000).contains(&longest), "{longest}");
    }
}
