//! How a thread that sleeps until one of its descriptors is ready is woken by others.

use std::io;
use std::sync::Arc;
use std::task::Wake;

use crate::runtime::EventFd;
use crate::sync::atomic::{AtomicU8, Ordering};

/// The thread runs, and checks for work before it sleeps.
const AWAKE: u8 = 0;
/// It sleeps, or is about to: the event fd has to be raised.
const ASLEEP: u8 = 1;
/// It has to check for work once more before it sleeps.
const NOTIFIED: u8 = 2;

/// Whether one thread sleeps, and whether it was notified.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct Wakeup {
    state: AtomicU8,
    alarm: EventFd,
}

impl Wakeup {
    pub(in crate::broker::rabbitmq) fn new() -> io::Result<Self> {
        Ok(Self {
            state: AtomicU8::new(AWAKE),
            alarm: EventFd::new()?,
        })
    }

    /// Wakes the thread, or has it check once more before it sleeps. A system call only if it sleeps.
    pub(in crate::broker::rabbitmq) fn notify(&self) {
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            self.alarm.raise();
        }
    }

    /// On the thread: it goes to sleep, unless it was notified since [`Wakeup::awake`].
    pub(super) fn may_sleep(&self) -> bool {
        let asleep = self
            .state
            .compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        asleep.is_ok()
    }

    /// On the thread: it runs, and checks for all kinds of work next. What was written before a
    /// notification is visible then.
    pub(super) fn awake(&self) {
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Raised to wake the thread.
    pub(super) fn alarm(&self) -> &EventFd {
        &self.alarm
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_was_woken_looks_once_more_before_it_sleeps() {
        let wakeup = Wakeup::new().unwrap();
        wakeup.notify();
        assert!(!wakeup.may_sleep());
        wakeup.awake();
        assert!(wakeup.may_sleep());
    }
}
