//! What `crate::sync` and `tokio::sync` are to the library, made of loom's primitives.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// Atomics whose sequentially consistent operations are so for loom too, which by itself takes
/// them as acquire and release only. Fences around them make them at least as strong as they are,
/// so a bug that shows only where such operations meet weaker ones on another variable might be
/// missed here; nothing that is reported is false.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;

    fn fenced<R>(ordering: Ordering, operation: impl FnOnce() -> R) -> R {
        if ordering != Ordering::SeqCst {
            return operation();
        }
        loom::sync::atomic::fence(Ordering::SeqCst);
        let result = operation();
        loom::sync::atomic::fence(Ordering::SeqCst);
        result
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "each has all that the library uses of any")]
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.load(ordering))
                }

                pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                    if ordering == Ordering::SeqCst {
                        // loom takes a store to be possible amid another thread's exchange.
                        self.swap(value, ordering);
                    } else {
                        self.0.store(value, ordering);
                    }
                }

                pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.swap(value, ordering))
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    fenced(success, || {
                        self.0.compare_exchange(current, new, success, failure)
                    })
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(Default::default())
                }
            }
        };
    }

    macro_rules! number {
        ($name:ident, $value:ty) => {
            atomic!($name, $value);

            #[allow(dead_code, reason = "each has all that the library uses of any")]
            impl $name {
                pub(crate) fn fetch_add(&self, value: $value, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.fetch_add(value, ordering))
                }

                pub(crate) fn fetch_sub(&self, value: $value, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.fetch_sub(value, ordering))
                }

                pub(crate) fn fetch_or(&self, value: $value, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.fetch_or(value, ordering))
                }

                pub(crate) fn fetch_min(&self, value: $value, ordering: Ordering) -> $value {
                    fenced(ordering, || self.0.fetch_min(value, ordering))
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    fenced(set, || self.0.fetch_update(set, fetch, update))
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    number!(AtomicU8, u8);
    number!(AtomicU32, u32);
    number!(AtomicU64, u64);
    number!(AtomicUsize, usize);
}

#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap()))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

pub(crate) struct TimedOut;

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.0.take().unwrap();
        guard.0 = Some(self.0.wait(inner).unwrap());
    }

    /// No time passes here: whoever is not notified waits for ever, which loom reports.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> TimedOut {
        self.wait(guard);
        TimedOut
    }
}

/// tokio's, for one waiting task: a notification that comes first is kept.
pub(crate) struct Notify {
    notified: Mutex<bool>,
    waiting: crate::task::AtomicWaker,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self {
            notified: Mutex::new(false),
            waiting: crate::task::AtomicWaker::default(),
        }
    }

    pub(crate) fn notify_one(&self) {
        *self.notified.lock() = true;
        self.waiting.wake();
    }

    pub(crate) async fn notified(&self) {
        std::future::poll_fn(|cx| {
            self.waiting.register(cx.waker());
            if std::mem::take(&mut *self.notified.lock()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}
