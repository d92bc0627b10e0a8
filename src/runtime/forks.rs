//! Forks: that there was one is seen without a system call, and some calls keep it out.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

static FORKS: AtomicU64 = AtomicU64::new(0);

/// Forks are counted from here on.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Has the loader call [`watch_forks`]: before the host can have a thread that uses the library
/// while another forks.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = watch_forks;

/// How many forks are under way, and how many calls that none may come into.
static FORKING: AtomicU64 = AtomicU64::new(0);
static SHIELDED: AtomicU64 = AtomicU64::new(0);

/// How long a fork waits for such a call, each of which takes microseconds.
const FORK_WAITS: u32 = 100;
const A_MOMENT: Duration = Duration::from_millis(1);

/// Calls `body` while this process does not fork: in the child, a lock of the system's that another
/// thread held at that moment would stay locked for ever.
pub(crate) fn without_forks<R>(body: impl FnOnce() -> R) -> R {
    watch_forks();
    loop {
        SHIELDED.fetch_add(1, Ordering::SeqCst);
        if FORKING.load(Ordering::SeqCst) == 0 {
            break;
        }
        SHIELDED.fetch_sub(1, Ordering::SeqCst);
        std::thread::sleep(A_MOMENT);
    }
    let result = body();
    SHIELDED.fetch_sub(1, Ordering::SeqCst);
    result
}

extern "C" fn watch_forks() {
    extern "C" fn before() {
        FORKING.fetch_add(1, Ordering::SeqCst);
        // Not for ever: the thread that forks may itself hold what such a call waits for, as in a
        // constructor that the loader runs.
        for _ in 0..FORK_WAITS {
            if SHIELDED.load(Ordering::SeqCst) == 0 {
                break;
            }
            std::thread::sleep(A_MOMENT);
        }
    }
    extern "C" fn in_parent() {
        FORKING.fetch_sub(1, Ordering::SeqCst);
    }
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // Other threads, and what they were about, are not here.
        FORKING.store(0, Ordering::SeqCst);
        SHIELDED.store(0, Ordering::SeqCst);
    }
    if !WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handlers only change atomics and sleep, which is allowed in a forked child
        // too, and the library is linked so that it is never unloaded.
        let refused =
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        debug_assert_eq!(refused, 0, "pthread_atfork fails only without memory");
        WATCHED.store(true, Ordering::Release);
    }
}

/// How many forks lie between the first process that used the library and this one. A number that
/// has changed says that what was made before belongs to a parent. Costs no system call.
pub(crate) fn process_generation() -> u64 {
    // For a program whose linker has left `AT_LOAD` out of the static library. No once-cell: a
    // child that is forked while another thread fills it would wait for ever. Two threads may both
    // come by here, and a fork then counts twice, which is a change as well.
    watch_forks();
    FORKS.load(Ordering::Relaxed)
}

/// A value of the process that a forked child sees fresh.
///
/// The parent's value may be in any state when it forks, its locks held by threads that the child
/// does not have. So the child never touches it, and leaks it.
pub(crate) struct ProcessLocal<T>(AtomicPtr<Slot<T>>);

struct Slot<T> {
    generation: u64,
    value: T,
}

impl<T: Default + Send + Sync> ProcessLocal<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Calls `body` with this process's value.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let generation = process_generation();
        let mut current = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: the pointer is NULL or came from `Box::into_raw` below and is never freed.
            match unsafe { current.as_ref() } {
                Some(slot) if slot.generation == generation => return body(&slot.value),
                _ => {}
            }
            let fresh = Box::into_raw(Box::new(Slot {
                generation,
                value: T::default(),
            }));
            match self
                .0
                .compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => current = fresh,
                Err(winner) => {
                    // SAFETY: `fresh` came from `Box::into_raw` and nobody else has seen it.
                    drop(unsafe { Box::from_raw(fresh) });
                    current = winner;
                }
            }
        }
    }
}

/// Runs `body` in a forked child, as the only thread of it; whether it returned `true` there.
#[cfg(test)]
pub(crate) fn in_forked_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `body` and ends, without the destructors of its parent.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that hangs is ended by the signal.
        unsafe { libc::alarm(20) };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends this process.
        unsafe { libc::_exit(i32::from(!matches!(outcome, Ok(true)))) };
    }
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    (ended, status) == (child, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_watched_from_the_time_of_loading() {
        // Each test has its process with nextest; else another may have been here before.
        assert!(WATCHED.load(Ordering::Acquire));
        assert!(in_forked_child(|| FORKS.load(Ordering::Relaxed) == 1));
        assert!(!in_forked_child(|| FORKS.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_process_local_value_is_made_once() {
        static VALUE: ProcessLocal<AtomicU64> = ProcessLocal::new();
        VALUE.with(|value| value.fetch_add(1, Ordering::Relaxed));
        assert_eq!(VALUE.with(|value| value.load(Ordering::Relaxed)), 1);
    }
}
