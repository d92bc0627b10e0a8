//! What the broker may ask of a layer, and what its dispatcher runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::broker::{
    BindingChange, BindingEpoch, BrokerState, Delivery, Earlier, Generation, Host, Outcome,
    Publication, Token,
};
use crate::dispatch::{self, Runner, Turn};
use crate::error::panic_text;
use crate::log::RecordId;
use crate::sync::atomic::Ordering;

use super::callback_time::CallbackTime;
use super::shared::{AfterDone, Job, Shared};

impl Host for Shared {
    fn take_publications(&self, limit: usize, batch: &mut Vec<Publication>) {
        let taken = self.outbox.take(limit, batch);
        if let Some(at) = taken.next_release {
            self.timekeeper.arm(at);
        }
        self.sends_released(taken.released);
    }

    fn publications_ended(&self, batch: &mut Vec<(Token, Outcome)>) {
        let _concluding = self.concluding.lock();
        let ended = self.outbox.outcomes(batch, &self.counters);
        self.complete_sends(ended);
    }

    fn publishing_changed(&self, is_up: bool) {
        let released = self.outbox.publishing_changed(is_up, Instant::now());
        self.sends_released(released);
        if is_up {
            // A broker that was restarted may have another.
            self.broker_limit.store(usize::MAX, Ordering::Relaxed);
        }
    }

    fn publishers_blocked(&self, blocked: bool) {
        self.outbox.set_blocked(blocked);
        let (id, what) = if blocked {
            (
                RecordId::PublishersBlocked,
                "blocks publishers, for want of memory or disk",
            )
        } else {
            (RecordId::PublishersUnblocked, "takes messages again")
        };
        self.log(id, format!("the broker {what}"));
    }

    fn size_limit_learned(&self, bytes: usize) {
        self.broker_limit.store(bytes, Ordering::Relaxed);
    }

    fn begin_generation(&self, generation: Generation, queue: &str) {
        self.own_queues.begin(queue);
        self.link.begin(generation);
        let mut local = self.inbox.local.lock();
        local.generation = generation;
        local.back_pressure.reset();
    }

    fn bind_all(&self, epoch: BindingEpoch, earlier: Earlier) -> Vec<BindingChange> {
        let (changes, ended, renewal) = {
            let mut local = self.inbox.local.lock();
            local.binding_epoch = epoch;
            let (changes, waiters) = local.groups.connected(earlier, Instant::now());
            let waits = waiters.into_iter();
            let ended: Vec<_> = waits.filter_map(|w| local.waits.remove(w)).collect();
            (changes, ended, local.groups.next_renewal())
        };
        if let Some(at) = renewal {
            self.timekeeper.arm(at);
        }
        for wait in ended {
            self.complete(wait.completion, Ok(()));
        }
        changes
    }

    fn deliver(&self, generation: Generation, batch: &mut Vec<Delivery>) -> usize {
        self.take_deliveries(generation, batch)
    }

    fn bindings_proven(&self, epoch: BindingEpoch) {
        let mut local = self.inbox.local.lock();
        if local.binding_epoch == epoch {
            local.groups.proven();
        }
    }

    fn bindings_lost(&self) {
        self.inbox.local.lock().groups.disconnected();
    }

    fn deliveries_requeued(&self, generation: Generation) {
        let mut local = self.inbox.local.lock();
        if local.generation == generation {
            local.back_pressure.reset();
        }
    }

    fn bindings_changed(&self, epoch: BindingEpoch, done: Vec<BindingChange>) {
        self.bindings_done(epoch, done);
    }

    fn state_changed(&self, state: BrokerState) {
        let refused = matches!(state, BrokerState::Refused(_));
        let is_ready = matches!(state, BrokerState::Ready(_));
        let now = Instant::now();
        let concluding = self.concluding.lock();
        let (ended, released) = self.outbox.link_changed(&state, now, &self.counters);
        self.link.set(state, |state, generation| {
            self.tell_state(state, generation)
        });
        self.complete_sends(ended);
        drop(concluding);
        self.sends_released(released);
        if is_ready && self.outbox.is_waiting() {
            // What it asked for before this was not given: it is told again, and the timekeeper too.
            self.broker().publications_waiting();
        }
        if refused {
            self.end_waits_without_a_queue();
        }
    }

    fn log(&self, id: RecordId, message: String) {
        Shared::log(self, id, message);
    }
}

impl Runner for Shared {
    type Job = Job;

    fn run(&self, turn: &mut Turn<Job>) {
        let _inside = dispatch::enter_callback();
        let mut time = CallbackTime::begin(Instant::now());
        let mut next = turn.next();
        while let Some((job, most)) = next {
            next = match job {
                Job::Mailbox(key) => self.run_mailboxes((key, most), turn, &mut time),
                Job::Outcome => {
                    let ran = self.tell_outcome();
                    turn.ran(ran, None);
                    turn.next()
                }
                Job::Events => {
                    let guard = |call: &mut dyn FnMut()| self.run_user_code("a hook", call);
                    let (ran, due) = self.events.run(most, guard);
                    turn.ran(ran, due.then_some(Job::Events));
                    turn.next()
                }
            };
            time.after(turn.callbacks(), &self.counters);
        }
        time.tell(turn.callbacks(), Instant::now(), &self.counters);
    }
}

impl Shared {
    /// Tells the callback of an async call how it ended; how many were told.
    fn tell_outcome(&self) -> usize {
        let Some(outcome) = self.outcomes.lock().pop_front() else {
            return 0;
        };
        let done = outcome.done;
        self.run_user_code("the callback of an async call", || {
            done.done(outcome.result);
        });
        match outcome.after {
            AfterDone::Nothing => {}
            AfterDone::FreePlace => self.outbox.free_place(),
            AfterDone::KeepPromise => self.dispatcher.keep_promise(),
        }
        1
    }

    pub(super) fn run_user_code(&self, what: &str, body: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            self.log(
                RecordId::CallbackPanicked,
                format!("{what} panicked: {}", panic_text(&*panic)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::layer::testing::{Log, open_on_memory};
    use crate::layer::{Flow, Hooks, Layer, OnState, State};
    use crate::message::Message;
    use crate::stats::Stat;
    use crate::wire;

    #[test]
    fn connections_after_the_first_are_reconnects_and_what_nobody_knows_is_a_sum() {
        let layer = open_on_memory("reconnects");
        assert_eq!(layer.stat(Stat::Reconnects), 0);
        layer.shared.begin_generation(2, "q");
        layer.shared.begin_generation(3, "q");
        assert_eq!(layer.stat(Stat::Generation), 3);
        assert_eq!(layer.stat(Stat::Reconnects), 2);

        layer.shared.counters.add(Stat::SendsTimedOut, 2);
        layer.shared.counters.add(Stat::SendsUnconfirmed, 3);
        assert_eq!(layer.stat(Stat::SendsUnknown), 5);

        assert_eq!(layer.stat(Stat::Ready), 1);
        layer
            .shared
            .state_changed(BrokerState::Disconnected("cut".to_owned()));
        assert_eq!(layer.stat(Stat::Ready), 0);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    /// Whether the next message of `channel` is an empty one.
    fn next_is_empty(layer: &Layer, channel: &str) -> bool {
        let message = layer
            .receive_next(channel, Duration::from_secs(20))
            .unwrap();
        let value: BTreeMap<String, String> = message.body().value().unwrap();
        value.is_empty()
    }

    #[test]
    fn sends_that_waited_for_a_connection_are_released_without_another_call() {
        for settle in ["0", "0.05"] {
            let mut config = Config::new();
            let name = format!("memory://released-after-{settle}");
            config.set("host", &name).unwrap();
            config.set("settle", settle).unwrap();
            let (layer, other) = (Layer::new(&config).unwrap(), Layer::new(&config).unwrap());
            layer.wait_ready(Duration::from_secs(20)).unwrap();
            let channel = layer.new_channel(None).unwrap();
            layer
                .shared
                .state_changed(BrokerState::Disconnected("cut".to_owned()));
            for _ in 0..100 {
                let empty = [0x80];
                let accepted = layer.send_async(&channel, &empty, |_| ());
                assert!(accepted.is_ok());
            }
            // The broker has asked for what there is, and was given nothing: it asks before it delivers.
            for _ in 0..2 {
                other.send_json(&channel, r#"{"from": "other"}"#).unwrap();
                assert!(!next_is_empty(&layer, &channel));
            }
            assert_eq!(layer.stat(Stat::InFlight), 100);
            layer.shared.state_changed(BrokerState::Ready(1));
            for _ in 0..100 {
                assert!(next_is_empty(&layer, &channel));
            }
            for layer in [layer, other] {
                layer.close(Duration::from_secs(20)).unwrap();
            }
        }
    }

    #[test]
    fn deliveries_held_of_a_lost_connection_hold_no_credit_of_the_next() {
        let mut config = Config::new();
        config.set("host", "memory://credit").unwrap();
        for (option, value) in [("local_capacity", "0"), ("stall_after", "0")] {
            config.set(option, value).unwrap();
        }
        let layer = Layer::new(&config).unwrap();
        layer.wait_ready(Duration::from_secs(20)).unwrap();
        let channel = layer.new_channel(None).unwrap();
        let deliver = |generation| {
            let body = wire::encode(b"\x80", wire::Recipient::Channel(&channel), usize::MAX);
            let mut batch = vec![Delivery {
                body: body.unwrap(),
                redelivered: false,
            }];
            layer.shared.deliver(generation, &mut batch)
        };
        for held in 1..=3 {
            assert_eq!(deliver(1), 0);
            assert_eq!(layer.stat(Stat::DeliveriesHeld), held);
        }
        layer.shared.begin_generation(2, "queue");
        assert_eq!(layer.stat(Stat::DeliveriesHeld), 0);
        assert_eq!(deliver(2), 0);
        assert_eq!(layer.stat(Stat::DeliveriesHeld), 1);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    /// Panics the first time that it is called.
    #[derive(Default)]
    struct PanicsOnce(AtomicBool);

    impl OnState for PanicsOnce {
        fn state(&self, _: State, _: u64) {
            let has_panicked = self.0.swap(true, Ordering::Relaxed);
            assert!(has_panicked, "a panic on purpose");
        }
    }

    /// A layer, and the ids of what it logs.
    fn logging(name: &str, on_state: Option<Arc<dyn OnState>>) -> (Layer, Log) {
        let log = Log::default();
        let hooks = Hooks {
            on_state,
            ..log.hooks()
        };
        let mut config = Config::new();
        config.set("host", &format!("memory://{name}")).unwrap();
        let layer = Layer::with_hooks(&config, hooks).unwrap();
        layer.wait_ready(Duration::from_secs(20)).unwrap();
        (layer, log)
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_receiver_that_panics_ends_and_is_logged_and_the_layer_goes_on() {
        let (layer, log) = logging("receiver-panics", None);
        let channel = layer.new_channel(None).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let receiver = move |_: &Message| -> Flow {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("a panic on purpose");
        };
        layer.receive(&channel, receiver).unwrap();
        layer.send_json(&channel, r#"{"n": 1}"#).unwrap();
        until("the receiver ends", || layer.stat(Stat::Receivers) == 0);
        until("it is logged", || {
            log.count(RecordId::ReceiverPanicked) == 1
        });
        assert_eq!(Arc::strong_count(&calls), 1, "the receiver was not dropped");

        // The next message is for others.
        layer.send_json(&channel, "{}").unwrap();
        assert!(next_is_empty(&layer, &channel));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        layer.close(Duration::from_secs(20)).unwrap();
        assert_eq!(log.count(RecordId::ReceiverPanicked), 1);
    }

    #[test]
    fn the_callback_of_an_async_call_may_panic_and_frees_its_permit() {
        let (layer, log) = logging("done-panics", None);
        let channel = layer.new_channel(None).unwrap();
        let accepted = layer.send_async(&channel, b"\x80", |_| panic!("a panic on purpose"));
        assert!(accepted.is_ok());
        until("its permit is free", || layer.stat(Stat::InFlight) == 0);
        until("it is logged", || {
            log.count(RecordId::CallbackPanicked) == 1
        });
        let accepted = layer.group_add_async("group", &channel, |_| panic!("a panic on purpose"));
        assert!(accepted.is_ok());
        until("it is logged", || {
            log.count(RecordId::CallbackPanicked) == 2
        });
        assert!(next_is_empty(&layer, &channel));
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_hook_that_panics_is_logged_and_called_again() {
        let hook = Arc::new(PanicsOnce::default());
        let (layer, log) = logging("hook-panics", Some(hook));
        until("it is logged", || {
            log.count(RecordId::CallbackPanicked) == 1
        });
        // The next change of state, and a record of it.
        layer.close(Duration::from_secs(20)).unwrap();
        assert_eq!(log.count(RecordId::CallbackPanicked), 1);
    }
}
