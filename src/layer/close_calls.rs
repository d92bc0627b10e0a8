//! Calls that close a layer without waiting: a thread for each, which waits and tells `done`.
//!
//! A thread of its own, since the others end with the layer: what `done` is told is known only then.

use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::sync::{Condvar, Mutex};

#[derive(Default)]
struct Inner {
    /// Threads that have not told yet.
    under_way: usize,
    threads: Vec<JoinHandle<()>>,
}

/// The calls of one layer.
#[derive(Default)]
pub(super) struct CloseCalls {
    inner: Mutex<Inner>,
    told: Condvar,
}

impl CloseCalls {
    /// Starts the thread of a call, which is to end with [`CloseCalls::has_told`].
    pub(super) fn start(
        &self,
        spawn: impl FnOnce() -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        // Under the lock, so that no thread has told before it is counted.
        let mut inner = self.inner.lock();
        let thread = spawn()?;
        inner.under_way += 1;
        inner.threads.push(thread);
        // What has ended is not kept for the end of the layer, which may be far.
        let (ended, left) = std::mem::take(&mut inner.threads)
            .into_iter()
            .partition(JoinHandle::is_finished);
        inner.threads = left;
        drop(inner);
        join(ended);
        Ok(())
    }

    /// The thread of a call has told its outcome, and runs no user code any more.
    pub(super) fn has_told(&self) {
        self.inner.lock().under_way -= 1;
        self.told.notify_all();
    }

    /// Waits until all have told and their threads have ended; `false` if one had not told by
    /// `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let mut inner = self.inner.lock();
        while inner.under_way > 0 {
            if self.told.wait_until(&mut inner, deadline).timed_out() && inner.under_way > 0 {
                return false;
            }
        }
        let threads = std::mem::take(&mut inner.threads);
        drop(inner);
        join(threads);
        true
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let joined = thread.join();
        debug_assert!(joined.is_ok(), "a call that closes a layer panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_ends_once_all_have_told_or_at_its_deadline() {
        let calls = Arc::new(CloseCalls::default());
        assert!(calls.wait(Instant::now()));
        let (go_on, gate) = mpsc::channel::<()>();
        let its_calls = Arc::clone(&calls);
        calls
            .start(|| {
                thread::Builder::new().spawn(move || {
                    gate.recv().unwrap();
                    its_calls.has_told();
                })
            })
            .unwrap();
        assert!(!calls.wait(Instant::now()));
        go_on.send(()).unwrap();
        assert!(calls.wait(Instant::now() + Duration::from_secs(60)));
        assert!(calls.inner.lock().threads.is_empty());
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_not_waited_for() {
        let calls = CloseCalls::default();
        let refused = calls.start(|| Err(io::ErrorKind::WouldBlock.into()));
        assert!(refused.is_err());
        assert!(calls.wait(Instant::now()));
    }
}
