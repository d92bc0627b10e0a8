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
        self.link
            .close(|state, generation| self.tell_state(state, generation));
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
        let (ended, released) = self.outbox.close(Instant::now(), &self.counters);
        self.complete_sends(ended);
        self.sends_released(released);
        // What was held may be taken now.
        self.broker().publications_waiting();
        // Closed first, so that no wait begins which nobody would end.
        self.end_receivers();
        self.end_waits();

        let left = deadline.saturating_duration_since(Instant::now());
        self.outbox
            .wait_empty(deadline.checked_sub(left / RESERVE).unwrap_or(deadline));
        let left = deadline.saturating_duration_since(Instant::now());
        self.runtime.handle().block_on(self.broker().close(left));
        let ended = self.outbox.end_all(&self.counters);
        let unconfirmed = !ended.is_empty();
        self.complete_sends(ended);
        let tasks = std::mem::take(&mut self.closing.progress.lock().tasks);
        for task in tasks {
            task.abort();
            // It holds the layer for moments only, and then never again.
            let _ = self.runtime.handle().block_on(task);
        }
        self.closing.wait_for_calls(deadline);

        if self.dispatcher.polled() {
            self.wait_until_polled(deadline);
            self.dispatcher.stop();
        } else {
            self.dispatcher.stop();
            self.dispatcher.join(deadline);
        }
        let mut progress = self.closing.progress.lock();
        progress.done = true;
        progress.unconfirmed = unconfirmed;
        drop(progress);
        self.closing.changed.notify_all();
    }

    /// Waits until all callbacks have run, on threads that poll or that wait for the end.
    fn wait_until_polled(&self, deadline: Instant) {
        loop {
            if self.closing.progress.lock().abandoned {
                self.dispatcher.drain(self, deadline);
            }
            if !self.dispatcher.busy() || Instant::now() >= deadline {
                return;
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
                let unconfirmed = std::mem::take(&mut progress.unconfirmed);
                drop(progress);
                join(worker);
                // Callbacks that were late when the layer closed may have ended since.
                if self.dispatcher.polled() {
                    self.dispatcher.drain(&**self, deadline);
                }
                let ended = self.dispatcher.join(deadline) && self.dispatcher.wait_idle(deadline);
                return if !ended {
                    Err(late(timeout))
                } else if unconfirmed {
                    Err(left_unconfirmed())
                } else {
                    Ok(())
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
        if dispatch::in_callback() {
            self.abandon();
            return Ok(());
        }
        // Not abandoned yet: with `dispatch=poll` callbacks belong on this thread.
        let closed = self.close(self.settings.timeout);
        self.abandon();
        closed
    }
}

impl Drop for Shared {
    /// What became due after the last thread that runs callbacks had gone, for instance by a
    /// callback that returned late: nothing is lost without its call.
    fn drop(&mut self) {
        if !self.is_forked() {
            let deadline = far(Instant::now(), self.settings.timeout);
            self.dispatcher.drain(self, deadline);
        }
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

fn left_unconfirmed() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the layer is closed, but the broker had not confirmed all sends by then: nobody knows \
         whether these arrived",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::layer::Layer;

    #[test]
    fn sends_that_were_left_unconfirmed_are_told_once_and_not_as_a_late_end() {
        let mut config = Config::new();
        config.set("host", "memory://left-unconfirmed").unwrap();
        let layer = Layer::new(&config).unwrap();
        let close = || layer.close(Duration::from_secs(20));
        close().unwrap();
        layer.shared.closing.progress.lock().unconfirmed = true;
        let error = close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("had not confirmed all sends"));
        close().unwrap();
    }
}
