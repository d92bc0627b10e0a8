//! The name of the own queue: what to do where an earlier queue of that name stands in the way.
//!
//! The queue of a lost connection may outlive it: for moments, while the broker cleans up; on
//! RabbitMQ 4.3 for as long as the node is away that it was on, and then nothing frees its name. So the
//! name is looked for first, passively: to declare it may take the connection where its process is dead.

use std::time::{Duration, Instant};

/// How often to look while the name is taken.
const PAUSE: Duration = Duration::from_millis(200);

/// How long to wait for the name before another one is taken. A broker that only cleans up releases it
/// within milliseconds, or once it has noticed that a node is gone; who waits longer is deaf for longer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long to wait where there is no answer: the broker may be slow, and the name free.
const SILENCE: Duration = Duration::from_secs(5);

/// What a look for a queue has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// There is no such queue.
    Free,
    /// There is one that this connection may use.
    Ours,
    /// There is one that belongs to another connection.
    Taken,
    /// The process of the queue, or the broker, does not answer.
    NoAnswer,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Declare,
    LookAgain(Duration),
    /// Take a new name.
    Rename,
}

/// How long the name has been taken.
#[derive(Debug, Default)]
pub(super) struct Past {
    taken_since: Option<Instant>,
}

impl Past {
    pub(super) fn after(&mut self, look: &Look, now: Instant) -> Step {
        let patience = match look {
            Look::Free | Look::Ours => {
                self.taken_since = None;
                return Step::Declare;
            }
            Look::Taken => PATIENCE,
            Look::NoAnswer => SILENCE,
        };
        let since = *self.taken_since.get_or_insert(now);
        if now.saturating_duration_since(since) < patience {
            return Step::LookAgain(PAUSE);
        }
        self.taken_since = None;
        Step::Rename
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_free_is_used_at_once() {
        let now = Instant::now();
        assert_eq!(Past::default().after(&Look::Free, now), Step::Declare);
        assert_eq!(Past::default().after(&Look::Ours, now), Step::Declare);
    }

    #[test]
    fn a_name_that_stays_taken_is_given_up_after_its_time() {
        let start = Instant::now();
        let mut now = start;
        let mut past = Past::default();
        while let Step::LookAgain(pause) = past.after(&Look::Taken, now) {
            now += pause;
        }
        assert!((PATIENCE..PATIENCE + PAUSE).contains(&(now - start)));
        let next = past.after(&Look::Taken, now);
        assert_eq!(
            next,
            Step::LookAgain(PAUSE),
            "the new name has its own time"
        );
    }

    #[test]
    fn a_broker_that_does_not_answer_has_more_time() {
        let start = Instant::now();
        let mut past = Past::default();
        past.after(&Look::NoAnswer, start);
        let next = past.after(&Look::NoAnswer, start + 2 * PATIENCE);
        assert_eq!(next, Step::LookAgain(PAUSE));
        assert_eq!(past.after(&Look::NoAnswer, start + SILENCE), Step::Rename);
    }

    #[test]
    fn a_name_that_was_free_in_between_has_its_whole_time_again() {
        let now = Instant::now();
        let mut past = Past::default();
        past.after(&Look::Taken, now);
        past.after(&Look::Free, now + PATIENCE / 2);
        let next = past.after(&Look::Taken, now + 2 * PATIENCE);
        assert_eq!(next, Step::LookAgain(PAUSE));
    }
}
