//! How far the end of a layer has come.
//!
//! | flag | says | set |
//! |---|---|---|
//! | `Closing::begun` | a call that begins now is refused | first |
//! | `Link::closed`, `Outbox::closed`, `Local::closed` | what waits there is ended, and nothing is added | next |
//! | `Closing::calls` is 0 | no call that began before can still give the dispatcher work | then |
//! | `Dispatcher::stopping` | callback threads end once nothing is due | then |
//! | `Progress::done` | only callbacks that do not return are left | last |

use std::thread::JoinHandle;
use std::time::Instant;

use tokio::task::JoinHandle as Task;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct Progress {
    pub(super) done: bool,
    /// Sends were left without a confirm.
    pub(super) left_unconfirmed: bool,
    /// They were, and nobody has been told.
    pub(super) unconfirmed: bool,
    /// Nobody will poll any more: what is due is run by the thread that ends the layer.
    pub(super) abandoned: bool,
    pub(super) worker: Option<JoinHandle<()>>,
    /// Tasks that end with the layer.
    pub(super) tasks: Vec<Task<()>>,
}

/// How far the end of a layer has come.
pub(super) struct Closing {
    begun: AtomicBool,
    calls: AtomicUsize,
    pub(super) progress: Mutex<Progress>,
    pub(super) changed: Condvar,
}

/// A call under way, which may give the dispatcher work.
pub(super) struct InCall<'a>(&'a Closing);

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.not_begun() {
            // Under the lock, or the one that waits could miss it.
            drop(self.0.progress.lock());
            self.0.changed.notify_all();
        }
    }
}

impl Closing {
    pub(super) fn new() -> Self {
        Self {
            begun: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Begins a call; `None` if the end has begun.
    pub(super) fn enter(&self) -> Option<InCall<'_>> {
        // Counted before the look, so that the end either sees the call or refuses it.
        self.calls.fetch_add(1, Ordering::SeqCst);
        let call = InCall(self);
        self.not_begun().then_some(call)
    }

    /// Waits until no call is under way, at most until `deadline`.
    pub(super) fn wait_for_calls(&self, deadline: Instant) {
        let mut progress = self.progress.lock();
        while self.calls.load(Ordering::SeqCst) > 0 {
            if self.changed.wait_until(&mut progress, deadline).timed_out() {
                return;
            }
        }
    }

    /// Begins the end; `false` if it has begun.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::SeqCst)
    }

    pub(super) fn not_begun(&self) -> bool {
        !self.begun.load(Ordering::SeqCst)
    }

    pub(super) fn done(&self) -> bool {
        self.progress.lock().done
    }

    /// A task that ends with the layer.
    pub(super) fn stops(&self, task: Task<()>) {
        self.progress.lock().tasks.push(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn the_end_waits_for_calls_that_began_before_it_and_refuses_later_ones() {
        let closing = Arc::new(Closing::new());
        let call = closing.enter().unwrap();
        assert!(closing.begin());
        assert!(!closing.begin());
        assert!(closing.enter().is_none());
        closing.wait_for_calls(Instant::now());
        let other = Arc::clone(&closing);
        let waiter = std::thread::spawn(move || {
            other.wait_for_calls(Instant::now() + Duration::from_secs(60));
            other.calls.load(Ordering::SeqCst)
        });
        drop(call);
        assert_eq!(waiter.join().unwrap(), 0);
    }
}
