//! Locks that a panic does not poison and a fork does not break, and the atomics of algorithms of our
//! own, in whose place tests/sanitize/loom puts some that try every order.
//!
//! They are those of std, which are words in the value itself. A lock that keeps its waiting
//! threads in a table of the process would be unusable in a forked child, where that table names
//! threads that are not there.

use std::ops::{Deref, DerefMut};
pub(crate) use std::sync::atomic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, TryLockError};
use std::time::Instant;

/// A mutex. A panic inside leaves the value as it was left: each holder keeps it whole at all times.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// The right to the value of a [`Mutex`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<std::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// `None` where another thread has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard(Some(guard)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(guard) => guard,
            None => unreachable!("a guard is empty only inside a wait"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(guard) => guard,
            None => unreachable!("a guard is empty only inside a wait"),
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

/// A condition variable for a [`Mutex`]. To notify where nobody waits is no system call, which with
/// std's alone it is.
///
/// Who waits has counted itself under the lock. So whoever has changed what is waited for, under
/// the same lock, and notifies then or later, sees it counted.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    inner: std::sync::Condvar,
    waiting: AtomicUsize,
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self {
            inner: std::sync::Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn notify_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.inner.notify_one();
        }
    }

    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.inner.notify_all();
        }
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        guard.0 = guard.0.take().map(|inner| {
            self.inner
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner)
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until `deadline` at the longest.
    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> TimedOut {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return TimedOut(true);
        }
        let mut timed_out = false;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        guard.0 = guard.0.take().map(|inner| {
            let (inner, result) = self
                .inner
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner);
            timed_out = result.timed_out();
            inner
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        TimedOut(timed_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_panic_inside_leaves_the_lock_usable() {
        let mutex = Arc::new(Mutex::new(1));
        let other = Arc::clone(&mutex);
        let thread = std::thread::spawn(move || {
            let _guard = other.lock();
            panic!("inside");
        });
        assert!(thread.join().is_err());
        *mutex.lock() += 1;
        assert_eq!(*mutex.lock(), 2);
    }

    #[test]
    fn a_wait_ends_by_a_notification_or_by_its_deadline() {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let mut guard = pair.0.lock();
        assert!(pair.1.wait_until(&mut guard, Instant::now()).timed_out());
        let other = Arc::clone(&pair);
        let thread = std::thread::spawn(move || {
            *other.0.lock() = true;
            other.1.notify_all();
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while !*guard {
            assert!(!pair.1.wait_until(&mut guard, deadline).timed_out());
        }
        drop(guard);
        assert!(thread.join().is_ok());
    }
}
