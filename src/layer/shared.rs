//! The parts of one layer, and how its calls end.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use crate::broker::memory::Memory;
use crate::broker::rabbitmq::{RabbitMq, Tls};
use crate::broker::{Broker, Generation, Host};
use crate::config::{Config, Dispatch, Settings};
use crate::dispatch::Dispatcher;
use crate::endpoint::Hosts;
use crate::error::{Error, ErrorKind};
use crate::log::{Record, RecordId};
use crate::mailbox::MailboxKey;
use crate::name;
use crate::runtime::{self, Runtime};
use crate::settling::Released;
use crate::stats::{Counters, Stat};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

use super::callbacks::{Done, Hooks, Isolation, State};
use super::calls::{Completion, Waiter};
use super::close_calls::CloseCalls;
use super::closing::{Closing, InCall};
use super::events::{Events, Pushed};
use super::link::Link;
use super::local::Inbox;
use super::outbox::{Ended, Outbox, too_large_for_broker};
use super::own_queues::OwnQueues;
use super::timekeeper::Timekeeper;

/// What the dispatcher runs.
pub(super) enum Job {
    /// A channel has messages, or endings, for its receivers.
    Mailbox(MailboxKey),
    /// An async call has ended: its outcome is among [`Shared::outcomes`].
    Outcome,
    /// Log records or changes of state wait.
    Events,
}

/// What is due once the callback of an async call has run.
#[derive(Clone, Copy)]
pub(super) enum AfterDone {
    Nothing,
    /// It was a send, whose place was held until then.
    FreePlace,
    /// It was a close, for which whoever polls was to wait.
    KeepPromise,
}

/// How an async call ended, and the callback that is to be told.
pub(super) struct Outcome {
    pub(super) done: Box<dyn Done>,
    pub(super) result: Result<(), Error>,
    pub(super) after: AfterDone,
}

/// One layer.
pub(super) struct Shared {
    process: u64,
    pub(super) settings: Settings,
    pub(super) own_queues: OwnQueues,
    pub(super) counters: Counters,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Oldest first, with a job for each.
    pub(super) outcomes: Mutex<VecDeque<Outcome>>,
    /// Held while sends that have ended are not among these yet.
    pub(super) concluding: Mutex<()>,
    pub(super) link: Link,
    /// The largest body that the broker takes, as far as it has said.
    pub(super) broker_limit: AtomicUsize,
    pub(super) dispatcher: Arc<Dispatcher<Job>>,
    pub(super) timekeeper: Arc<Timekeeper>,
    pub(super) closing: Closing,
    pub(super) close_calls: CloseCalls,
    pub(super) events: Events,
    broker: OnceCell<Arc<dyn Broker>>,
    pub(super) runtime: Arc<Runtime>,
}

impl Shared {
    /// What `config` makes of a layer, or why it makes none. Starts nothing.
    pub(super) fn prepare(config: &Config) -> Result<(Settings, Option<Tls>), Error> {
        let settings = config.settings()?;
        let tls = Tls::of(&settings)?;
        Ok((settings, tls))
    }

    pub(super) fn open(config: &Config, hooks: Hooks) -> Result<Arc<Self>, Error> {
        Self::open_on(config, hooks, Self::connect)
    }

    /// The same on the broker that `connect` makes.
    pub(super) fn open_on(
        config: &Config,
        hooks: Hooks,
        connect: impl FnOnce(&Arc<Self>, Option<Tls>) -> Arc<dyn Broker>,
    ) -> Result<Arc<Self>, Error> {
        let process = runtime::process_generation();
        let (settings, tls) = Self::prepare(config)?;
        let queue = match &settings.queue_name {
            Some(queue) => queue.clone(),
            None => name::queue(&random()?),
        };
        let runtime = Runtime::acquire()?;
        let polled = settings.dispatch == Dispatch::Poll;
        let shared = Arc::new(Self {
            process,
            counters: Counters::new(),
            inbox: Inbox::new(&settings),
            outbox: Outbox::new(settings.max_in_flight, settings.timeout, settings.settle),
            outcomes: Mutex::default(),
            concluding: Mutex::default(),
            link: Link::new(),
            broker_limit: AtomicUsize::new(usize::MAX),
            dispatcher: Arc::new(Dispatcher::new(polled)?),
            timekeeper: Arc::new(Timekeeper::new()),
            closing: Closing::new(),
            close_calls: CloseCalls::default(),
            events: Events::new(hooks),
            broker: OnceCell::new(),
            own_queues: OwnQueues::new(queue),
            settings,
            runtime,
        });
        if !polled {
            let threads = shared.settings.dispatch_threads;
            shared.dispatcher.start(threads, &shared)?;
        }
        shared.keep_time();
        // Set once: a layer is opened once.
        let _ = shared.broker.set(connect(&shared, tls));
        Ok(shared)
    }

    fn keep_time(self: &Arc<Self>) {
        let (layer, same) = (Arc::downgrade(self), Arc::downgrade(self));
        let keeper = self
            .runtime
            .handle()
            .spawn(Arc::clone(&self.timekeeper).run(
                move |now| layer.upgrade().map(|layer| layer.end_due(now)),
                move || same.upgrade().map(|layer| layer.next_due()),
            ));
        self.closing.stops(keeper);
    }

    fn connect(self: &Arc<Self>, tls: Option<Tls>) -> Arc<dyn Broker> {
        let tokio = self.runtime.handle().clone();
        let host: Weak<dyn Host> = Arc::downgrade(self) as Weak<dyn Host>;
        let queue = self.own_queues.current().to_string();
        match &self.settings.hosts {
            Hosts::Memory(name) => Memory::open(name, queue, &self.settings, host, tokio),
            Hosts::Amqp(endpoints) => {
                RabbitMq::open(endpoints.clone(), queue, &self.settings, tls, host, tokio)
            }
        }
    }

    /// The broker may call us before `open` has it in hand: then this waits that moment.
    pub(super) fn broker(&self) -> &Arc<dyn Broker> {
        self.broker.wait()
    }

    pub(super) fn is_forked(&self) -> bool {
        self.process != runtime::process_generation()
    }

    pub(super) fn is_open(&self) -> bool {
        self.closing.not_begun()
    }

    /// Begins a call of the user's.
    pub(super) fn enter(&self) -> Result<InCall<'_>, Error> {
        if self.is_forked() {
            return Err(Error::forked());
        }
        self.closing.enter().ok_or_else(Error::closed)
    }

    /// Checks that `channel` is one of ours.
    pub(super) fn own_channel(&self, channel: &str) -> Result<(), Error> {
        let parsed = name::parse_channel(channel)?;
        if self.own_queues.contain(parsed.queue) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "channel '{channel}' belongs to another layer: this one has the channels that begin \
             with '{}!'",
            self.own_queues.current()
        )))
    }

    pub(super) fn new_channel(&self, prefix: &str) -> Result<String, Error> {
        name::channel(&self.own_queues.current(), prefix, &random()?)
    }

    /// Tells whoever waits how a call ended that was no send.
    pub(super) fn complete(&self, completion: Completion, result: Result<(), Error>) {
        self.conclude([(completion, result)], AfterDone::Nothing);
    }

    /// Tells all who wait for sends.
    pub(super) fn complete_sends(&self, ended: Vec<Ended>) {
        let ended = ended.into_iter();
        self.conclude(
            ended.map(|send| (send.completion, send.result)),
            AfterDone::FreePlace,
        );
    }

    /// Has whoever polls tell how a close ended, as was promised.
    pub(super) fn complete_close(&self, done: Box<dyn Done>, result: Result<(), Error>) {
        self.conclude([(Completion::Call(done), result)], AfterDone::KeepPromise);
    }

    /// Wakes the threads that wait, and makes the jobs that tell the callbacks.
    fn conclude(
        &self,
        ended: impl IntoIterator<Item = (Completion, Result<(), Error>)>,
        after: AfterDone,
    ) {
        let mut outcomes = Vec::new();
        for (completion, result) in ended {
            match completion {
                Completion::Wake(waiter) => waiter.wake(result),
                Completion::Call(done) => outcomes.push(Outcome {
                    done,
                    result,
                    after,
                }),
            }
        }
        if !outcomes.is_empty() {
            let jobs = outcomes.iter().map(|_| Job::Outcome).collect::<Vec<_>>();
            // Before the jobs: each finds one.
            self.outcomes.lock().extend(outcomes);
            self.dispatcher.push_all(jobs);
        }
    }

    /// Refuses what the broker has said that it does not take.
    pub(super) fn check_size(&self, body: &[u8]) -> Result<(), Error> {
        let limit = self.broker_limit.load(Ordering::Relaxed);
        if body.len() <= limit {
            return Ok(());
        }
        Err(too_large_for_broker(body.len(), limit))
    }

    /// A send was accepted, which is due then.
    pub(super) fn sent(&self, due: Instant) {
        self.broker().publications_waiting();
        self.timekeeper.arm(due);
    }

    /// Tells the broker if it may take more of the sends that are held.
    fn release_sends(&self, now: Instant) {
        let (is_due, released) = self.outbox.release_due(now);
        if is_due {
            self.broker().publications_waiting();
        }
        self.sends_released(released);
    }

    /// Logs that sends are held no longer.
    pub(super) fn sends_released(&self, released: Option<Released>) {
        if let Some(Released {
            waited,
            behind,
            took,
        }) = released
        {
            self.log(
                RecordId::SendsReleased,
                format!(
                    "{waited} sends that waited for the connection, and {behind} behind them, were \
                     published within {:.3} s of it (option 'settle')",
                    took.as_secs_f64()
                ),
            );
        }
    }

    pub(super) fn expire_sends(&self, now: Instant) {
        let _concluding = self.concluding.lock();
        let ended = self.outbox.expire(now, &self.counters);
        self.complete_sends(ended);
    }

    /// Waits for the outcome of a call of this thread. `expire` ends it when its time is up, in
    /// case the timekeeper is late.
    pub(super) fn wait_for(
        &self,
        waiter: &Waiter,
        deadline: Instant,
        expire: impl Fn(&Self, Instant),
    ) -> Result<(), Error> {
        if let Some(result) = waiter.wait(deadline) {
            return result;
        }
        expire(self, Instant::now().max(deadline));
        // If somebody else has just ended it, they are about to say so.
        waiter
            .wait(Instant::now() + self.settings.timeout)
            .unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Internal,
                    "a call has ended without an outcome",
                ))
            })
    }

    /// Ends all whose time is up.
    fn end_due(&self, now: Instant) {
        self.expire_sends(now);
        self.release_sends(now);
        self.expire_waits(now);
        self.expire_messages(now);
        self.expire_memberships(now);
        self.unbind_due(now);
        self.renew_due(now);
        self.relieve(now);
    }

    fn next_due(&self) -> Option<Instant> {
        let (waits, memberships, unbinds, renewal, isolation) = {
            let local = self.inbox.local.lock();
            (
                local.waits.next_deadline(),
                local.groups.next_expiry(),
                local.groups.next_unbind(),
                local.groups.next_renewal(),
                local.next_isolation(self),
            )
        };
        [
            self.outbox.next_due(),
            self.next_message_expiry(),
            waits,
            memberships,
            unbinds,
            renewal,
            isolation,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn log(&self, id: RecordId, message: String) {
        self.pushed(self.events.log(Record { id, message }));
    }

    pub(super) fn tell_state(&self, state: State, generation: Generation) {
        self.pushed(self.events.state(state, generation));
    }

    pub(super) fn tell_isolation(&self, event: Isolation) {
        self.pushed(self.events.isolation(event));
    }

    fn pushed(&self, pushed: Pushed) {
        match pushed {
            Pushed::Due => self.dispatcher.push(Job::Events),
            Pushed::Dropped => self.counters.add(Stat::EventsDropped, 1),
            Pushed::Waits | Pushed::Unwanted => {}
        }
    }

    pub(super) fn stat(&self, stat: Stat) -> u64 {
        let gauge = |count: usize| count as u64;
        match stat {
            Stat::SendsAccepted => self.outbox.accepted(),
            Stat::SendsUnknown => {
                self.counters.get(Stat::SendsTimedOut) + self.counters.get(Stat::SendsUnconfirmed)
            }
            Stat::Generation => self.link.generation(),
            Stat::Reconnects => self.link.generation().saturating_sub(1),
            Stat::QueueRenames => self.own_queues.renamed() as u64,
            Stat::Ready => u64::from(self.link.state() == State::Ready),
            Stat::InFlight => gauge(self.outbox.in_flight()),
            Stat::PublishersBlocked => u64::from(self.outbox.blocked()),
            Stat::Received => self.inbox.local.lock().mailboxes.taken(),
            Stat::Backlog => gauge(self.inbox.local.lock().mailboxes.backlog()),
            Stat::Channels => gauge(self.inbox.local.lock().mailboxes.len()),
            Stat::Receivers => gauge(self.inbox.local.lock().mailboxes.receivers()),
            Stat::Groups => gauge(self.inbox.local.lock().groups.len()),
            Stat::Memberships => gauge(self.inbox.local.lock().groups.memberships()),
            Stat::GroupsBound => gauge(self.inbox.local.lock().groups.bound()),
            Stat::DeliveriesHeld => gauge(self.inbox.local.lock().back_pressure.unacked()),
            Stat::Isolating => u64::from(self.inbox.local.lock().back_pressure.is_isolating()),
            counter => self.counters.get(counter),
        }
    }
}

fn random() -> Result<[u8; 12], Error> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("the system gives no random bytes for a name: {error}"),
        )
    })?;
    Ok(random)
}

/// `now` and `timeout` later, or as far as the clock goes.
pub(super) fn far(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout)
        .or_else(|| now.checked_add(Duration::from_secs(u32::MAX.into())))
        .unwrap_or(now)
}
