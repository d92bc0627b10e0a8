//! A broker inside the process, with the rules of RabbitMQ: capacity, reject-publish, expiry,
//! prefetch, groups.
//!
//! Layers of one process that name the same broker share it. [`Bus`] is pure: the clock is an
//! argument. Each layer has one task that moves batches between it and its layer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::broker::{
    BindingChange, BindingEpoch, Broker, BrokerFuture, BrokerState, Delivery, Earlier, Generation,
    Host, Outcome, Publication, Route, Token, Verb,
};
use crate::config::Settings;
use crate::log::RecordId;
use crate::runtime::{ProcessLocal, copies};
use crate::sync::Mutex;

/// The only generation and epoch there are: nothing is ever lost here.
const GENERATION: Generation = 1;
const EPOCH: BindingEpoch = 1;

/// How many publications or deliveries are moved at once.
const BATCH: usize = 256;

/// The brokers of this process by their names. They live as long as a layer holds them.
///
/// No hash table: one that is empty keeps its memory, and a pointer into the middle of that, in which leak
/// checkers see a leak.
static BROKERS: ProcessLocal<Mutex<BTreeMap<String, Weak<Named>>>> = ProcessLocal::new();

/// One broker.
struct Named {
    name: String,
    bus: Mutex<Bus>,
    /// A queue is gone, so its name is free.
    freed: Notify,
}

impl Named {
    /// The broker `name`, made if there is none.
    fn get(name: &str) -> Arc<Self> {
        BROKERS.with(|brokers| {
            let mut brokers = brokers.lock();
            if let Some(named) = brokers.get(name).and_then(Weak::upgrade) {
                return named;
            }
            let named = Arc::new(Self {
                name: name.to_owned(),
                bus: Mutex::new(Bus::default()),
                freed: Notify::new(),
            });
            brokers.insert(name.to_owned(), Arc::downgrade(&named));
            named
        })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        BROKERS.with(|brokers| {
            let mut brokers = brokers.lock();
            // A new one may have come under this name in the meantime.
            if brokers
                .get(&self.name)
                .is_some_and(|named| named.strong_count() == 0)
            {
                brokers.remove(&self.name);
            }
        });
    }
}

/// What a queue is declared with.
#[derive(Debug, Clone)]
struct Limits {
    capacity: usize,
    prefetch: usize,
    expiry: Duration,
}

/// The queues and exchanges of a broker.
#[derive(Debug, Default)]
struct Bus {
    queues: HashMap<String, Queue>,
    /// Exchange -> group -> queues bound to it.
    exchanges: HashMap<String, HashMap<Arc<str>, BTreeSet<String>>>,
}

/// A queue and its consumer.
#[derive(Debug)]
struct Queue {
    limits: Limits,
    /// Not sent to the consumer yet: only these count against the capacity.
    ready: VecDeque<Stored>,
    /// Sent to the consumer, but not taken by its task yet.
    sent: VecDeque<Vec<u8>>,
    /// Sent to the consumer and not let go.
    held: usize,
    /// Wakes the consumer's task.
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct Stored {
    body: Vec<u8>,
    expires: Instant,
}

impl Queue {
    /// Takes a message unless it is full.
    fn offer(&mut self, now: Instant, body: Vec<u8>, expiry: Duration) -> bool {
        self.advance(now);
        if self.ready.len() >= self.limits.capacity {
            return false;
        }
        self.ready.push_back(Stored {
            body,
            expires: now + expiry.min(self.limits.expiry),
        });
        self.advance(now);
        true
    }

    /// Lets go of `count` messages that the consumer holds.
    fn release(&mut self, now: Instant, count: usize) {
        self.held = self.held.saturating_sub(count);
        self.advance(now);
    }

    /// Drops what has expired at the head and sends what the consumer may have.
    fn advance(&mut self, now: Instant) {
        while let Some(first) = self.ready.front() {
            if first.expires > now && self.held >= self.limits.prefetch {
                break;
            }
            let Some(first) = self.ready.pop_front() else {
                break;
            };
            if first.expires > now {
                self.held += 1;
                self.sent.push_back(first.body);
                // A bell that rings stays so until its task hears it.
                self.bell.notify_one();
            }
        }
    }
}

impl Bus {
    /// Declares a queue; `false` if there is one of this name.
    fn declare(&mut self, name: &str, limits: Limits, bell: Arc<Notify>) -> bool {
        if self.queues.contains_key(name) {
            return false;
        }
        let queue = Queue {
            limits,
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            held: 0,
            bell,
        };
        self.queues.insert(name.to_owned(), queue);
        true
    }

    /// Deletes a queue and its bindings.
    fn delete(&mut self, name: &str) {
        self.queues.remove(name);
        for groups in self.exchanges.values_mut() {
            groups.retain(|_, queues| {
                queues.remove(name);
                !queues.is_empty()
            });
        }
        self.exchanges.retain(|_, groups| !groups.is_empty());
    }

    fn change(
        &mut self,
        exchange: &str,
        queue: &str,
        BindingChange { group, verb, .. }: &BindingChange,
    ) {
        match verb {
            Verb::Bind => {
                let groups = self.exchanges.entry(exchange.to_owned()).or_default();
                let queues = groups.entry(Arc::clone(group)).or_default();
                queues.insert(queue.to_owned());
            }
            Verb::Unbind => {
                let Some(groups) = self.exchanges.get_mut(exchange) else {
                    return;
                };
                if let Some(queues) = groups.get_mut(group) {
                    queues.remove(queue);
                    if queues.is_empty() {
                        groups.remove(group);
                    }
                }
            }
        }
    }

    /// Routes one message.
    fn publish(
        &mut self,
        now: Instant,
        exchange: &str,
        route: &Route,
        body: Vec<u8>,
        expiry: Duration,
    ) -> Outcome {
        let accepted = match route {
            Route::Queue(name) => {
                let Some(queue) = self.queues.get_mut(name) else {
                    return Outcome::no_channel(name, body);
                };
                queue.offer(now, body, expiry)
            }
            Route::Group(group) => {
                let bound = self
                    .exchanges
                    .get(exchange)
                    .and_then(|groups| groups.get(group.as_str()));
                let mut accepted = true;
                for name in bound.into_iter().flatten() {
                    if let Some(queue) = self.queues.get_mut(name) {
                        // Each queue is asked, whatever another has said.
                        accepted &= queue.offer(now, body.clone(), expiry);
                    }
                }
                accepted
            }
        };
        if accepted {
            Outcome::Confirmed
        } else {
            Outcome::Full
        }
    }
}

/// The broker of one layer. Dropping it closes.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    /// Closes when the task has ended.
    running: watch::Receiver<()>,
}

/// What the calls of the layer and its task share.
struct Shared {
    named: Arc<Named>,
    queue: String,
    /// Something is to be done.
    bell: Arc<Notify>,
    changes: Mutex<Vec<BindingChange>>,
    closing: watch::Sender<bool>,
}

impl Memory {
    /// Joins the broker `name`, in the background.
    pub(crate) fn open(
        name: &str,
        queue: String,
        settings: &Settings,
        host: Weak<dyn Host>,
        runtime: Handle,
    ) -> Arc<dyn Broker> {
        let shared = Arc::new(Shared {
            named: Named::get(name),
            queue,
            bell: Arc::new(Notify::new()),
            changes: Mutex::new(Vec::new()),
            closing: watch::Sender::new(false),
        });
        let (runs, running) = watch::channel(());
        let worker = Worker {
            shared: Arc::clone(&shared),
            exchange: settings.groups_exchange.clone(),
            limits: Limits {
                capacity: settings.remote_capacity as usize,
                prefetch: settings.prefetch_count.into(),
                expiry: settings.expiry,
            },
            host,
            publications: Vec::new(),
            outcomes: Vec::new(),
            deliveries: Vec::new(),
        };
        runtime.spawn(async move {
            worker.run().await;
            drop(runs);
        });
        Arc::new(Self { shared, running })
    }
}

impl Broker for Memory {
    fn publications_waiting(&self) {
        self.shared.bell.notify_one();
    }

    fn resume(&self, generation: Generation, count: usize) {
        if generation == GENERATION {
            self.shared.release(count);
        }
    }

    fn change_bindings(&self, epoch: BindingEpoch, changes: Vec<BindingChange>) {
        if epoch == EPOCH {
            self.shared.changes.lock().extend(changes);
            self.shared.bell.notify_one();
        }
    }

    fn close(&self, _timeout: Duration) -> BrokerFuture {
        self.shared.closing.send_replace(true);
        let mut running = self.running.clone();
        Box::pin(async move { while running.changed().await.is_ok() {} })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

impl Shared {
    fn release(&self, count: usize) {
        if let Some(queue) = self.named.bus.lock().queues.get_mut(&self.queue) {
            queue.release(Instant::now(), count);
        }
    }

    /// Done once the layer closes.
    async fn closed(&self) {
        // An error would mean that the sender is gone, which is `self`.
        let _ = self.closing.subscribe().wait_for(|closed| *closed).await;
    }
}

/// The task of one layer.
struct Worker {
    shared: Arc<Shared>,
    exchange: String,
    limits: Limits,
    host: Weak<dyn Host>,
    publications: Vec<Publication>,
    outcomes: Vec<(Token, Outcome)>,
    deliveries: Vec<Delivery>,
}

impl Worker {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let work = pin!(async {
            let queue = self.declare().await;
            self.serve().await;
            drop(queue);
        });
        // No call of the layer is cut short: each lies between two waits.
        select(pin!(shared.closed()), work).await;
    }

    /// Waits until the name of the queue is free, and takes it.
    async fn declare(&mut self) -> Owned {
        let shared = Arc::clone(&self.shared);
        let mut said = false;
        loop {
            // Before the attempt, so that a name which is freed in between is not missed.
            let freed = shared.named.freed.notified();
            let limits = self.limits.clone();
            let bell = Arc::clone(&shared.bell);
            let is_ours = shared.named.bus.lock().declare(&shared.queue, limits, bell);
            if is_ours {
                return Owned(Arc::clone(&shared));
            }
            if let Some(host) = self.host.upgrade()
                && !said
            {
                said = true;
                let reason = format!(
                    "memory://{}: queue '{}' belongs to another layer; give each its own \
                     queue_name",
                    shared.named.name, shared.queue
                );
                let message = format!("not connected, trying on: {reason}");
                host.log(RecordId::ConnectionFailed, message);
                host.state_changed(BrokerState::Disconnected(reason));
            }
            freed.await;
        }
    }

    /// Binds the groups of the layer, and moves batches until it is gone.
    async fn serve(&mut self) {
        if let Some(host) = self.host.upgrade() {
            host.begin_generation(GENERATION, &self.shared.queue);
            self.change(&*host, host.bind_all(EPOCH, Earlier::Nothing));
            let message = format!(
                "connected to memory://{} as queue '{}'",
                self.shared.named.name, self.shared.queue
            );
            host.log(RecordId::Connected, message);
            for file in copies::others() {
                let file = if file.is_empty() {
                    "the program"
                } else {
                    &file
                };
                let message = format!(
                    "{file} is another copy of this library, and has a memory://{} of its own",
                    self.shared.named.name
                );
                host.log(RecordId::OtherCopy, message);
            }
            host.state_changed(BrokerState::Ready(GENERATION));
        }
        while let Some(host) = self.host.upgrade() {
            let changes = std::mem::take(&mut *self.shared.changes.lock());
            let mut busy = !changes.is_empty();
            self.change(&*host, changes);
            busy |= self.publish(&*host);
            busy |= self.deliver(&*host);
            drop(host);
            if busy {
                tokio::task::yield_now().await;
            } else {
                self.shared.bell.notified().await;
            }
        }
    }

    fn change(&self, host: &dyn Host, changes: Vec<BindingChange>) {
        if changes.is_empty() {
            return;
        }
        let mut bus = self.shared.named.bus.lock();
        for change in &changes {
            bus.change(&self.exchange, &self.shared.queue, change);
        }
        drop(bus);
        host.bindings_changed(EPOCH, changes);
    }

    /// Moves a batch from the layer to the broker; whether there was one.
    fn publish(&mut self, host: &dyn Host) -> bool {
        host.take_publications(BATCH, &mut self.publications);
        if self.publications.is_empty() {
            return false;
        }
        let now = Instant::now();
        let expiry = self.limits.expiry;
        let mut bus = self.shared.named.bus.lock();
        for Publication { token, route, body } in self.publications.drain(..) {
            let outcome = bus.publish(now, &self.exchange, &route, body, expiry);
            self.outcomes.push((token, outcome));
        }
        drop(bus);
        host.publications_ended(&mut self.outcomes);
        self.outcomes.clear();
        true
    }

    /// Moves a batch from the queue to the layer; whether there was one.
    fn deliver(&mut self, host: &dyn Host) -> bool {
        let mut bus = self.shared.named.bus.lock();
        if let Some(queue) = bus.queues.get_mut(&self.shared.queue) {
            let count = queue.sent.len().min(BATCH);
            let delivery = |body| Delivery {
                body,
                redelivered: false,
            };
            self.deliveries
                .extend(queue.sent.drain(..count).map(delivery));
        }
        drop(bus);
        if self.deliveries.is_empty() {
            return false;
        }
        let let_go = host.deliver(GENERATION, &mut self.deliveries);
        self.deliveries.clear();
        self.shared.release(let_go);
        true
    }
}

/// A queue that is ours. Dropping this deletes it and gives its name back.
struct Owned(Arc<Shared>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.named.bus.lock().delete(&self.0.queue);
        self.0.named.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testing::{self, Open};

    const EXCHANGE: &str = "groups";

    fn limits(capacity: usize, prefetch: usize, expiry_ms: u64) -> Limits {
        Limits {
            capacity,
            prefetch,
            expiry: Duration::from_millis(expiry_ms),
        }
    }

    fn bus(queues: &[(&str, Limits)]) -> Bus {
        let mut bus = Bus::default();
        for (name, limits) in queues {
            assert!(bus.declare(name, limits.clone(), Arc::default()));
        }
        bus
    }

    fn send(bus: &mut Bus, now: Instant, queue: &str, body: u8, expiry_ms: u64) -> Outcome {
        let route = Route::Queue(queue.to_owned());
        let expiry = Duration::from_millis(expiry_ms);
        bus.publish(now, EXCHANGE, &route, vec![body], expiry)
    }

    fn sent(bus: &mut Bus, queue: &str) -> Vec<u8> {
        let queue = bus.queues.get_mut(queue).expect("a queue");
        queue.sent.drain(..).flatten().collect()
    }

    fn release(bus: &mut Bus, now: Instant, queue: &str, count: usize) {
        let queue = bus.queues.get_mut(queue).expect("a queue");
        queue.release(now, count);
    }

    #[test]
    fn only_ready_messages_count_against_the_capacity() {
        let now = Instant::now();
        let mut bus = bus(&[("q", limits(1, 1, 1000))]);
        assert!(!bus.declare("q", limits(1, 1, 1000), Arc::default()));
        assert_eq!(send(&mut bus, now, "q", 1, 1000), Outcome::Confirmed);
        assert_eq!(send(&mut bus, now, "q", 2, 1000), Outcome::Confirmed);
        assert_eq!(send(&mut bus, now, "q", 3, 1000), Outcome::Full);
        assert_eq!(sent(&mut bus, "q"), [1]);
        release(&mut bus, now, "q", 1);
        assert_eq!(sent(&mut bus, "q"), [2]);
        assert_eq!(send(&mut bus, now, "q", 4, 1000), Outcome::Confirmed);
        assert_eq!(
            send(&mut bus, now, "none", 5, 1000),
            Outcome::NoChannel("none".to_owned())
        );
    }

    #[test]
    fn the_smaller_expiry_holds_and_the_dead_make_room() {
        let now = Instant::now();
        let later = now + Duration::from_millis(50);
        let mut bus = bus(&[("q", limits(2, 1, 50))]);
        for body in 1..=3 {
            assert_eq!(send(&mut bus, now, "q", body, 1000), Outcome::Confirmed);
        }
        assert_eq!(send(&mut bus, now, "q", 4, 1000), Outcome::Full);
        assert_eq!(send(&mut bus, later, "q", 5, 10), Outcome::Confirmed);
        assert_eq!(send(&mut bus, later, "q", 6, 1000), Outcome::Confirmed);
        let later = later + Duration::from_millis(10);
        assert_eq!(sent(&mut bus, "q"), [1]);
        release(&mut bus, later, "q", 1);
        assert_eq!(sent(&mut bus, "q"), [6]);
    }

    #[test]
    fn a_group_reaches_all_bound_queues_even_if_one_is_full() {
        let now = Instant::now();
        let mut bus = bus(&[
            ("full", limits(1, 1, 1000)),
            ("free", limits(9, 9, 1000)),
            ("other", limits(9, 9, 1000)),
        ]);
        let (bind, unbind) = (BindingChange::bind("g"), BindingChange::unbind("g"));
        for queue in ["full", "free"] {
            bus.change(EXCHANGE, queue, &bind);
        }
        bus.change("elsewhere", "other", &bind);
        let publish = |bus: &mut Bus, body| {
            let route = Route::Group("g".to_owned());
            bus.publish(now, EXCHANGE, &route, vec![body], Duration::from_secs(1))
        };
        assert_eq!(publish(&mut bus, 1), Outcome::Confirmed);
        assert_eq!(publish(&mut bus, 2), Outcome::Confirmed);
        assert_eq!(publish(&mut bus, 3), Outcome::Full);
        assert_eq!(sent(&mut bus, "free"), [1, 2, 3]);
        assert_eq!(sent(&mut bus, "full"), [1]);
        assert!(sent(&mut bus, "other").is_empty());
        bus.change(EXCHANGE, "free", &unbind);
        bus.delete("full");
        assert_eq!(publish(&mut bus, 4), Outcome::Confirmed);
        assert!(sent(&mut bus, "free").is_empty());
        bus.delete("other");
        assert!(bus.exchanges.is_empty());
    }

    #[test]
    fn a_broker_is_shared_by_name_and_vanishes_with_its_last_layer() {
        let name = testing::unique("broker");
        let first = Named::get(&name);
        assert!(Arc::ptr_eq(&first, &Named::get(&name)));
        drop(first);
        assert!(BROKERS.with(|brokers| !brokers.lock().contains_key(&name)));
    }

    /// Opens layers on one new broker.
    fn opener() -> Open {
        let name = testing::unique("broker");
        Box::new(move |queue, settings, host| {
            Memory::open(&name, queue, settings, host, Handle::current())
        })
    }

    testing::behaviours!(opener());
}
