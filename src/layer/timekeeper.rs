//! Whatever ends by the clock: one task that sleeps until the next thing is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Not to wake for the same moment again and again.
const GRAIN: Duration = Duration::from_millis(1);

const UNARMED: u64 = u64::MAX;

/// When the task looks at the clock next.
pub(super) struct Timekeeper {
    start: Instant,
    /// In nanoseconds since `start`.
    armed: AtomicU64,
    rearmed: Notify,
}

impl Timekeeper {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            armed: AtomicU64::new(UNARMED),
            rearmed: Notify::new(),
        }
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since).unwrap_or(UNARMED - 1)
    }

    /// Something is due at `at`. Nearly always the task would wake before anyway.
    pub(super) fn arm(&self, at: Instant) {
        let at = self.nanoseconds(at);
        if at < self.armed.load(Ordering::SeqCst) && at < self.armed.fetch_min(at, Ordering::SeqCst)
        {
            self.rearmed.notify_one();
        }
    }

    /// The task. `end_due` ends what is due, `next_due` says when the next thing is; both say
    /// `None` once the layer is gone.
    pub(super) async fn run(
        self: Arc<Self>,
        end_due: impl Fn(Instant) -> Option<()>,
        next_due: impl Fn() -> Option<Option<Instant>>,
    ) {
        loop {
            if end_due(Instant::now()).is_none() {
                return;
            }
            // Unarmed first: what is armed from here on is seen below or wakes us.
            self.armed.store(UNARMED, Ordering::SeqCst);
            let Some(next) = next_due() else {
                return;
            };
            if let Some(next) = next {
                self.armed
                    .fetch_min(self.nanoseconds(next), Ordering::SeqCst);
            }

            self.armed_moment().await;
        }
    }

    /// Sleeps until the moment that is armed. It stays armed though what was due then may be over by
    /// now: else each message that comes alone would arm it anew, and wake the task for it.
    async fn armed_moment(&self) {
        loop {
            let armed = self.armed.load(Ordering::SeqCst);
            if armed == UNARMED {
                self.rearmed.notified().await;
                continue;
            }
            let until = self.start + Duration::from_nanos(armed);
            let until = until.max(Instant::now() + GRAIN);
            let nearer = self.rearmed.notified();
            if tokio::time::timeout_at(until.into(), nearer).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[tokio::test]
    async fn the_task_sleeps_until_the_next_thing_is_due() {
        let keeper = Arc::new(Timekeeper::new());
        let due = Instant::now() + Duration::from_millis(200);
        let wakes = AtomicU32::new(0);
        let end_due = |now: Instant| {
            wakes.fetch_add(1, Ordering::SeqCst);
            (now < due).then_some(())
        };
        keeper.run(end_due, || Some(Some(due))).await;
        // At the start and at its end. One more, since the timers of tokio count milliseconds.
        assert!((2..=3).contains(&wakes.load(Ordering::SeqCst)));
    }
}
