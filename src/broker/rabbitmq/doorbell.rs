//! How the publisher learns that publications wait.

use crate::sync::atomic::{AtomicBool, Ordering};

/// Says whether publications wait that the publisher does not know of; outlives connections.
#[derive(Debug, Default)]
pub(super) struct Doorbell(AtomicBool);

impl Doorbell {
    /// Rings. `true` if the publisher does not know yet, and has to be woken.
    pub(super) fn ring(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Whether it was rung since the last time.
    pub(super) fn answer(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_until_it_is_answered() {
        let bell = Doorbell::default();
        assert!(!bell.answer());
        assert!(bell.ring());
        assert!(!bell.ring());
        assert!(bell.answer());
        assert!(!bell.answer());
    }
}
