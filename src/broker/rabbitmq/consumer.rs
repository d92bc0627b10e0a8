//! Takes deliveries in and lets the broker send more.
//!
//! The AMQP channel is fresh and has one consumer, so its delivery tags count from 1: letting go
//! of `n` more is one cumulative ack of the tag `n` further on.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connect::Link;
use super::failure::{End, Failure, TOO_FEW_CHANNELS};
use super::gathering::time_to_gather;
use super::io::{Handler, Io, Task, Turn};
use super::probe::probe_id;
use super::shared::Shared;
use super::topology::Topology;
use crate::amqp::{Header, Incoming, Name};
use crate::broker::{Delivery, Generation};

/// How many deliveries go to the layer at once.
const BATCH: usize = 256;

/// How long an ack may wait for others.
const ACK_DELAY: Duration = Duration::from_millis(1);

/// So much room is made for a body on its word. For more, it has to come.
const ROOM_FOR_BODY: u64 = 1 << 20;

/// Why a consumer ends where the broker does something that AMQP does not have.
const CONFUSED: &str = "the broker sent what no consumer expects";

/// A message that is arriving.
#[derive(Debug)]
struct Content {
    redelivered: bool,
    /// How much of the body is to come; `None` before the header.
    left: Option<u64>,
    body: Vec<u8>,
    /// It is a probe, which is for no receiver.
    probe: Option<String>,
}

/// What has arrived.
#[derive(Debug)]
enum Arrival {
    /// A probe of this id, which is for no receiver.
    Probe(String),
    /// A message that the layer has had.
    Repeated,
    Message(Delivery),
}

/// What has arrived and may be acked, and when.
#[derive(Debug)]
struct Acks {
    prefetch: u64,
    received: u64,
    acked: u64,
    /// Let go, but not acked yet; without what is in [`super::credit::Credit`].
    due: u64,
    /// How many messages the broker sends once more that the layer has had.
    repeated: u64,
}

impl Acks {
    fn new(prefetch: u16, repeated: u64) -> Self {
        Self {
            prefetch: prefetch.into(),
            received: 0,
            acked: 0,
            due: 0,
            repeated,
        }
    }

    /// Takes one message in. What is not for the layer is let go.
    fn take(&mut self, content: Content) -> Arrival {
        let Content {
            redelivered,
            body,
            probe,
            ..
        } = content;
        self.received += 1;
        if let Some(id) = probe {
            self.due += 1;
            return Arrival::Probe(id);
        }
        // What was put back into the queue stands in front of all that is new.
        if !redelivered {
            self.repeated = 0;
        } else if self.repeated > 0 {
            self.repeated -= 1;
            self.due += 1;
            return Arrival::Repeated;
        }
        Arrival::Message(Delivery { body, redelivered })
    }

    /// Whether the broker may send nothing until the layer lets go of something.
    fn are_used_up(&self) -> bool {
        self.received - self.acked >= self.prefetch + self.due
    }

    /// How many deliveries have not been acked.
    fn unacked(&self) -> u64 {
        self.received - self.acked
    }

    /// How much must be let go for an ack at once: half of what the broker may send ahead, or
    /// anything when it waits for us.
    fn urgent(&self) -> u64 {
        if self.received - self.acked >= self.prefetch {
            1
        } else {
            (self.prefetch / 2).max(1)
        }
    }

    /// How many messages the broker may send before it waits for an ack.
    fn may_follow(&self) -> u64 {
        self.prefetch.saturating_sub(self.received - self.acked)
    }

    /// The tag to ack, if there is one.
    fn next(&mut self) -> Option<u64> {
        let due = std::mem::take(&mut self.due).min(self.received - self.acked);
        self.acked += due;
        (due > 0).then_some(self.acked)
    }
}

/// How a consumer ended whose connection stands.
#[derive(Debug)]
pub(super) struct ConsumerEnd {
    /// The broker has closed the AMQP channel since a delivery was not acked within its
    /// `consumer_timeout`, and puts back into the queue what was not acked: so many messages.
    pub(super) unacked: u64,
}

/// The AMQP channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { channel: u16 },
}

/// A consumer at work.
pub(super) struct Consumer {
    pub(super) task: Task,
    /// Filled when it has ended for the broker's `consumer_timeout`.
    pub(super) ended: Arc<OnceLock<ConsumerEnd>>,
}

impl Consumer {
    /// Consumes the own queue on an AMQP channel of its own. `repeated` messages will come once more.
    pub(super) async fn open(
        shared: Arc<Shared>,
        generation: Generation,
        link: &Link,
        topology: &Topology,
        repeated: u64,
    ) -> Result<Self, Failure> {
        let (tells, opened) = oneshot::channel();
        let ended: Arc<OnceLock<ConsumerEnd>> = Arc::default();
        let mut task = link.io().begin(Engine {
            shared,
            generation,
            queue: topology.queue.clone(),
            prefetch: topology.prefetch,
            state: State::Closed,
            opened: Some(tells),
            content: None,
            batch: Vec::with_capacity(BATCH),
            ended: Arc::clone(&ended),
            acks: Acks::new(topology.prefetch, repeated),
            ack_at: None,
        });
        match timeout(topology.timeout, opened).await {
            Ok(Ok(())) => Ok(Self { task, ended }),
            Ok(Err(_)) => Err(topology.ended(&task.ended().await)),
            Err(_) => Err(Failure::silence(topology.timeout)),
        }
    }
}

/// What consumes on the I/O thread.
struct Engine {
    shared: Arc<Shared>,
    generation: Generation,
    queue: String,
    prefetch: u16,
    state: State,
    /// Told when it consumes.
    opened: Option<oneshot::Sender<()>>,
    content: Option<Content>,
    batch: Vec<Delivery>,
    ended: Arc<OnceLock<ConsumerEnd>>,
    acks: Acks,
    /// When what is due is acked, be it as little as it may.
    ack_at: Option<Instant>,
}

impl Engine {
    fn open(&mut self, io: &mut Io<'_>) -> Result<(), End> {
        let channel = io.take_channel().ok_or(TOO_FEW_CHANNELS)?;
        self.state = State::Open { channel };
        // Names of queues are short.
        let queue = Name::new(&self.queue).unwrap_or_default();
        let mut writer = io.writer(channel);
        writer.channel_open();
        writer.qos(self.prefetch);
        writer.consume(queue, Name::default());
        Ok(())
    }

    /// The whole of a message is here.
    fn arrived(&mut self) -> Result<(), End> {
        let content = self.content.take().ok_or(CONFUSED)?;
        match self.acks.take(content) {
            Arrival::Probe(id) => self.shared.arrivals.add_probe(id),
            Arrival::Repeated => {}
            Arrival::Message(message) => self.batch.push(message),
        }
        if self.batch.len() >= BATCH {
            self.deliver()?;
        }
        Ok(())
    }

    /// So much more of a body is here.
    fn grown(&mut self, count: usize) -> Result<(), End> {
        let content = self.content.as_mut().ok_or(CONFUSED)?;
        let left = content.left.ok_or(CONFUSED)?;
        let left = left.checked_sub(count as u64).ok_or(CONFUSED)?;
        content.left = Some(left);
        if left == 0 { self.arrived() } else { Ok(()) }
    }

    /// Gives the layer what has arrived.
    fn deliver(&mut self) -> Result<(), End> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let Some(host) = self.shared.host.upgrade() else {
            return Err("the layer is gone".into());
        };
        self.shared.arrivals.add_delivered(self.batch.len() as u64);
        let let_go = host.deliver(self.generation, &mut self.batch);
        self.batch.clear();
        self.acks.due += let_go as u64;
        Ok(())
    }

    /// Acks at once what is urgent, and the rest when its time has come.
    fn ack_what_is_due(&mut self, io: &mut Io<'_>) {
        let credit = &self.shared.credit;
        let wake_at = self.acks.urgent().saturating_sub(self.acks.due).max(1);
        credit.wake_at(wake_at);
        let due = self.acks.due + u64::from(credit.count());
        if due == 0 {
            self.ack_at = None;
            return;
        }
        let is_urgent = due >= self.acks.urgent();
        if is_urgent || io.now >= *self.ack_at.get_or_insert(io.now + ACK_DELAY) {
            self.ack_at = None;
            self.ack(io);
        }
    }

    fn ack(&mut self, io: &mut Io<'_>) {
        self.acks.due += u64::from(self.shared.credit.take(self.generation));
        if let State::Open { channel } = self.state
            && let Some(tag) = self.acks.next()
        {
            io.writer(channel).ack(tag, true);
        }
    }
}

impl Handler for Engine {
    fn method(&mut self, channel: u16, method: &Incoming<'_>, io: &mut Io<'_>) -> Result<(), End> {
        match method {
            Incoming::Deliver { redelivered, .. } => {
                self.content = Some(Content {
                    redelivered: *redelivered,
                    left: None,
                    body: Vec::new(),
                    probe: None,
                });
                Ok(())
            }
            Incoming::ChannelOpenOk | Incoming::QosOk => Ok(()),
            Incoming::ConsumeOk { .. } => {
                if let Some(opened) = self.opened.take() {
                    // Who does not wait any more ends this.
                    let _ = opened.send(());
                }
                Ok(())
            }
            Incoming::Cancel { .. } => Err("the broker ended the consumer of our queue".into()),
            Incoming::ChannelClose(close) => {
                io.writer(channel).channel_close_ok();
                io.release_channel(channel);
                self.state = State::Closed;
                // What has arrived before is the layer's, and counts as that.
                self.deliver()?;
                let end = End::said(close);
                if end.is_ack_timeout() {
                    let unacked = self.acks.unacked();
                    // It ends once.
                    let _ = self.ended.set(ConsumerEnd { unacked });
                }
                Err(end)
            }
            Incoming::ChannelFlow { active } => {
                io.writer(channel).channel_flow_ok(*active);
                Ok(())
            }
            _ => Err(CONFUSED.into()),
        }
    }

    fn header(&mut self, _: u16, header: &Header<'_>, _: &mut Io<'_>) -> Result<(), End> {
        let content = self.content.as_mut().ok_or(CONFUSED)?;
        content.left = Some(header.body_size);
        content.probe = probe_id(header).map(str::to_owned);
        let room = header.body_size.min(ROOM_FOR_BODY);
        content
            .body
            .reserve_exact(usize::try_from(room).unwrap_or(0));
        if header.body_size == 0 {
            self.arrived()?;
        }
        Ok(())
    }

    fn body(&mut self, _: u16, part: &[u8], _: &mut Io<'_>) -> Result<(), End> {
        let content = self.content.as_mut().ok_or(CONFUSED)?;
        content.body.extend_from_slice(part);
        self.grown(part.len())
    }

    fn body_buffer(&mut self, _: u16) -> Option<&mut Vec<u8>> {
        let content = self.content.as_mut()?;
        let left = content.left?.min(ROOM_FOR_BODY);
        if content.body.capacity() == content.body.len() {
            content.body.reserve(usize::try_from(left).unwrap_or(0));
        }
        Some(&mut content.body)
    }

    fn body_was_read(&mut self, _: u16, count: usize, _: &mut Io<'_>) -> Result<(), End> {
        self.grown(count)
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, End> {
        if self.state == State::Closed {
            self.open(io)?;
        }
        self.shared.credit.register(io.waker);
        let count = self.batch.len();
        self.deliver()?;
        let arrivals = &self.shared.arrivals;
        arrivals.set_credit_used_up(self.acks.are_used_up());
        self.ack_what_is_due(io);
        Ok(Turn {
            due: self.ack_at,
            gather: time_to_gather(count, self.acks.may_follow()),
        })
    }

    fn end(&mut self, _: &End) {
        // What has arrived whole is delivered. If the layer is gone, nobody receives.
        let _ = self.deliver();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::io::TestIo;
    use super::super::probe::KIND;
    use super::*;
    use crate::amqp::Close;
    use crate::broker::Host;
    use crate::broker::testing::FakeHost;

    #[test]
    fn acks_are_cumulative_and_urgent_when_the_broker_waits() {
        let mut acks = Acks {
            received: 6,
            ..Acks::new(10, 0)
        };
        assert_eq!(acks.urgent(), 5);
        assert_eq!(acks.next(), None);
        acks.due = 4;
        assert_eq!(acks.next(), Some(4));
        assert_eq!(acks.may_follow(), 8);
        acks.received = 14;
        assert_eq!(acks.may_follow(), 0);
        assert_eq!(acks.urgent(), 1);
        // More than is held is never acked: the broker would close the AMQP channel.
        acks.due = 100;
        assert_eq!(acks.next(), Some(14));
        acks.due = 1;
        assert_eq!(acks.next(), None);
    }

    #[test]
    fn the_smallest_prefetch_acks_each_at_once() {
        assert_eq!(Acks::new(1, 0).urgent(), 1);
    }

    #[test]
    fn credit_is_used_up_by_what_the_layer_holds_and_not_by_what_will_be_acked_next() {
        let mut acks = Acks {
            received: 2,
            ..Acks::new(2, 0)
        };
        assert!(acks.are_used_up());
        // One of them was a probe.
        acks.due = 1;
        assert!(!acks.are_used_up());
    }

    fn delivery(redelivered: bool) -> Content {
        Content {
            redelivered,
            left: Some(0),
            body: b"x".to_vec(),
            probe: None,
        }
    }

    #[test]
    fn a_probe_is_acked_by_itself_so_that_the_smallest_prefetch_is_not_used_up() {
        let mut acks = Acks::new(1, 0);
        for tag in 1..=3 {
            let probe = Content {
                probe: Some("1-2-0".to_owned()),
                ..delivery(false)
            };
            match acks.take(probe) {
                Arrival::Probe(id) => assert_eq!(id, "1-2-0"),
                other => panic!("{other:?}"),
            }
            assert!(!acks.are_used_up(), "probe {tag} keeps the broker waiting");
            assert_eq!(acks.next(), Some(tag));
        }
        assert!(matches!(acks.take(delivery(false)), Arrival::Message(_)));
        assert!(acks.are_used_up());
        assert_eq!(
            acks.next(),
            None,
            "a message is acked when the layer says so"
        );
    }

    #[test]
    fn what_the_broker_flags_as_redelivered_reaches_the_layer_so_unless_it_is_known() {
        let mut acks = Acks::new(10, 2);
        let mut take = |redelivered| match acks.take(delivery(redelivered)) {
            Arrival::Message(message) => Some((message.body, message.redelivered)),
            Arrival::Repeated => None,
            Arrival::Probe(id) => panic!("no probe: {id}"),
        };
        let message = |redelivered| Some((b"x".to_vec(), redelivered));
        assert_eq!([take(true), take(true)], [None, None]);
        assert_eq!(take(true), message(true));
        assert_eq!(take(false), message(false));
        assert_eq!(acks.next(), Some(2));

        // What is new comes after all that was put back.
        let mut acks = Acks::new(10, 2);
        assert!(matches!(acks.take(delivery(false)), Arrival::Message(_)));
        assert!(matches!(acks.take(delivery(true)), Arrival::Message(_)));
    }

    /// A consumer on AMQP channel 1, without a thread or a broker.
    struct Rig {
        engine: Engine,
        io: TestIo,
        host: Arc<FakeHost>,
    }

    impl Rig {
        fn new(prefetch: u16) -> Self {
            let host = Arc::new(FakeHost::default());
            let weak: std::sync::Weak<dyn Host> = Arc::<FakeHost>::downgrade(&host);
            let shared = Arc::new(Shared::new(weak, mpsc::unbounded_channel().0));
            shared.credit.begin(1);
            let engine = Engine {
                shared,
                generation: 1,
                queue: "own".to_owned(),
                prefetch,
                state: State::Closed,
                opened: None,
                content: None,
                batch: Vec::new(),
                ended: Arc::default(),
                acks: Acks::new(prefetch, 0),
                ack_at: None,
            };
            let mut rig = Self {
                engine,
                io: TestIo::new(1),
                host,
            };
            rig.turn();
            rig.io.written();
            rig
        }

        fn turn(&mut self) -> Turn {
            self.engine.turn(&mut self.io.io()).expect("it goes on")
        }

        fn method(&mut self, method: &Incoming<'_>) -> Result<(), End> {
            self.engine.method(1, method, &mut self.io.io())
        }

        fn deliver(&mut self, tag: u64, parts: &[&[u8]], kind: Option<&[u8]>) {
            let deliver = Incoming::Deliver {
                consumer_tag: b"",
                delivery_tag: tag,
                redelivered: false,
            };
            self.method(&deliver).expect("a delivery");
            let header = Header {
                body_size: parts.iter().map(|part| part.len() as u64).sum(),
                message_id: Some(b"1-2-0"),
                kind,
            };
            let io = &mut self.io.io();
            self.engine.header(1, &header, io).expect("its header");
            for part in parts {
                self.engine.body(1, part, io).expect("its body");
            }
        }

        fn delivered(&self) -> Vec<Vec<u8>> {
            let record = self.host.record();
            let bodies = record.deliveries.iter();
            bodies.map(|delivery| delivery.body.clone()).collect()
        }
    }

    #[test]
    fn a_body_comes_in_parts_or_not_at_all_and_a_probe_is_for_no_receiver() {
        let mut rig = Rig::new(10);
        rig.deliver(1, &[b"ab", b"c"], None);
        rig.deliver(2, &[], None);
        rig.deliver(3, &[b"x"], Some(KIND.as_bytes()));
        rig.turn();
        assert_eq!(rig.delivered(), [b"abc".to_vec(), Vec::new()]);
        assert_eq!(rig.engine.shared.arrivals.take_probes(), ["1-2-0"]);
    }

    #[test]
    fn a_body_that_is_longer_than_was_said_ends_the_consumer() {
        let mut rig = Rig::new(10);
        rig.deliver(1, &[b"abc"], None);
        let io = &mut rig.io.io();
        assert!(rig.engine.body(1, b"d", io).is_err());
    }

    #[test]
    fn what_had_arrived_when_the_broker_closed_the_channel_is_delivered_once() {
        let mut rig = Rig::new(10);
        rig.host.record().hold = true;
        rig.deliver(1, &[b"first"], None);
        rig.deliver(2, &[b"second"], None);
        let close = Incoming::ChannelClose(Close {
            reply_code: 406,
            reply_text: b"PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out",
            class: 0,
            method: 0,
        });
        let end = rig.method(&close).expect_err("it has ended");
        rig.engine.end(&end);
        assert_eq!(rig.delivered(), [b"first".to_vec(), b"second".to_vec()]);
        let ended = rig.engine.ended.get().expect("for the timeout");
        assert_eq!(ended.unacked, 2);
    }

    #[test]
    fn what_had_arrived_when_the_connection_ended_is_delivered() {
        let mut rig = Rig::new(10);
        rig.deliver(1, &[b"last"], None);
        rig.engine.end(&"the connection was cut".into());
        assert_eq!(rig.delivered(), [b"last".to_vec()]);
    }

    #[test]
    fn acks_wait_a_millisecond_for_others_and_no_longer() {
        let mut rig = Rig::new(1000);
        rig.deliver(1, &[b"x"], None);
        let due = rig.turn().due.expect("an ack is due");
        assert_eq!(due, rig.io.now + ACK_DELAY);
        assert!(rig.io.written().is_empty());
        rig.io.now = due;
        assert_eq!(rig.turn().due, None);
        assert!(!rig.io.written().is_empty());
    }
}
