//! The broker on a real RabbitMQ, and on connections that fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connect::Link;
use super::*;
use crate::broker::testing::{self, Open, Peer, to, unique};
use crate::broker::{BrokerState, Earlier, Outcome, Route, Verb};
use crate::endpoint::Hosts;

const SECOND: Duration = Duration::from_secs(1);

/// The RabbitMQ for tests.
fn url() -> String {
    std::env::var("CHANNEL_LAYER_TEST_AMQP").unwrap_or_else(|_| {
        panic!(
            "CHANNEL_LAYER_TEST_AMQP is not set: run `make test`, or \
             `tests/fixture/rabbitmq.py run -- cargo test`"
        )
    })
}

fn endpoints(url: &str) -> Vec<Endpoint> {
    match crate::endpoint::parse(url) {
        Ok(Hosts::Amqp(endpoints)) => endpoints,
        other => panic!("not a list of hosts: {other:?}"),
    }
}

fn opener_of(endpoints: Vec<Endpoint>) -> Open {
    Box::new(move |queue, settings, host| {
        let runtime = Handle::current();
        RabbitMq::open(endpoints.clone(), queue, settings, None, host, runtime)
    })
}

fn opener() -> Open {
    opener_of(endpoints(&url()))
}

testing::behaviours!(opener());

/// Something between us and the broker that can fail.
struct Proxy {
    address: SocketAddr,
    /// Ends all connections when it changes.
    cut: watch::Sender<u32>,
    /// Passes nothing on while set.
    frozen: Arc<AtomicBool>,
    /// Makes one ack of all that the broker sends until it pauses.
    merges_acks: Arc<AtomicBool>,
    /// All that we have sent.
    seen: Arc<crate::sync::Mutex<Vec<u8>>>,
    /// Cuts a connection at its next `exchange.delete`.
    cuts_at_delete: Arc<AtomicBool>,
}

impl Proxy {
    async fn start() -> Self {
        let broker = endpoints(&url()).remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            cut: watch::Sender::new(0),
            frozen: Arc::default(),
            merges_acks: Arc::default(),
            seen: Arc::default(),
            cuts_at_delete: Arc::default(),
        };
        let (seen, at_delete) = (Arc::clone(&proxy.seen), Arc::clone(&proxy.cuts_at_delete));
        let cuts = proxy.cut.subscribe();
        let frozen = Arc::clone(&proxy.frozen);
        let merges = Arc::clone(&proxy.merges_acks);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect((broker.host.as_str(), broker.port)).await;
                let (from_broker, to_broker) = far.expect("the broker").into_split();
                let (from_us, to_us) = near.into_split();
                let (frozen, merges) = (Arc::clone(&frozen), Arc::clone(&merges));
                let (seen, at_delete) = (Arc::clone(&seen), Arc::clone(&at_delete));
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let watch = |sent: &[u8]| {
                        seen.lock().extend_from_slice(sent);
                        // The class and the method.
                        let is_delete = sent.windows(4).any(|four| four == [0, 40, 0, 20]);
                        !(is_delete && at_delete.swap(false, Ordering::Relaxed))
                    };
                    let there = pass(from_us, to_broker, &frozen, watch);
                    let back = pass_frames(from_broker, to_us, &frozen, &merges);
                    select(pin!(cuts.changed()), pin!(join(there, back))).await;
                });
            }
        });
        proxy
    }

    fn opener(&self) -> Open {
        let mut endpoint = endpoints(&url()).remove(0);
        endpoint.host = self.address.ip().to_string();
        endpoint.port = self.address.port();
        opener_of(vec![endpoint])
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn while_set(flag: &AtomicBool) {
    while flag.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Passes on what comes as long as `watch` says so.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    frozen: &AtomicBool,
    watch: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !watch(&buffer[..count]) {
            break;
        }
        while_set(frozen).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

/// Passes frames on and, while `merges` is set, keeps acks back until the broker pauses. Then one
/// ack stands for all, as a broker may do that has confirmed everything so far.
async fn pass_frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    frozen: &AtomicBool,
    merges: &AtomicBool,
) {
    const PAUSE: Duration = Duration::from_millis(30);
    const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
    const MULTIPLE: u8 = 1;
    let mut kept: Option<Vec<u8>> = None;
    let mut buffer = Vec::new();
    loop {
        let mut passed_on = Vec::new();
        let read = from.read_buf(&mut buffer);
        match &kept {
            None => match read.await {
                Ok(1..) => {}
                _ => return,
            },
            Some(_) => match timeout(PAUSE, read).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return,
                Err(_) => passed_on.extend(kept.take().into_iter().flatten()),
            },
        }
        // A frame: type, channel (2), size (4), payload, end.
        while let Some(size) = buffer.get(3..7) {
            let size = size
                .iter()
                .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
                + 8;
            if buffer.len() < size {
                break;
            }
            let mut frame: Vec<u8> = buffer.drain(..size).collect();
            if frame[7..].starts_with(&BASIC_ACK) && merges.load(Ordering::Relaxed) {
                frame[19] = MULTIPLE;
                // Acks need not come in order: the highest tag stands for all. It comes first in
                // what follows the ids of class and method.
                if kept.as_ref().is_none_or(|kept| kept[11..] < frame[11..]) {
                    kept = Some(frame);
                }
            } else {
                passed_on.append(&mut frame);
            }
        }
        while_set(frozen).await;
        if to.write_all(&passed_on).await.is_err() {
            return;
        }
    }
}

/// RabbitMQ tends to ack a returned message before it returns the next. It need not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returns_find_their_messages_when_one_ack_is_for_many() {
    const BURSTS: usize = 40;
    const BURST: usize = 500;
    let proxy = Proxy::start().await;
    let peer = Peer::ready(&proxy.opener(), &[("remote_capacity", "100000")]).await;
    proxy.merges_acks.store(true, Ordering::Relaxed);
    let missing = unique("missing");
    let mut expected = BTreeMap::new();
    for burst in 1..=BURSTS {
        for _ in 0..BURST {
            let (route, outcome) = match fastrand::u8(..3) {
                0 => (to(&peer.queue), Outcome::Confirmed),
                1 => (to(&missing), Outcome::NoChannel(missing.clone())),
                _ => (Route::Group("nobody".to_owned()), Outcome::Confirmed),
            };
            expected.insert(peer.send(route, b"x"), outcome);
        }
        peer.until("outcomes", |record| {
            (record.outcomes.len() == burst * BURST).then_some(())
        })
        .await;
    }
    let outcomes = peer.record().outcomes.clone();
    let wrong = expected
        .iter()
        .filter(|(token, outcome)| outcomes.get(token) != Some(outcome))
        .count();
    assert_eq!(wrong, 0, "of {}", expected.len());
    peer.close(SECOND).await;
}

async fn refused(open: Open) -> String {
    let peer = Peer::open(&open, &unique("channels"), &[]);
    let reason = peer
        .until("refusal", |record| match record.states.last() {
            Some(BrokerState::Refused(reason)) => Some(reason.clone()),
            _ => None,
        })
        .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(peer.record().logs.len(), 1, "{:?}", peer.record().logs);
    peer.close(SECOND).await;
    reason
}

#[tokio::test]
async fn wrong_credentials_and_vhosts_are_refused_and_no_password_is_shown() {
    let good = endpoints(&url()).remove(0);
    let mut wrong_password = good.clone();
    wrong_password.password = "hunter2".to_owned();
    let reason = refused(opener_of(vec![wrong_password.clone()])).await;
    assert!(reason.contains("ACCESS_REFUSED"), "{reason}");
    assert!(!reason.contains("hunter2"), "{reason}");

    let mut wrong_vhost = good.clone();
    wrong_vhost.vhost = "nowhere".to_owned();
    let reason = refused(opener_of(vec![wrong_vhost.clone()])).await;
    assert!(reason.contains("nowhere"), "{reason}");

    // One host that only cannot be reached, and it is not a refusal; one that works, and all is
    // well.
    let mut nobody = good.clone();
    nobody.port = 1;
    let open = opener_of(vec![wrong_password.clone(), nobody]);
    let peer = Peer::open(&open, &unique("channels"), &[]);
    let reason = peer
        .until("state", |record| match record.states.last() {
            Some(BrokerState::Disconnected(reason)) => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains(":1/"), "{reason}");
    assert!(reason.contains("ACCESS_REFUSED"), "{reason}");
    peer.close(SECOND).await;
    let peer = Peer::ready(&opener_of(vec![wrong_password, wrong_vhost, good]), &[]).await;
    peer.close(SECOND).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_can_be_closed_at_any_time() {
    // One refuses, one takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("an address").port();
    for port in [1, silent] {
        let open = opener_of(endpoints(&format!("amqp://127.0.0.1:{port}/v")));
        let peer = Peer::open(&open, &unique("channels"), &[("connect_timeout", "0.3")]);
        let reason = peer
            .until("state", |record| match record.states.last() {
                Some(BrokerState::Disconnected(reason)) => Some(reason.clone()),
                _ => None,
            })
            .await;
        assert!(reason.contains(&format!(":{port}/")), "{reason}");
        peer.send(to("q"), b"x");
        sleep(Duration::from_millis(fastrand::u64(0..400))).await;
        let begin = Instant::now();
        peer.close(10 * SECOND).await;
        assert!(begin.elapsed() < SECOND / 2, "{:?}", begin.elapsed());
        assert!(peer.record().outcomes.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_in_a_new_generation_and_bindings_outlive_it() {
    let exchange = unique("groups");
    let proxy = Proxy::start().await;
    let options = [
        ("groups_exchange", exchange.as_str()),
        ("remote_capacity", "1000"),
    ];
    let peer = Peer::ready(&proxy.opener(), &options).await;
    let bind = ["a", "b"].map(BindingChange::bind);
    peer.broker.change_bindings(1, bind.to_vec());
    for bind in &bind {
        peer.bound(bind, 1).await;
    }
    for generation in 2..5 {
        // In flight: nothing of it comes back.
        proxy.frozen.store(true, Ordering::Relaxed);
        let token = peer.send(to(&peer.queue), b"lost");
        sleep(Duration::from_millis(30)).await;
        proxy.cut();
        proxy.frozen.store(false, Ordering::Relaxed);
        let outcome = peer.outcome(token).await;
        assert!(matches!(outcome, Outcome::Unconfirmed(_)), "{outcome:?}");
        peer.until_generation(generation).await;
        assert!(peer.record().times_unbound as u64 >= generation - 1);
        peer.record().deliveries.clear();
        for group in ["a", "b"] {
            assert_eq!(peer.sent_to_group(group, b"x").await, Outcome::Confirmed);
        }
        assert_eq!(peer.delivered(2).await.len(), 2);
    }
    {
        let record = peer.record();
        assert_eq!(record.generations, [1, 2, 3, 4]);
        assert_eq!(record.bindings.len(), 2);
        let kept = (1..4).map(Earlier::All);
        let earlier: Vec<_> = [Earlier::Nothing].into_iter().chain(kept).collect();
        assert_eq!(record.earlier, earlier);
        assert_eq!(record.proven[..3], [2, 3, 4]);
        let is_lost = |state: &BrokerState| matches!(state, BrokerState::Disconnected(_));
        assert!(record.states.iter().any(is_lost));
    }
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_of_many_groups_routes_here_and_outlives_a_lost_connection() {
    let exchange = unique("groups");
    let proxy = Proxy::start().await;
    let options = [("groups_exchange", exchange.as_str())];
    let peer = Peer::ready(&proxy.opener(), &options).await;
    let names: Vec<_> = (0..40).map(|number| format!("g{number}")).collect();
    let in_part = |(name, part): (&String, u32)| BindingChange::bind(name).at(1000 * part);
    let bind: Vec<_> = names.iter().zip((0..4).cycle()).map(in_part).collect();
    peer.broker.change_bindings(1, bind.clone());
    for bind in &bind {
        peer.bound(bind, 1).await;
    }
    for generation in 1..3 {
        for name in &names {
            assert_eq!(peer.sent_to_group(name, b"x").await, Outcome::Confirmed);
        }
        assert_eq!(peer.delivered(names.len()).await.len(), names.len());
        peer.record().deliveries.clear();
        if generation == 1 {
            proxy.cut();
            peer.until_generation(2).await;
        }
    }
    assert_eq!(
        peer.record().bindings.len(),
        bind.len(),
        "none is bound again"
    );
    // The new link does not know yet that the parts are there.
    let unbind: Vec<_> = bind
        .into_iter()
        .map(|bind| BindingChange {
            verb: Verb::Unbind,
            ..bind
        })
        .collect();
    peer.broker.change_bindings(2, unbind.clone());
    for unbind in &unbind {
        peer.bound(unbind, 1).await;
    }
    for name in &names {
        assert_eq!(
            peer.sent_to_group(name, b"nobody").await,
            Outcome::Confirmed
        );
    }
    let token = peer.send(to(&peer.queue), b"last");
    assert_eq!(peer.outcome(token).await, Outcome::Confirmed);
    assert_eq!(peer.delivered(1).await, [b"last"]);
    peer.close(SECOND).await;
}

/// A layer behind `proxy` with group `a`, and its groups exchange.
async fn bound_to_a(proxy: &Proxy) -> (Peer, String) {
    let exchange = unique("groups");
    let options = [("groups_exchange", exchange.as_str())];
    let peer = Peer::ready(&proxy.opener(), &options).await;
    peer.record().groups = vec!["a".into()];
    let bind = BindingChange::bind("a");
    peer.broker.change_bindings(1, vec![bind.clone()]);
    peer.bound(&bind, 1).await;
    (peer, exchange)
}

/// Cuts the layer off until the proxy is not frozen any more.
async fn keep_away(peer: &Peer, proxy: &Proxy) {
    proxy.frozen.store(true, Ordering::Relaxed);
    proxy.cut();
    peer.until("the loss", |record| {
        (record.times_unbound > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_was_deleted_without_a_connection_takes_no_binding_for_granted() {
    let proxy = Proxy::start().await;
    let (peer, exchange) = bound_to_a(&proxy).await;

    let (_link, channel) = beside().await;
    keep_away(&peer, &proxy).await;
    let options = lapin::options::ExchangeDeleteOptions::default();
    let deleted = channel.exchange_delete(exchange.as_str().into(), options);
    deleted.await.expect("it is deleted");
    proxy.frozen.store(false, Ordering::Relaxed);

    // The exchange of the layer's own is there, and nothing is bound to it.
    peer.bound(&BindingChange::bind("a"), 2).await;
    peer.until("ready", |record| {
        matches!(record.states.last(), Some(BrokerState::Ready(2))).then_some(())
    })
    .await;
    assert_eq!(peer.sent_to_group("a", b"x").await, Outcome::Confirmed);
    assert_eq!(peer.delivered(1).await, [b"x"]);
    let earlier = [Earlier::Nothing, Earlier::All(1), Earlier::Nothing];
    assert_eq!(peer.record().earlier, earlier);
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_lost_before_the_layer_knows_its_exchange_passes_nothing_on() {
    let proxy = Proxy::start().await;
    let (peer, _) = bound_to_a(&proxy).await;
    let private = {
        let sent = String::from_utf8_lossy(&proxy.seen.lock()).into_owned();
        let begin = sent.find(&format!("{}.groups.", peer.queue));
        let begin = begin.expect("its name");
        sent[begin..begin + peer.queue.len() + ".groups.".len() + 12].to_owned()
    };

    let (_link, channel) = beside().await;
    keep_away(&peer, &proxy).await;
    // As after more than a minute, or a restart of the broker.
    let options = lapin::options::ExchangeDeleteOptions::default();
    let deleted = channel.exchange_delete(private.as_str().into(), options);
    deleted.await.expect("it is deleted");
    // What the attempt with the old exchange has left is deleted when another stands.
    proxy.cuts_at_delete.store(true, Ordering::Relaxed);
    proxy.frozen.store(false, Ordering::Relaxed);
    peer.until("ready", |record| {
        let is_ready = matches!(record.states.last(), Some(BrokerState::Ready(2..)));
        is_ready.then_some(())
    })
    .await;
    let was_cut = !proxy.cuts_at_delete.load(Ordering::Relaxed);
    assert!(was_cut, "nothing was deleted");
    assert_eq!(peer.sent_to_group("a", b"x").await, Outcome::Confirmed);
    assert_eq!(peer.delivered(1).await, [b"x"]);
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broker_does_not_hold_up_close() {
    let proxy = Proxy::start().await;
    let peer = Peer::ready(&proxy.opener(), &[]).await;
    proxy.frozen.store(true, Ordering::Relaxed);
    let token = peer.send(to(&peer.queue), b"x");
    sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    peer.close(SECOND).await;
    assert!(
        begin.elapsed() < SECOND + SECOND / 2,
        "{:?}",
        begin.elapsed()
    );
    let outcome = peer.record().outcomes.get(&token).cloned();
    assert!(
        matches!(outcome, Some(Outcome::Unconfirmed(_))),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_close_overtakes_a_longer_one() {
    let proxy = Proxy::start().await;
    let peer = Peer::ready(&proxy.opener(), &[]).await;
    proxy.frozen.store(true, Ordering::Relaxed);
    peer.send(to(&peer.queue), b"x");
    sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    let long = peer.broker.close(60 * SECOND);
    peer.close(SECOND / 5).await;
    long.await;
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_is_given_up_by_its_heartbeats() {
    let proxy = Proxy::start().await;
    let peer = Peer::ready(
        &proxy.opener(),
        &[("heartbeat", "1"), ("connect_timeout", "1")],
    )
    .await;
    proxy.frozen.store(true, Ordering::Relaxed);
    let token = peer.send(to(&peer.queue), b"x");
    let outcome = peer.outcome(token).await;
    assert!(matches!(outcome, Outcome::Unconfirmed(_)), "{outcome:?}");
    proxy.cut();
    proxy.frozen.store(false, Ordering::Relaxed);
    peer.until("Ready", |record| {
        matches!(record.states.last(), Some(BrokerState::Ready(2..))).then_some(())
    })
    .await;
    peer.close(SECOND).await;
}

/// An AMQP channel beside the layer's.
async fn beside() -> (Link, lapin::Channel) {
    let (alive, _remains) = mpsc::channel(1);
    let options = connect::Options {
        timeout: 10 * SECOND,
        heartbeat: 0,
        tls: None,
        handle: Handle::current(),
        alive,
    };
    let endpoint = endpoints(&url()).remove(0);
    let addresses = connect::resolve(&endpoint, &options).await.expect("it");
    let stream = connect::tcp(addresses[0], &options).await.expect("a port");
    let link = Link::open(&endpoint, addresses[0], stream, "test".to_owned(), &options)
        .await
        .expect("a connection");
    let channel = link.connection().expect("it").create_channel().await;
    (link, channel.expect("an AMQP channel"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_a_queue_that_is_answered_too_late_costs_no_connection() {
    let peer = Peer::ready(&opener(), &[]).await;
    let queue = || peer.queue.as_str().into();
    let (link, channel) = beside().await;
    let connection = link.connection().expect("it");
    let mut late = 0;
    for _ in 0..20 {
        let asking = connection.create_channel().await.expect("an AMQP channel");
        let closed = asking.clone();
        let look = topology::find_queue(&link, asking, queue(), Duration::ZERO).await;
        assert!(!matches!(look, Ok(own_queue::Look::Free)), "{look:?}");
        late += usize::from(closed.status().connected());
    }
    assert!(late > 0, "each answer was in time");
    // The broker has answered all when it answers this.
    let limit = lapin::options::BasicQosOptions::default();
    channel.basic_qos(1, limit).await.expect("an answer");
    assert!(link.stands());
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_exchange_is_made_again() {
    let exchange = unique("groups");
    let peer = Peer::ready(&opener(), &[("groups_exchange", &exchange)]).await;
    peer.record().groups = vec!["g".into()];
    let (_link, channel) = beside().await;
    let options = lapin::options::ExchangeDeleteOptions::default();
    let deleted = channel.exchange_delete(exchange.as_str().into(), options);
    deleted.await.expect("it is deleted");

    // A publication to an exchange that is not there closes the AMQP channel. It waits until the
    // exchange is there again.
    assert_eq!(peer.sent_to_group("g", b"x").await, Outcome::Confirmed);
    assert_eq!(peer.delivered(1).await, [b"x"]);
    assert_eq!(peer.record().epochs, [1, 2]);

    // So does a binding.
    let deleted = channel.exchange_delete(exchange.as_str().into(), options);
    deleted.await.expect("it is deleted");
    let bind = vec![BindingChange::bind("h")];
    peer.broker.change_bindings(2, bind);
    peer.until("an epoch", |record| {
        (record.epochs == [1, 2, 3]).then_some(())
    })
    .await;
    peer.until("the binding", |record| {
        record
            .bindings
            .contains(&(3, BindingChange::bind("g")))
            .then_some(())
    })
    .await;
    assert_eq!(peer.sent_to_group("g", b"y").await, Outcome::Confirmed);
    assert_eq!(peer.delivered(2).await, [b"x", b"y"]);
    assert_eq!(peer.record().generations, [1], "the queue is the same");
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_with_other_flags_is_reported_with_what_to_do() {
    let exchange = unique("groups");
    let (_link, channel) = beside().await;
    let declared = channel.exchange_declare(
        exchange.as_str().into(),
        lapin::ExchangeKind::Fanout,
        lapin::options::ExchangeDeclareOptions::default(),
        lapin::types::FieldTable::default(),
    );
    declared.await.expect("it is declared");
    let options = [
        ("groups_exchange", exchange.as_str()),
        ("reconnect_max", "0.2"),
    ];
    let peer = Peer::open(&opener(), &unique("channels"), &options);
    let reason = peer
        .until("state", |record| match record.states.last() {
            Some(BrokerState::Refused(reason)) => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("groups_exchange"), "{reason}");
    let options = lapin::options::ExchangeDeleteOptions::default();
    let deleted = channel.exchange_delete(exchange.as_str().into(), options);
    deleted.await.expect("it is deleted");
    peer.until_generation(1).await;
    peer.close(SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_did_not_read_for_a_while_gets_all_that_was_sent() {
    let proxy = Proxy::start().await;
    let peer = Peer::ready(&proxy.opener(), &[]).await;
    proxy.frozen.store(true, Ordering::Relaxed);
    let nobody = || Route::Group("nobody".to_owned());
    // More than fits in all buffers on the way.
    let large = vec![b'x'; 1024 * 1024];
    for _ in 0..24 {
        peer.send(nobody(), &large);
    }
    // Until the I/O thread waits for room; and then there is more.
    sleep(SECOND / 2).await;
    peer.send(nobody(), b"small");
    proxy.frozen.store(false, Ordering::Relaxed);
    let outcomes = peer
        .until("25 outcomes", |record| {
            (record.outcomes.len() == 25).then(|| record.outcomes.clone())
        })
        .await;
    assert!(
        outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Confirmed)
    );
    peer.close(SECOND).await;
}

/// Processor time that the threads of connections take in this process in the next second.
async fn threads_work() -> Duration {
    fn so_far() -> Duration {
        let mut sum = Duration::ZERO;
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if ["lapin-io-loop", "layer-io"].contains(&name.trim()) {
                let times = std::fs::read_to_string(task.path().join("schedstat"));
                let times = times.unwrap_or_default();
                let ran = times.split(' ').next().and_then(|ran| ran.parse().ok());
                sum += Duration::from_nanos(ran.unwrap_or(0));
            }
        }
        sum
    }
    let before = so_far();
    sleep(SECOND).await;
    so_far().saturating_sub(before)
}

/// A thread that spins takes the whole second.
const AT_REST: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_rest_while_the_broker_is_silent_before_a_session_and_after_it() {
    let proxy = Proxy::start().await;
    let peer = Peer::open(
        &proxy.opener(),
        &unique("channels"),
        &[("connect_timeout", "4")],
    );
    peer.until("a generation", |record| {
        (!record.generations.is_empty()).then_some(())
    })
    .await;
    proxy.frozen.store(true, Ordering::Relaxed);
    assert!(threads_work().await < AT_REST);
    proxy.frozen.store(false, Ordering::Relaxed);
    peer.until("ready", |record| {
        matches!(record.states.last(), Some(BrokerState::Ready(_))).then_some(())
    })
    .await;
    proxy.frozen.store(true, Ordering::Relaxed);
    let closing = peer.broker.close(3 * SECOND);
    assert!(threads_work().await < AT_REST);
    closing.await;
}
