//! How the publisher learns that publications wait.

use std::task::Waker;

use futures_util::task::AtomicWaker;

use crate::sync::atomic::{AtomicBool, Ordering};

/// Tells the publisher that publications wait; outlives connections.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    rung: AtomicBool,
    publisher: AtomicWaker,
}

impl Doorbell {
    /// Rings, and wakes the publisher if it does not know yet.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.publisher.wake();
        }
    }

    /// Whether it was rung since the last time.
    pub(super) fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// The task that is woken by a ring.
    pub(super) fn register(&self, publisher: &Waker) {
        self.publisher.register(publisher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_until_it_is_answered() {
        let bell = Doorbell::default();
        assert!(!bell.answer());
        bell.ring();
        bell.ring();
        assert!(bell.answer());
        assert!(!bell.answer());
    }
}
