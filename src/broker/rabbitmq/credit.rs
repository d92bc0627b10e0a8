//! Deliveries that the layer lets go, on their way to the consumer that acks them.

use std::task::Waker;

use futures_util::task::AtomicWaker;

use crate::broker::Generation;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Deliveries that the layer lets go by [`crate::broker::Broker::resume`], on their way to the
/// consumer; outlives connections.
///
/// One word holds the low halves of generation and count, so that a count of an earlier
/// generation cannot be mixed in.
#[derive(Debug, Default)]
pub(super) struct Credit {
    word: AtomicU64,
    /// The consumer is woken when the count reaches this.
    wake_at: AtomicU32,
    consumer: AtomicWaker,
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn join(generation: Generation, count: u32) -> u64 {
    (generation << 32) | u64::from(count)
}

impl Credit {
    /// Forgets what was let go before and counts for `generation`.
    pub(super) fn begin(&self, generation: Generation) {
        self.word.store(join(generation, 0), Ordering::SeqCst);
    }

    /// Adds to the count, if it is that of `generation`.
    pub(super) fn add(&self, generation: Generation, count: usize) {
        let more = u32::try_from(count).unwrap_or(u32::MAX);
        let add = |word| {
            let (current, count) = split(word);
            (current == generation as u32).then(|| join(generation, count.saturating_add(more)))
        };
        let Ok(before) = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add)
        else {
            return;
        };
        let (_, before) = split(before);
        let wake_at = self.wake_at.load(Ordering::SeqCst);
        // The first one starts the consumer's timer; those in between need not wake it.
        if before == 0 || (before < wake_at && before.saturating_add(more) >= wake_at) {
            self.consumer.wake();
        }
    }

    /// The count so far.
    pub(super) fn count(&self) -> u32 {
        split(self.word.load(Ordering::SeqCst)).1
    }

    /// Takes the count, if it is that of `generation`.
    pub(super) fn take(&self, generation: Generation) -> u32 {
        let take = |word| (split(word).0 == generation as u32).then(|| join(generation, 0));
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .map_or(0, |word| split(word).1)
    }

    /// The task that is woken by the first of a count, and by the one that makes it `wake_at`.
    pub(super) fn register(&self, consumer: &Waker) {
        self.consumer.register(consumer);
    }

    /// Sets what is urgent. To be called before [`Credit::count`], so that what is added later
    /// sees it.
    pub(super) fn wake_at(&self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.wake_at.store(count, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn credit_wakes_for_the_first_and_for_the_urgent_one() {
        let credit = Credit::default();
        credit.begin(7);
        credit.wake_at(4);
        let wakes = Arc::new(Wakes::default());
        let mut seen = Vec::new();
        for _ in 0..6 {
            credit.register(&Arc::clone(&wakes).into());
            credit.add(7, 1);
            seen.push(wakes.0.swap(0, Ordering::SeqCst));
        }
        assert_eq!(seen, [1, 0, 0, 1, 0, 0]);
        assert_eq!(credit.take(7), 6);
        assert_eq!(credit.count(), 0);
    }

    #[test]
    fn credit_of_another_generation_is_void() {
        let credit = Credit::default();
        credit.begin(1);
        credit.add(1, 3);
        credit.begin(2);
        credit.add(1, 5);
        assert_eq!(credit.count(), 0);
        credit.add(2, 1);
        assert_eq!(credit.take(1), 0);
        assert_eq!(credit.take(2), 1);
        credit.add(2, usize::MAX);
        credit.add(2, 1);
        assert_eq!(credit.take(2), u32::MAX);
    }
}
