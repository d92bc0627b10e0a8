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

    /// The next wait; `chance` is from 0 to 1.
    pub(super) fn next(&mut self, is_refused: bool, chance: f64) -> Duration {
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
                .map(|_| backoff.next(is_refused, 0.0).as_millis())
                .collect()
        };
        assert_eq!(waits(6, false), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(
            waits(7, true),
            [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(waits(2, false), [1000, 1000], "it is not refused any more");
        assert_eq!(backoff.next(false, 1.0), Duration::from_millis(700));
        backoff.reset();
        assert_eq!(backoff.next(true, 0.5), Duration::from_millis(85));
    }

    #[test]
    fn no_wait_is_longer_than_the_option_says() {
        let mut backoff = Backoff::new(Duration::from_millis(300));
        let waits = [false, true, false, true].map(|refused| backoff.next(refused, 0.0));
        assert_eq!(waits.map(|wait| wait.as_millis()), [100, 200, 300, 300]);
    }
}
