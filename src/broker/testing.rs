//! A layer that only records, and what every broker must do when it serves one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::broker::{
    BindingChange, BindingEpoch, Broker, BrokerState, Delivery, Earlier, Generation, Host, Outcome,
    Publication, Route, Token,
};
use crate::config::{Config, Settings};
use crate::log::RecordId;
use crate::sync::Mutex;

/// Opens a broker for a layer with this queue.
pub(crate) type Open = Box<dyn Fn(String, &Settings, Weak<dyn Host>) -> Arc<dyn Broker>>;

/// How long anything may take in a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(12)
        .collect();
    format!("{prefix}_{random}")
}

/// Settings with an exchange of their own.
pub(crate) fn settings(options: &[(&str, &str)]) -> Settings {
    let mut config = Config::new();
    for (name, value) in options {
        config.set(name, value).expect("a good option");
    }
    config.settings().expect("good options")
}

/// What a layer was told and has to say.
#[derive(Default)]
pub(crate) struct Record {
    outbox: VecDeque<Publication>,
    pub(crate) outcomes: BTreeMap<Token, Outcome>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Whether deliveries are held until the test resumes.
    pub(crate) hold: bool,
    pub(crate) groups: Vec<Arc<str>>,
    pub(crate) generations: Vec<Generation>,
    /// The name of the queue of each generation.
    pub(crate) queues: Vec<String>,
    pub(crate) earlier: Vec<Earlier>,
    pub(crate) proven: Vec<BindingEpoch>,
    pub(crate) epochs: Vec<BindingEpoch>,
    pub(crate) bindings: Vec<(BindingEpoch, BindingChange)>,
    /// How often the bindings of a queue were lost.
    pub(crate) times_unbound: usize,
    pub(crate) requeued: Vec<Generation>,
    pub(crate) blocked: Vec<bool>,
    pub(crate) publishing: Vec<bool>,
    pub(crate) size_limits: Vec<usize>,
    pub(crate) states: Vec<BrokerState>,
    pub(crate) logs: Vec<(RecordId, String)>,
    closed: bool,
    /// What no broker may do.
    violations: Vec<String>,
}

#[derive(Default)]
pub(crate) struct FakeHost {
    record: Mutex<Record>,
}

impl FakeHost {
    pub(crate) fn record(&self) -> crate::sync::MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// Has a publication to take.
    pub(crate) fn push(&self, publication: Publication) {
        self.record().outbox.push_back(publication);
    }

    pub(crate) fn outcome(&self, token: Token) -> Option<Outcome> {
        self.record().outcomes.get(&token).cloned()
    }

    fn lock(&self) -> crate::sync::MutexGuard<'_, Record> {
        let mut record = self.record.lock();
        if record.closed {
            record.violations.push("called after close".to_owned());
        }
        record
    }
}

impl Host for FakeHost {
    fn take_publications(&self, limit: usize, batch: &mut Vec<Publication>) {
        let mut record = self.lock();
        let count = record.outbox.len().min(limit);
        batch.extend(record.outbox.drain(..count));
    }

    fn publications_ended(&self, batch: &mut Vec<(Token, Outcome)>) {
        let mut record = self.lock();
        for (token, outcome) in batch.drain(..) {
            if let Some(before) = record.outcomes.insert(token, outcome) {
                record
                    .violations
                    .push(format!("{token} ended twice, first {before:?}"));
            }
        }
    }

    fn publishing_changed(&self, is_up: bool) {
        self.lock().publishing.push(is_up);
    }

    fn publishers_blocked(&self, blocked: bool) {
        self.lock().blocked.push(blocked);
    }

    fn size_limit_learned(&self, bytes: usize) {
        self.lock().size_limits.push(bytes);
    }

    fn begin_generation(&self, generation: Generation, queue: &str) {
        let mut record = self.lock();
        record.generations.push(generation);
        record.queues.push(queue.to_owned());
    }

    fn bind_all(&self, epoch: BindingEpoch, earlier: Earlier) -> Vec<BindingChange> {
        let mut record = self.lock();
        record.epochs.push(epoch);
        record.earlier.push(earlier);
        match earlier {
            Earlier::Nothing => {
                let groups = record.groups.iter();
                groups.map(|group| BindingChange::bind(group)).collect()
            }
            Earlier::All(_) => Vec::new(),
        }
    }

    fn bindings_proven(&self, epoch: BindingEpoch) {
        self.lock().proven.push(epoch);
    }

    fn bindings_lost(&self) {
        let mut record = self.lock();
        record.times_unbound += 1;
        if record.generations.is_empty() {
            record
                .violations
                .push("bindings were lost that never were".to_owned());
        }
    }

    fn deliveries_requeued(&self, generation: Generation) {
        self.lock().requeued.push(generation);
    }

    fn deliver(&self, generation: Generation, batch: &mut Vec<Delivery>) -> usize {
        let mut record = self.lock();
        if record.generations.last() != Some(&generation) {
            record.violations.push(format!("delivery of {generation}"));
        }
        let count = batch.len();
        record.deliveries.append(batch);
        if record.hold { 0 } else { count }
    }

    fn bindings_changed(&self, epoch: BindingEpoch, done: Vec<BindingChange>) {
        let done = done.into_iter().map(|change| (epoch, change));
        self.lock().bindings.extend(done);
    }

    fn state_changed(&self, state: BrokerState) {
        self.lock().states.push(state);
    }

    fn log(&self, id: RecordId, message: String) {
        self.lock().logs.push((id, message));
    }
}

/// A layer that only records, and its broker.
pub(crate) struct Peer {
    host: Arc<FakeHost>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) queue: String,
    next: AtomicU64,
}

impl Peer {
    pub(crate) fn open(open: &Open, queue: &str, options: &[(&str, &str)]) -> Self {
        Self::with(open, queue, options, |_| {})
    }

    /// Opens a layer whose record is prepared before its broker sees it.
    pub(crate) fn with(
        open: &Open,
        queue: &str,
        options: &[(&str, &str)],
        prepare: impl FnOnce(&mut Record),
    ) -> Self {
        let host = Arc::new(FakeHost::default());
        prepare(&mut host.record.lock());
        let weak: Weak<FakeHost> = Arc::downgrade(&host);
        Self {
            broker: open(queue.to_owned(), &settings(options), weak),
            host,
            queue: queue.to_owned(),
            next: AtomicU64::new(1),
        }
    }

    /// Opens a layer and waits until it is ready.
    pub(crate) async fn ready(open: &Open, options: &[(&str, &str)]) -> Self {
        let peer = Self::open(open, &unique("channels"), options);
        peer.until_generation(1).await;
        peer
    }

    pub(crate) fn record(&self) -> crate::sync::MutexGuard<'_, Record> {
        self.host.record()
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(&self, what: &str, look: impl Fn(&Record) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = look(&self.record()) {
                return found;
            }
            if begin.elapsed() > PATIENCE {
                let record = self.record();
                panic!(
                    "no {what}; states {:?}, {} outcomes, {} deliveries, log {:?}",
                    record.states,
                    record.outcomes.len(),
                    record.deliveries.len(),
                    record.logs
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn until_generation(&self, generation: Generation) {
        self.until("Ready", |record| {
            (record.states.last() == Some(&BrokerState::Ready(generation))).then_some(())
        })
        .await;
    }

    /// Sends without waiting.
    pub(crate) fn send(&self, route: Route, body: &[u8]) -> Token {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        self.host.push(Publication {
            token,
            route,
            body: body.to_vec(),
        });
        self.broker.publications_waiting();
        token
    }

    pub(crate) async fn outcome(&self, token: Token) -> Outcome {
        self.until("outcome", |record| record.outcomes.get(&token).cloned())
            .await
    }

    /// Sends to a queue and waits for the outcome.
    pub(crate) async fn sent(&self, queue: &str, body: &[u8]) -> Outcome {
        self.outcome(self.send(to(queue), body)).await
    }

    /// Sends to a group and waits for the outcome.
    pub(crate) async fn sent_to_group(&self, group: &str, body: &[u8]) -> Outcome {
        self.outcome(self.send(Route::Group(group.to_owned()), body))
            .await
    }

    /// Sends to its own queue, which takes the message or is full.
    async fn sent_or_full(&self, body: &[u8]) -> Outcome {
        let outcome = self.sent(&self.queue, body).await;
        let is_either = matches!(outcome, Outcome::Confirmed | Outcome::Full);
        assert!(is_either, "{outcome:?}");
        outcome
    }

    /// Waits for this many deliveries in all, and a little for one too many.
    pub(crate) async fn delivered(&self, count: usize) -> Vec<Vec<u8>> {
        self.until("delivery", |record| {
            (record.deliveries.len() >= count).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let bodies = |delivery: &Delivery| delivery.body.clone();
        self.record().deliveries.iter().map(bodies).collect()
    }

    pub(crate) async fn bound(&self, change: &BindingChange, times: usize) {
        self.until("change of binding", |record| {
            let is_it = |(_, done): &&(_, _)| done == change;
            (record.bindings.iter().filter(is_it).count() >= times).then_some(())
        })
        .await;
    }

    pub(crate) async fn close(&self, timeout: Duration) {
        self.broker.close(timeout).await;
        self.record().closed = true;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let record = self.host.record.lock();
        if !std::thread::panicking() {
            assert!(record.violations.is_empty(), "{:?}", record.violations);
        }
    }
}

pub(crate) fn to(queue: &str) -> Route {
    Route::Queue(queue.to_owned())
}

const SECOND: Duration = Duration::from_secs(1);

/// Tests of what every broker must do; the argument makes an [`Open`].
macro_rules! behaviours {
    ($open:expr) => {
        $crate::broker::testing::behaviours!($open;
            each_publication_gets_its_own_outcome,
            order_is_kept,
            held_deliveries_are_let_go_by_resume,
            every_message_comes_through_a_small_prefetch,
            bindings_come_and_go_in_order,
            groups_are_bound_before_ready,
            a_queue_name_is_used_once_and_free_after_close,
            what_has_expired_makes_room,
            close_ends_all_that_is_in_flight,
            a_broker_that_is_dropped_closes,
        );
    };
    ($open:expr; $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::broker::testing::$name($open).await;
            }
        )*
    };
}
pub(crate) use behaviours;

/// Messages to queues that live, are full or do not exist, and to groups, all at once.
pub(crate) async fn each_publication_gets_its_own_outcome(open: Open) {
    const COUNT: u64 = 30_000;
    const WINDOW: u64 = 2_000;
    let exchange = unique("groups");
    let options = [("groups_exchange", exchange.as_str())];
    let roomy = [
        options[0],
        ("prefetch_count", "1000"),
        ("remote_capacity", "100000"),
    ];
    let tight = [
        options[0],
        ("prefetch_count", "1"),
        ("remote_capacity", "1"),
    ];
    let sender = Peer::ready(&open, &options).await;
    let live = Peer::ready(&open, &roomy).await;
    let full = Peer::ready(&open, &tight).await;
    full.record().hold = true;
    for _ in 0..2 {
        assert_eq!(sender.sent(&full.queue, b"x").await, Outcome::Confirmed);
    }
    let to_full: Arc<str> = "to_full".into();
    let bind = BindingChange::bind(&to_full);
    full.broker.change_bindings(1, vec![bind.clone()]);
    full.bound(&bind, 1).await;

    let missing = unique("missing");
    let mut expected = BTreeMap::new();
    let mut bodies = Vec::new();
    while (expected.len() as u64) < COUNT {
        let body = (expected.len() as u64).to_be_bytes();
        let (route, outcome) = match fastrand::u8(..8) {
            0..3 => {
                bodies.push(body.to_vec());
                (to(&live.queue), Outcome::Confirmed)
            }
            3..5 => (to(&missing), Outcome::NoChannel(missing.clone())),
            5 => (to(&full.queue), Outcome::Full),
            6 => (Route::Group("nobody".to_owned()), Outcome::Confirmed),
            _ => (Route::Group(to_full.to_string()), Outcome::Full),
        };
        expected.insert(sender.send(route, &body), outcome);
        let sent = expected.len() as u64;
        if sent.is_multiple_of(64) {
            let done = sent.saturating_sub(WINDOW) as usize;
            sender
                .until("outcomes", |record| {
                    (record.outcomes.len() >= done).then_some(())
                })
                .await;
        }
    }
    let all = COUNT as usize + 2;
    sender
        .until("outcomes", |record| {
            (record.outcomes.len() == all).then_some(())
        })
        .await;
    let outcomes = sender.record().outcomes.clone();
    let swapped: Vec<_> = expected
        .iter()
        .filter(|(token, outcome)| outcomes.get(token) != Some(outcome))
        .map(|(token, outcome)| (token, outcome, outcomes.get(token)))
        .take(5)
        .collect();
    assert!(swapped.is_empty(), "token, expected, got: {swapped:?}");
    assert!(live.delivered(bodies.len()).await == bodies, "not in order");
    for peer in [sender, live, full] {
        peer.close(SECOND).await;
    }
}

pub(crate) async fn order_is_kept(open: Open) {
    let peer = Peer::ready(&open, &[("remote_capacity", "100000")]).await;
    let mut bodies = Vec::new();
    for number in 0..5_000_u32 {
        // Of all sizes, some larger than a frame.
        let size = 4 + if number.is_multiple_of(500) {
            100_000
        } else {
            number as usize % 50
        };
        let mut body = number.to_be_bytes().to_vec();
        body.resize(size, b'x');
        peer.send(to(&peer.queue), &body);
        bodies.push(body);
    }
    assert!(peer.delivered(bodies.len()).await == bodies, "not in order");
    peer.close(SECOND).await;
}

pub(crate) async fn held_deliveries_are_let_go_by_resume(open: Open) {
    let options = [("prefetch_count", "2"), ("remote_capacity", "1")];
    let peer = Peer::ready(&open, &options).await;
    peer.record().hold = true;
    for body in [b"1", b"2", b"3"] {
        assert_eq!(peer.sent(&peer.queue, body).await, Outcome::Confirmed);
    }
    assert_eq!(peer.sent(&peer.queue, b"4").await, Outcome::Full);
    assert_eq!(peer.delivered(2).await.len(), 2);
    // Of another generation: void.
    peer.broker.resume(7, 2);
    peer.broker.resume(1, 1);
    assert_eq!(peer.delivered(3).await.len(), 3);
    assert_eq!(peer.sent(&peer.queue, b"5").await, Outcome::Confirmed);
    peer.record().hold = false;
    peer.broker.resume(1, 2);
    // The ack takes another connection than a send would: only now there is room again.
    assert_eq!(peer.delivered(4).await.len(), 4);
    assert_eq!(peer.sent(&peer.queue, b"6").await, Outcome::Confirmed);
    let expected: [&[u8]; 5] = [b"1", b"2", b"3", b"5", b"6"];
    assert_eq!(peer.delivered(5).await, expected);
    peer.close(SECOND).await;
}

pub(crate) async fn every_message_comes_through_a_small_prefetch(open: Open) {
    for prefetch in ["1", "3"] {
        let options = [("prefetch_count", prefetch), ("remote_capacity", "1000")];
        let peer = Peer::ready(&open, &options).await;
        peer.record().hold = true;
        for number in 0..500_u32 {
            peer.send(to(&peer.queue), &number.to_be_bytes());
        }
        // One by one, from another thread, as the layer does it.
        for number in 1..=500 {
            peer.until("delivery", |record| {
                (record.deliveries.len() >= number).then_some(())
            })
            .await;
            peer.broker.resume(1, 1);
        }
        assert_eq!(peer.delivered(500).await.len(), 500);
        peer.close(SECOND).await;
    }
}

pub(crate) async fn bindings_come_and_go_in_order(open: Open) {
    let (bind, unbind) = (BindingChange::bind("g"), BindingChange::unbind("g"));
    let exchange = unique("groups");
    let peer = Peer::ready(&open, &[("groups_exchange", &exchange)]).await;
    let change = |changes: &[&BindingChange]| changes.iter().copied().cloned().collect();
    assert_eq!(peer.sent_to_group("g", b"nobody").await, Outcome::Confirmed);
    // Void: not this generation.
    peer.broker.change_bindings(9, change(&[&bind]));
    peer.broker.change_bindings(1, change(&[&bind]));
    peer.bound(&bind, 1).await;
    assert_eq!(peer.sent_to_group("g", b"one").await, Outcome::Confirmed);
    for times in 1..=100 {
        peer.broker.change_bindings(1, change(&[&unbind]));
        peer.bound(&unbind, times).await;
        peer.broker.change_bindings(1, change(&[&bind]));
        peer.bound(&bind, times + 1).await;
    }
    assert_eq!(peer.sent_to_group("g", b"two").await, Outcome::Confirmed);
    peer.broker.change_bindings(1, change(&[&unbind]));
    peer.bound(&unbind, 101).await;
    assert_eq!(peer.sent_to_group("g", b"late").await, Outcome::Confirmed);
    assert_eq!(peer.delivered(2).await, [b"one", b"two"]);
    {
        let record = peer.record();
        let reported: Vec<_> = record.bindings.iter().map(|(_, change)| change).collect();
        let expected: Vec<_> = (0..202).map(|i| [&bind, &unbind][i % 2]).collect();
        assert_eq!(reported, expected);
    }
    peer.close(SECOND).await;
}

pub(crate) async fn groups_are_bound_before_ready(open: Open) {
    const GROUPS: usize = 3_000;
    let exchange = unique("groups");
    let options = [
        ("groups_exchange", exchange.as_str()),
        ("remote_capacity", "10000"),
    ];
    let peer = Peer::with(&open, &unique("channels"), &options, |record| {
        record.groups = (0..GROUPS).map(|i| format!("g{i}").into()).collect();
    });
    peer.until_generation(1).await;
    assert_eq!(peer.record().bindings.len(), GROUPS);
    for i in 0..GROUPS {
        peer.send(Route::Group(format!("g{i}")), b"x");
    }
    assert_eq!(peer.delivered(GROUPS).await.len(), GROUPS);
    peer.close(SECOND).await;
}

pub(crate) async fn a_queue_name_is_used_once_and_free_after_close(open: Open) {
    let first = Peer::ready(&open, &[]).await;
    let second = Peer::open(&open, &first.queue, &[]);
    let reason = second
        .until("refusal", |record| match record.states.last() {
            Some(BrokerState::Disconnected(reason)) => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains(&first.queue), "{reason}");
    assert_eq!(first.sent(&first.queue, b"mine").await, Outcome::Confirmed);
    first.close(SECOND).await;
    second
        .until("Ready", |record| {
            matches!(record.states.last(), Some(BrokerState::Ready(_))).then_some(())
        })
        .await;
    // One line for the trouble, however often it was tried, and one for the end of it.
    assert_eq!(second.record().logs.len(), 2, "{:?}", second.record().logs);
    second.close(SECOND).await;
}

pub(crate) async fn what_has_expired_makes_room(open: Open) {
    // The queue is seen full only if it is filled before its first message expires. A machine that is
    // too slow for that tries again with twice the expiry, so that no load makes the test fail.
    let mut expiry = Duration::from_millis(300);
    while !expired_messages_make_room(&open, expiry).await {
        expiry *= 2;
        assert!(expiry < PATIENCE, "three sends take {:?}", expiry / 2);
    }
}

/// Returns `false` if a message may have expired before the queue was full.
async fn expired_messages_make_room(open: &Open, expiry: Duration) -> bool {
    use Outcome::{Confirmed, Full};
    let seconds = expiry.as_secs_f64().to_string();
    let options = [
        ("prefetch_count", "1"),
        ("remote_capacity", "2"),
        ("expiry", seconds.as_str()),
    ];
    let peer = Peer::ready(open, &options).await;
    peer.record().hold = true;
    assert_eq!(peer.sent(&peer.queue, b"1").await, Confirmed);
    assert_eq!(peer.delivered(1).await, [b"1"]);
    let begin = Instant::now();
    let mut outcomes = Vec::new();
    for body in [b"2", b"3", b"4"] {
        outcomes.push(peer.sent(&peer.queue, body).await);
    }
    if begin.elapsed() >= expiry {
        peer.close(SECOND).await;
        return false;
    }
    assert_eq!(outcomes, [Confirmed, Confirmed, Full]);

    // Once two more are accepted, messages 2 and 3 have both expired, and neither too early.
    for _ in 0..2 {
        while peer.sent_or_full(b"5").await == Full {
            assert!(begin.elapsed() < expiry + PATIENCE, "the queue stays full");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(begin.elapsed() >= expiry, "after {:?}", begin.elapsed());
    }
    peer.broker.resume(1, 1);
    // On a slow machine these may expire as well before one is delivered, so more are sent.
    let resumed = Instant::now();
    while peer.record().deliveries.len() < 2 {
        assert!(resumed.elapsed() < PATIENCE, "no delivery after the resume");
        peer.sent_or_full(b"5").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(peer.delivered(2).await, [b"1", b"5"]);
    peer.close(SECOND).await;
    true
}

pub(crate) async fn close_ends_all_that_is_in_flight(open: Open) {
    let peer = Peer::ready(&open, &[("remote_capacity", "100000")]).await;
    let last = (0..5_000).map(|_| peer.send(to(&peer.queue), b"x")).max();
    let begin = Instant::now();
    peer.close(2 * SECOND).await;
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
    {
        let record = peer.record();
        // What was not taken was not sent. What was taken has an outcome.
        assert_eq!(
            record.outbox.len() + record.outcomes.len(),
            last.unwrap_or_default() as usize
        );
    }
    // A second close has nothing to do.
    peer.broker.close(SECOND).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

pub(crate) async fn a_broker_that_is_dropped_closes(open: Open) {
    let first = Peer::ready(&open, &[]).await;
    let queue = first.queue.clone();
    drop(first);
    let second = Peer::open(&open, &queue, &[]);
    second
        .until("Ready", |record| {
            matches!(record.states.last(), Some(BrokerState::Ready(_))).then_some(())
        })
        .await;
    second.close(SECOND).await;
}
