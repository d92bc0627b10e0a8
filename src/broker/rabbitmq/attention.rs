//! How a thread is told to look up, wherever it is.

use crate::sync::atomic::{AtomicU8, Ordering};

/// There is work for it.
pub(super) const WORK: u8 = 1;
/// Somebody else has given lapin something to write.
pub(super) const FRAMES: u8 = 2;

/// Where the thread is, or how it is woken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    /// At work. It looks before it leaves.
    Busy,
    /// Waiting for its socket and its alarm.
    Asleep,
    /// With lapin, which wakes it when its waker is.
    Parked,
    /// Nowhere, for good.
    Gone,
}

impl Place {
    const ALL: [Self; 4] = [Self::Busy, Self::Asleep, Self::Parked, Self::Gone];
}

/// What one thread was told, and where it is.
///
/// Whoever tells it something first says so and then looks where it is; the thread first says where
/// it is going and then looks whether it was told something. In the one order that all agree on, one
/// of the two sees the other.
#[derive(Debug)]
pub(super) struct Attention {
    told: AtomicU8,
    place: AtomicU8,
}

impl Attention {
    /// For a thread that is with lapin.
    pub(super) fn new() -> Self {
        Self {
            told: AtomicU8::new(0),
            place: AtomicU8::new(Place::Busy as u8),
        }
    }

    /// Tells the thread; returns where it has to be woken, which is nowhere if it is busy or has
    /// been woken for the same before.
    pub(super) fn tell(&self, what: u8) -> Place {
        let before = self.told.fetch_or(what, Ordering::SeqCst);
        match self.place() {
            // Nobody takes anything any more.
            Place::Gone => Place::Gone,
            _ if before & what == what => Place::Busy,
            place => place,
        }
    }

    /// What the thread was told since the last time.
    pub(super) fn take(&self) -> u8 {
        self.told.swap(0, Ordering::SeqCst)
    }

    /// The thread goes to `place`. `false` if it was told something and had better stay.
    pub(super) fn go(&self, place: Place) -> bool {
        self.place.store(place as u8, Ordering::SeqCst);
        let may_go = self.told.load(Ordering::SeqCst) == 0;
        if !may_go {
            self.come_back();
        }
        may_go
    }

    /// The thread is at work again.
    pub(super) fn come_back(&self) {
        self.place.store(Place::Busy as u8, Ordering::SeqCst);
    }

    /// The thread ends.
    pub(super) fn leave(&self) {
        self.place.store(Place::Gone as u8, Ordering::SeqCst);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.place() == Place::Gone
    }

    fn place(&self) -> Place {
        let place = usize::from(self.place.load(Ordering::SeqCst));
        Place::ALL.get(place).copied().unwrap_or(Place::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sleeps_is_woken_once_and_who_is_busy_sees_for_himself() {
        let attention = Attention::new();
        assert_eq!(attention.tell(WORK), Place::Busy);
        assert!(!attention.go(Place::Asleep));
        assert_eq!(attention.take(), WORK);
        assert!(attention.go(Place::Asleep));
        assert_eq!(attention.tell(WORK), Place::Asleep);
        assert_eq!(attention.tell(WORK), Place::Busy);
        assert_eq!(attention.tell(FRAMES), Place::Asleep);
        attention.come_back();
        assert_eq!(attention.take(), WORK | FRAMES);
        assert!(attention.go(Place::Parked));
        assert_eq!(attention.tell(FRAMES), Place::Parked);
    }

    #[test]
    fn of_one_who_has_gone_each_is_told() {
        let attention = Attention::new();
        attention.leave();
        assert!(attention.is_gone());
        assert_eq!(attention.tell(WORK), Place::Gone);
        assert_eq!(attention.tell(WORK), Place::Gone);
    }
}
