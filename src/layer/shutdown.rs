//! The end of a layer: once, within its time, whoever asks for it and from wherever.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dispatch;
use crate::error::{Error, ErrorKind};
use crate::runtime::spawn_thread;

use super::shared::{Shared, far};

/// The part of the time that is kept for what comes after waiting for confirms.
const RESERVE: u32 = 4;

impl Shared {
    /// Begins the shutdown, unless it has begun.
    pub(super) fn begin_shutdown(self: &Arc<Self>, timeout: Duration) {
        if !self.closing.begin() {
            return;
        }
        let deadline = far(Instant::now(), timeout);
        self.tell_state(self.link.close());
        // A thread of its own, for it waits: for the broker, for callbacks, for threads.
        let shared = Arc::clone(self);
        match spawn_thread("layer-shutdown".to_owned(), move || {
            shared.shut_down(deadline)
        }) {
            Ok(worker) => self.closing.progress.lock().worker = Some(worker),
            Err(_) => {
                let shared = Arc::clone(self);
                self.runtime
                    .handle()
                    .spawn_blocking(move || shared.shut_down(deadline));
            }
        }
    }

    fn shut_down(&self, deadline: Instant) {
        let ended = self.outbox.close(&self.counters);
        self.complete_sends(ended);
        // In this order: whoever waits learns it before its channel is gone.
        self.end_waits();
        self.end_receivers();

        let left = deadline.saturating_duration_since(Instant::now());
        let mut in_time = self
            .outbox
            .wait_empty(deadline.checked_sub(left / RESERVE).unwrap_or(deadline));
        let left = deadline.saturating_duration_since(Instant::now());
        self.runtime.handle().block_on(self.broker().close(left));
        let ended = self.outbox.end_all(&self.counters);
        in_time &= ended.is_empty();
        self.complete_sends(ended);
        let tasks = std::mem::take(&mut self.closing.progress.lock().tasks);
        for task in tasks {
            task.abort();
            // It holds the layer for moments only, and then never again.
            let _ = self.runtime.handle().block_on(task);
        }

        if self.dispatcher.polled() {
            in_time &= self.wait_until_polled(deadline);
            self.dispatcher.stop();
        } else {
            self.dispatcher.stop();
            in_time &= self.dispatcher.join(deadline);
        }
        let mut progress = self.closing.progress.lock();
        progress.done = true;
        progress.in_time = in_time;
        drop(progress);
        self.closing.changed.notify_all();
    }

    /// Waits until all callbacks have run, on threads that poll or that wait for the end.
    fn wait_until_polled(&self, deadline: Instant) -> bool {
        loop {
            if self.closing.progress.lock().abandoned {
                self.dispatcher.drain(self, deadline);
            }
            if !self.dispatcher.busy() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            // Woken by the end of callbacks; `abandoned` is looked at now and then.
            let look = Instant::now() + Duration::from_millis(20);
            self.dispatcher.wait_idle(look.min(deadline));
        }
    }

    pub(super) fn close(self: &Arc<Self>, timeout: Duration) -> Result<(), Error> {
        self.begin_shutdown(timeout);
        if dispatch::in_callback() {
            return Ok(());
        }
        let deadline = far(Instant::now(), timeout);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.dispatcher.polled() && !self.closing.done() {
                // Nobody else may be polling.
                self.dispatcher.poll(&**self, 0, left);
            }
            let mut progress = self.closing.progress.lock();
            if !progress.done && !self.dispatcher.polled() {
                self.closing.changed.wait_until(&mut progress, deadline);
            }
            if progress.done {
                let worker = progress.worker.take();
                let in_time = progress.in_time;
                drop(progress);
                join(worker);
                // What was late when the layer closed may have ended since.
                return if in_time || self.dispatcher.join(deadline) {
                    Ok(())
                } else {
                    Err(late(timeout))
                };
            }
            if Instant::now() >= deadline {
                return Err(late(timeout));
            }
        }
    }

    /// Nobody will use the layer again: it closes in the background.
    pub(super) fn abandon(self: &Arc<Self>) {
        self.closing.progress.lock().abandoned = true;
        self.begin_shutdown(self.settings.timeout);
    }

    /// Closes if need be, and ends what is left; nobody will use the layer again.
    pub(super) fn finish(self: &Arc<Self>) -> Result<(), Error> {
        self.closing.progress.lock().abandoned = true;
        let closed = self.close(self.settings.timeout);
        if !dispatch::in_callback() && self.dispatcher.polled() {
            self.dispatcher
                .drain(&**self, far(Instant::now(), self.settings.timeout));
        }
        closed
    }
}

fn join(worker: Option<JoinHandle<()>>) {
    if let Some(worker) = worker {
        // It has said that it is done, and runs no user code after that.
        let joined = worker.join();
        debug_assert!(joined.is_ok(), "the shutdown of a layer panicked");
    }
}

fn late(timeout: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "the layer is closed, but not all had ended within {timeout:?}: a callback is still \
             running, or the broker did not answer"
        ),
    )
}
