//! The end of a layer: once, within its time, whoever asks for it and from wherever.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dispatch;
use crate::error::{Error, ErrorKind};
use crate::log::RecordId;
use crate::runtime::spawn_thread;
use crate::sync::Mutex;

use super::callback_time::CallbackTime;
use super::callbacks::{Done, Rejected};
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
        if let Some(number) = self.dispatcher.lost_fd() {
            self.log(RecordId::DescriptorLost, descriptor_lost(number));
        }
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
        // Who has taken an outcome before is about to make it due, and nothing is due behind the end.
        drop(self.concluding.lock());
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
        progress.left_unconfirmed = unconfirmed;
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
                    self.run_what_was_promised(deadline);
                }
                let ended = self.callbacks_have_ended(deadline) && self.close_calls.wait(deadline);
                return how_it_closed(ended, unconfirmed, timeout);
            }
            if Instant::now() >= deadline {
                return Err(late(timeout));
            }
        }
    }

    /// Runs the outcomes of calls that close without waiting, with `dispatch=poll`.
    fn run_what_was_promised(&self, deadline: Instant) {
        while self.dispatcher.has_promises() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.dispatcher.poll(self, 0, left);
        }
    }

    fn callbacks_have_ended(&self, deadline: Instant) -> bool {
        self.dispatcher.join(deadline) && self.dispatcher.wait_idle(deadline)
    }

    /// Begins the shutdown, unless it has begun, and has a thread wait in the caller's place. With
    /// `dispatch=poll` the outcome is told by whoever polls, else by that thread: the layer's own
    /// have ended by then, or are kept by a callback that does not return.
    pub(super) fn close_async<D: Done>(
        self: &Arc<Self>,
        timeout: Duration,
        done: D,
        spawn: impl FnOnce(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<(), Rejected<D>> {
        if self.is_forked() {
            return Err(Rejected {
                error: Error::forked(),
                callback: done,
            });
        }
        let deadline = far(Instant::now(), timeout);
        // Where the thread finds it, and where it is still if there is no thread.
        let place = Arc::new(Mutex::new(Some(done)));
        let (shared, its_place) = (Arc::clone(self), Arc::clone(&place));
        let again = self.closing.done();
        let wait_and_tell = Box::new(move || {
            let result = shared.wait_closed(deadline, timeout, again);
            let done = its_place.lock().take();
            if let Some(done) = done {
                shared.tell_closed(done, result);
            }
            shared.close_calls.has_told();
        });
        if self.dispatcher.polled() {
            self.dispatcher.promise();
        }
        let started = self
            .close_calls
            .start(|| spawn("layer-close".to_owned(), wait_and_tell));
        if let Err(error) = started {
            if self.dispatcher.polled() {
                self.dispatcher.keep_promise();
            }
            let error = Error::new(
                ErrorKind::Internal,
                "the system gives no thread for closing: the layer is as it was",
            )
            .caused_by(error);
            return match place.lock().take() {
                Some(callback) => Err(Rejected { error, callback }),
                None => unreachable!("nobody else takes what a thread that is none was to take"),
            };
        }
        self.begin_shutdown(timeout);
        Ok(())
    }

    /// Waits until the layer is closed and its callbacks have ended, and runs none of them. `again`: it
    /// was closed before.
    fn wait_closed(&self, deadline: Instant, timeout: Duration, again: bool) -> Result<(), Error> {
        let mut progress = self.closing.progress.lock();
        while !progress.done {
            let timed_out = self.closing.changed.wait_until(&mut progress, deadline);
            if timed_out.timed_out() && !progress.done {
                return Err(late(timeout));
            }
        }
        let worker = progress.worker.take();
        // Who asked before the end is told, whoever else was told already.
        let untold = std::mem::take(&mut progress.unconfirmed);
        let unconfirmed = untold || (progress.left_unconfirmed && !again);
        drop(progress);
        join(worker);
        if self.dispatcher.polled() {
            self.wait_until_polled(deadline);
        }
        let ended = self.callbacks_have_ended(deadline);
        how_it_closed(ended, unconfirmed, timeout)
    }

    fn tell_closed<D: Done>(&self, done: D, result: Result<(), Error>) {
        if self.dispatcher.polled() {
            self.complete_close(Box::new(done), result);
            if self.closing.progress.lock().abandoned {
                // Nobody polls any more.
                self.dispatcher
                    .drain(self, far(Instant::now(), self.settings.timeout));
            }
            return;
        }
        let _inside = dispatch::enter_callback();
        let mut time = CallbackTime::begin(Instant::now());
        self.run_user_code("the callback of a close", || Box::new(done).done(result));
        time.tell(1, Instant::now(), &self.counters);
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
        // Here, so that it is closed once this has returned, whoever still has a part of the layer.
        self.dispatcher.retire_fd();
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

fn how_it_closed(ended: bool, unconfirmed: bool, timeout: Duration) -> Result<(), Error> {
    if !ended {
        Err(late(timeout))
    } else if unconfirmed {
        Err(left_unconfirmed())
    } else {
        Ok(())
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

fn descriptor_lost(number: RawFd) -> String {
    format!(
        "the program has closed descriptor {number}, which layer_fd gave it and the layer owns; what \
         has that number now is not touched"
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
    use crate::broker::Host;
    use crate::config::Config;
    use crate::layer::Layer;
    use crate::layer::testing::{Silent, open_on_memory};
    use crate::stats::Stat;

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

    #[test]
    fn a_close_without_a_thread_to_wait_has_changed_nothing_and_gives_its_callback_back() {
        for mode in ["thread", "poll"] {
            let mut config = Config::new();
            config.set("host", "memory://no-thread-to-wait").unwrap();
            config.set("dispatch", mode).unwrap();
            let layer = Layer::new(&config).unwrap();
            layer.wait_ready(Duration::from_secs(20)).unwrap();
            let called = Arc::new(Mutex::new(false));
            let its_called = Arc::clone(&called);
            let done = move |_: Result<(), Error>| *its_called.lock() = true;
            let refused = layer
                .shared
                .close_async(Duration::from_secs(20), done, |_, _| {
                    Err(io::ErrorKind::WouldBlock.into())
                });
            let rejected = refused.unwrap_err();
            assert_eq!(rejected.error.kind(), ErrorKind::Internal);
            assert!(!*called.lock());
            (rejected.callback)(Ok(()));
            assert!(*called.lock());
            layer.new_channel(None).unwrap();
            assert!(!layer.shared.dispatcher.has_promises());
            layer.close(Duration::from_secs(20)).unwrap();
        }
    }

    #[test]
    fn every_callback_has_run_when_close_returns_though_the_broker_confirms_nothing() {
        const SENDS: usize = 100;
        let (layer, broker) = Silent::open(true, &[]);
        let (ended, outcomes) = std::sync::mpsc::channel();
        for _ in 0..SENDS {
            let ended = ended.clone();
            let accepted = layer.send_async("queue!channel", b"\x80", move |result| {
                ended.send(result).unwrap();
            });
            assert!(accepted.is_ok());
        }
        let timeout = Duration::from_millis(400);
        let error = layer.close(timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let kinds: Vec<_> = outcomes
            .try_iter()
            .map(|outcome| outcome.unwrap_err().kind())
            .collect();
        assert_eq!(kinds, [ErrorKind::Unconfirmed; SENDS]);
        // A part of the time is kept for the broker, and for callbacks.
        let left = broker.closed_within.lock().unwrap();
        assert!(left > timeout / 8 && left < timeout / 2, "{left:?}");
    }

    #[test]
    fn each_close_that_began_before_the_end_is_told_of_sends_without_a_confirm() {
        let (layer, _broker) = Silent::open(true, &[]);
        assert!(layer.send_async("queue!channel", b"\x80", |_| ()).is_ok());
        let (ended, outcomes) = std::sync::mpsc::channel();
        let close = |timeout| {
            let ended = ended.clone();
            let accepted = layer.close_async(timeout, move |result: Result<(), Error>| {
                ended.send(result.map_err(|error| error.kind())).unwrap();
            });
            assert!(accepted.is_ok());
        };
        let next = || outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
        // The first call gives the shutdown its time, and the second one has more.
        close(Duration::from_millis(300));
        close(Duration::from_secs(20));
        assert_eq!(next(), Err(ErrorKind::Timeout));
        assert_eq!(next(), Err(ErrorKind::Timeout));
        close(Duration::from_secs(20));
        assert_eq!(next(), Ok(()));
    }

    #[test]
    fn tasks_of_a_layer_have_ended_when_close_returns() {
        struct Ended(Arc<Mutex<bool>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                *self.0.lock() = true;
            }
        }
        let (layer, _broker) = Silent::open(true, &[]);
        let has_ended = Arc::new(Mutex::new(false));
        let ended = Ended(Arc::clone(&has_ended));
        let task = layer.shared.runtime.handle().spawn(async move {
            let _ended = ended;
            std::future::pending().await
        });
        layer.shared.closing.stops(task);
        assert!(!*has_ended.lock());
        layer.close(Duration::from_secs(20)).unwrap();
        assert!(*has_ended.lock());
    }

    #[test]
    fn the_end_waits_for_outcomes_that_were_taken_and_are_not_due_yet() {
        let (layer, _broker) = Silent::open(true, &[]);
        let concluding = layer.shared.concluding.lock();
        layer.shared.begin_shutdown(Duration::ZERO);
        // Nothing tells that it waits.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!layer.shared.closing.done());
        drop(concluding);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_close_waits_on_though_it_is_woken_before_the_end() {
        let layer = open_on_memory("woken-early");
        let call = layer.shared.enter().unwrap();
        let (ended, outcome) = std::sync::mpsc::channel();
        let accepted = layer.close_async(Duration::from_secs(20), move |result| {
            ended.send(result).unwrap();
        });
        assert!(accepted.is_ok());
        // Nothing tells whether its thread waits already.
        for _ in 0..100 {
            layer.shared.closing.changed.notify_all();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(outcome.try_recv().is_err());
        drop(call);
        let outcome = outcome.recv_timeout(Duration::from_secs(20)).unwrap();
        outcome.unwrap();
    }

    #[test]
    fn a_thread_whose_send_the_broker_blocks_is_told_busy_at_its_deadline() {
        let (layer, _broker) = Silent::open(false, &[("timeout", "0.2")]);
        layer.shared.publishers_blocked(true);
        let begin = Instant::now();
        let error = layer.send("queue!channel", b"\x80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(begin.elapsed() >= Duration::from_millis(200));
        assert_eq!(layer.stat(Stat::InFlight), 0);
        layer.close(Duration::from_secs(20)).unwrap();
    }
}
