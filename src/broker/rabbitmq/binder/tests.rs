//! The binder on an I/O thread that is not there, and before a broker that answers in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use amq_protocol::protocol::channel::AMQPMethod as Channel;
use amq_protocol::protocol::exchange::AMQPMethod as Exchange;
use amq_protocol::protocol::queue::AMQPMethod as Queue;
use amq_protocol::protocol::{AMQPClass, exchange};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::amqp::Close;
use crate::broker::rabbitmq::io::TestIo;
use crate::broker::rabbitmq::parts::Made;
use crate::broker::testing::FakeHost;
use crate::config::Config;

const EPOCH: BindingEpoch = 4;

const NOT_FOUND: Close<'_> = Close {
    reply_code: 404,
    reply_text: b"NOT_FOUND - no exchange 'groups'",
    class: 40,
    method: 30,
};

/// A binder, and what it sees of the world.
struct Rig {
    engine: Engine,
    io: TestIo,
    host: Arc<FakeHost>,
    shared: Arc<Shared>,
    limit: Arc<LaneLimit>,
    opened: oneshot::Receiver<Result<(), Failure>>,
}

fn private() -> Destination {
    Destination::Exchange("private".to_owned(), Some(Made::default()))
}

fn own_queue() -> Destination {
    Destination::Queue("own".to_owned())
}

fn bind(number: u32) -> BindingChange {
    BindingChange::bind(&format!("g{number}"))
}

fn binds(numbers: std::ops::Range<u32>) -> Vec<BindingChange> {
    numbers.map(bind).collect()
}

impl Rig {
    /// The broker allows `channels` AMQP channels, of which all may be lanes.
    fn new(channels: u16, destination: Destination, changes: Vec<BindingChange>) -> Self {
        let host = Arc::new(FakeHost::default());
        let weak = Arc::downgrade(&host);
        let shared = Arc::new(Shared::new(weak, mpsc::unbounded_channel().0));
        shared.bindings.begin(EPOCH);
        let settings = Config::new().settings().expect("settings");
        let topology = Topology::new("own".to_owned(), &settings);
        let io = TestIo::new(channels);
        let limit: Arc<LaneLimit> = Arc::default();
        let (tells, opened) = oneshot::channel();
        let bindings = Bindings {
            epoch: EPOCH,
            destination,
            changes,
        };
        let engine = Engine::new(
            Arc::clone(&shared),
            &topology,
            (Arc::clone(&limit), channels.into()),
            bindings,
            tells,
            io.now,
        );
        Self {
            engine,
            io,
            host,
            shared,
            limit,
            opened,
        }
    }

    fn turn(&mut self) -> Result<Turn, End> {
        self.engine.turn(&mut self.io.io())
    }

    fn method(&mut self, channel: u16, method: &Incoming<'_>) {
        let dealt = self.engine.method(channel, method, &mut self.io.io());
        dealt.expect("a method that AMQP has here");
    }

    /// What was written since the last time.
    fn written(&mut self) -> Vec<(u16, AMQPClass)> {
        let bytes = self.io.written();
        let mut rest = bytes.as_slice();
        let mut methods = Vec::new();
        while !rest.is_empty() {
            let (left, frame) = parse_frame(rest).expect("a frame");
            let AMQPFrame::Method(channel, method) = frame else {
                panic!("{frame:?}");
            };
            methods.push((channel, method));
            rest = left;
        }
        methods
    }

    /// The same, in words.
    fn sent(&mut self) -> Vec<(u16, &'static str)> {
        let methods = self.written().into_iter();
        methods
            .map(|(channel, method)| (channel, word(&method)))
            .collect()
    }

    /// Runs until one lane is open, and all is sent that can be.
    fn open_first(&mut self) {
        self.turn().expect("work");
        assert_eq!(self.sent(), [(1, "open")]);
        self.method(1, &Incoming::ChannelOpenOk);
        self.turn().expect("work");
    }

    fn told(&self) -> Vec<BindingChange> {
        let record = self.host.record();
        let told = record.bindings.iter();
        told.map(|(epoch, change)| {
            assert_eq!(*epoch, EPOCH);
            change.clone()
        })
        .collect()
    }

    fn is_opened(&mut self) -> bool {
        match self.opened.try_recv() {
            Ok(opened) => opened.is_ok(),
            Err(TryRecvError::Empty | TryRecvError::Closed) => false,
        }
    }
}

fn word(method: &AMQPClass) -> &'static str {
    match method {
        AMQPClass::Channel(Channel::Open(_)) => "open",
        AMQPClass::Channel(Channel::Close(_)) => "close",
        AMQPClass::Channel(Channel::CloseOk(_)) => "close-ok",
        AMQPClass::Basic(Basic::Qos(_)) => "qos",
        AMQPClass::Exchange(Exchange::Bind(_)) | AMQPClass::Queue(Queue::Bind(_)) => "bind",
        AMQPClass::Exchange(Exchange::Unbind(_)) | AMQPClass::Queue(Queue::Unbind(_)) => "unbind",
        AMQPClass::Exchange(Exchange::Declare(exchange::Declare { passive, .. })) => {
            if *passive {
                "find"
            } else {
                "make"
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_told_when_the_barrier_behind_it_is_answered() {
    let mut rig = Rig::new(4, private(), binds(0..2));
    rig.open_first();
    assert_eq!(rig.sent(), [(1, "bind"), (1, "bind"), (1, "qos")]);
    rig.turn().expect("work");
    assert!(rig.told().is_empty() && !rig.is_opened());
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert_eq!(rig.told(), binds(0..2));
    assert!(rig.is_opened());
    assert!(rig.sent().is_empty());
}

#[test]
fn a_binder_without_groups_is_open_once_its_first_channel_is() {
    let mut rig = Rig::new(4, private(), Vec::new());
    rig.turn().expect("work");
    assert!(!rig.is_opened());
    rig.method(1, &Incoming::ChannelOpenOk);
    rig.turn().expect("work");
    assert!(rig.is_opened());
}

#[test]
fn what_the_layer_wants_meanwhile_waits_until_all_is_bound_that_is_to_be_first() {
    let mut rig = Rig::new(4, private(), binds(0..1));
    rig.shared.bindings.push(EPOCH, binds(5..6));
    rig.open_first();
    assert_eq!(rig.sent(), [(1, "bind"), (1, "qos")]);
    rig.shared.bindings.push(EPOCH, binds(6..7));
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert!(rig.is_opened());
    assert_eq!(rig.sent(), [(1, "bind"), (1, "bind"), (1, "qos")]);
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert_eq!(rig.told(), [bind(0), bind(5), bind(6)]);
}

#[test]
fn what_is_bound_to_the_queue_itself_is_told_once_all_is() {
    let changes = || binds(0..40);
    let mut rig = Rig::new(1, own_queue(), changes());
    rig.open_first();
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert!(rig.told().is_empty(), "8 are not done");
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert_eq!(rig.told(), changes());

    // Later changes are told as they are done, and `queue.unbind` has an answer that means nothing.
    rig.sent();
    let unbind = BindingChange::unbind("g7");
    rig.shared.bindings.push(EPOCH, vec![unbind.clone()]);
    rig.turn().expect("work");
    assert_eq!(rig.sent(), [(1, "unbind"), (1, "qos")]);
    rig.method(1, &Incoming::QueueUnbindOk);
    rig.turn().expect("work");
    assert_eq!(rig.told().len(), 40);
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    assert_eq!(rig.told().last(), Some(&unbind));

    // Where not all of it was bound, nothing was.
    let mut rig = Rig::new(1, own_queue(), changes());
    rig.open_first();
    rig.method(1, &Incoming::QosOk);
    rig.turn().expect("work");
    rig.engine.end(&"the connection was cut".into());
    assert!(rig.told().is_empty());
}

#[test]
fn what_is_done_is_told_also_where_the_binder_ends_at_once() {
    let mut rig = Rig::new(1, private(), binds(0..2));
    rig.open_first();
    rig.method(1, &Incoming::QosOk);
    rig.engine.end(&"the connection was cut".into());
    assert_eq!(rig.told(), binds(0..2));
}

/// Two lanes with changes under way.
fn two_lanes() -> Rig {
    let mut rig = Rig::new(2, private(), binds(0..100));
    rig.open_first();
    assert_eq!(rig.sent().last(), Some(&(2, "open")));
    rig.method(2, &Incoming::ChannelOpenOk);
    rig.turn().expect("work");
    rig.sent();
    rig
}

#[test]
fn a_channel_that_the_broker_closes_is_answered_and_ends_all_once_they_are_closed() {
    let mut rig = two_lanes();
    rig.method(1, &Incoming::ChannelClose(NOT_FOUND));
    assert_eq!(rig.sent(), [(1, "close-ok"), (2, "close")]);
    assert!(rig.io.is_free(1) && !rig.io.is_free(2));
    let turn = rig.turn().expect("the other one is not closed");
    assert_eq!(turn.due, Some(rig.io.now + rig.engine.patience));
    // What the other one has done is done.
    rig.method(2, &Incoming::QosOk);
    rig.method(2, &Incoming::ChannelCloseOk);
    assert!(rig.io.is_free(2));
    let end = rig.turn().expect_err("it is over");
    assert_eq!(end.code, Some(404));
    assert!(end.why.contains("no exchange 'groups'"), "{}", end.why);
    assert_eq!(rig.told().len(), 32);
    assert!(rig.sent().is_empty());
}

#[test]
fn a_channel_that_both_sides_close_at_once_is_free_when_the_broker_answers() {
    let mut rig = two_lanes();
    rig.method(1, &Incoming::ChannelClose(NOT_FOUND));
    rig.sent();
    rig.method(2, &Incoming::ChannelClose(NOT_FOUND));
    assert_eq!(rig.sent(), [(2, "close-ok")]);
    assert!(!rig.io.is_free(2));
    assert!(rig.turn().is_ok());
    rig.method(2, &Incoming::ChannelCloseOk);
    assert!(rig.io.is_free(2));
    assert!(rig.turn().is_err());
}

#[test]
fn a_broker_that_does_not_answer_a_close_is_not_waited_for_for_ever() {
    let mut rig = two_lanes();
    rig.method(1, &Incoming::ChannelClose(NOT_FOUND));
    rig.io.now = rig.turn().expect("it waits").due.expect("a limit");
    assert_eq!(rig.turn().expect_err("it is over").code, Some(404));
}

#[test]
fn a_binder_whose_epoch_is_over_closes_its_channels_and_ends() {
    let mut rig = two_lanes();
    rig.shared.bindings.end();
    assert!(rig.turn().is_ok());
    assert_eq!(rig.sent(), [(1, "close"), (2, "close")]);
    rig.method(2, &Incoming::ChannelCloseOk);
    assert!(rig.turn().is_ok());
    assert!(rig.sent().is_empty(), "once");
    rig.method(1, &Incoming::ChannelCloseOk);
    assert!(rig.turn().is_err());
    assert!(rig.io.is_free(1) && rig.io.is_free(2));
}

#[test]
fn each_answer_leaves_the_next_one_the_whole_time() {
    let mut rig = Rig::new(1, private(), binds(0..64));
    rig.open_first();
    let patience = rig.engine.patience;
    rig.io.now += patience - Duration::from_millis(1);
    rig.method(1, &Incoming::QosOk);
    let turn = rig.turn().expect("it waits on");
    assert_eq!(turn.due, Some(rig.io.now + patience));
    rig.io.now += patience;
    assert!(rig.turn().is_err());
    let failure = rig.opened.try_recv().expect("told").expect_err("a failure");
    assert!(failure.is_silence);

    // Later there is no hurry: heartbeats show whether the broker is alive.
    let mut rig = Rig::new(1, private(), Vec::new());
    rig.open_first();
    rig.shared.bindings.push(EPOCH, binds(0..1));
    rig.turn().expect("work");
    rig.io.now += 2 * patience;
    assert!(rig.turn().is_ok());
}

#[test]
fn a_connection_without_a_channel_for_bindings_is_told_as_such() {
    let mut rig = Rig::new(0, private(), Vec::new());
    assert_eq!(rig.turn().expect_err("none").why, TOO_FEW_CHANNELS);
}

#[test]
fn a_user_that_may_have_no_more_channels_has_one_lane_from_then_on() {
    let not_allowed = End {
        why: "the broker says 530".to_owned(),
        code: Some(530),
    };
    let most = |rig: &Rig| rig.limit.for_connection(10, 0);
    let mut rig = two_lanes();
    rig.engine.end(&not_allowed);
    assert_eq!(most(&rig), 10, "it was for something else");
    let mut rig = Rig::new(2, private(), binds(0..100));
    rig.open_first();
    rig.engine.end(&"the connection was cut".into());
    assert_eq!(most(&rig), 10);
    let mut rig = Rig::new(2, private(), binds(0..100));
    rig.open_first();
    rig.engine.end(&not_allowed);
    assert_eq!(most(&rig), 1);
}

#[test]
fn parts_are_made_before_their_groups_are_bound_and_looked_for_from_time_to_time() {
    let mut rig = Rig::new(1, private(), vec![bind(0).at(2000), bind(1).at(2001)]);
    rig.open_first();
    assert_eq!(rig.sent(), [(1, "make"), (1, "bind"), (1, "qos")]);
    rig.method(1, &Incoming::QosOk);
    assert!(rig.turn().is_ok() && !rig.is_opened());
    assert_eq!(rig.sent(), [(1, "bind"), (1, "bind"), (1, "qos")]);
    rig.method(1, &Incoming::QosOk);
    let turn = rig.turn().expect("work");
    assert!(rig.is_opened() && rig.sent().is_empty());
    rig.io.now = turn.due.expect("a look");
    assert!(rig.turn().is_ok());
    assert_eq!(rig.sent(), [(1, "find"), (1, "qos")]);
    assert_eq!(rig.told().len(), 2);
}

#[test]
fn what_no_binder_expects_ends_it() {
    let mut rig = two_lanes();
    let mut io = rig.io.io();
    let method = Incoming::CancelOk;
    assert!(rig.engine.method(1, &method, &mut io).is_err());
    let header = Header {
        body_size: 0,
        message_id: None,
        kind: None,
    };
    assert!(rig.engine.header(1, &header, &mut io).is_err());
    assert!(rig.engine.body(1, b"x", &mut io).is_err());
}

/// What the broker sends.
#[derive(Debug)]
enum Answer {
    OpenOk,
    /// These changes were done on the AMQP channel before.
    QosOk(Vec<String>),
    Close,
    CloseOk,
}

#[derive(Debug, Default)]
struct AtBroker {
    unread: VecDeque<AMQPClass>,
    done: Vec<String>,
    /// The broker has closed it, and waits for the answer.
    is_closing: bool,
}

/// A broker that deals with each AMQP channel in its order, and with all of them in any.
#[derive(Debug, Default)]
struct FakeBroker {
    channels: BTreeMap<u16, AtBroker>,
    exchanges: BTreeSet<String>,
    answers: VecDeque<(u16, Answer)>,
    /// What is behind a barrier whose answer has arrived.
    known: BTreeSet<String>,
}

impl FakeBroker {
    fn receive(&mut self, methods: Vec<(u16, AMQPClass)>) {
        for (channel, method) in methods {
            let is_open = word(&method) == "open";
            let at_broker = self.channels.entry(channel).or_default();
            assert!(
                !is_open || (at_broker.unread.is_empty() && at_broker.done.is_empty()),
                "{channel} is opened while it is open"
            );
            at_broker.unread.push_back(method);
        }
    }

    /// Deals with one method on the `which`th AMQP channel; false if there is none.
    fn work(&mut self, which: usize) -> bool {
        let busy = self
            .channels
            .iter()
            .filter(|(_, it)| !it.unread.is_empty())
            .map(|(channel, _)| *channel);
        let busy: Vec<_> = busy.collect();
        let Some(channel) = busy.get(which % busy.len().max(1)).copied() else {
            return false;
        };
        let it = self.channels.get_mut(&channel).expect("it");
        let method = it.unread.pop_front().expect("a method");
        match (word(&method), it.is_closing) {
            ("close-ok", is_closing) => {
                assert!(is_closing, "nobody has closed {channel}");
                self.channels.remove(&channel);
            }
            ("close", is_closing) => {
                self.answers.push_back((channel, Answer::CloseOk));
                if !is_closing {
                    self.channels.remove(&channel);
                }
            }
            (_, true) => {}
            ("open", _) => self.answers.push_back((channel, Answer::OpenOk)),
            ("qos", _) => {
                let answer = Answer::QosOk(it.done.clone());
                self.answers.push_back((channel, answer));
            }
            _ => match method {
                AMQPClass::Exchange(Exchange::Declare(declare)) => {
                    let name = declare.exchange.to_string();
                    assert_ne!(
                        declare.passive,
                        self.exchanges.insert(name.clone()),
                        "{name}"
                    );
                }
                AMQPClass::Exchange(Exchange::Bind(bind)) if bind.routing_key.as_str() != "" => {
                    let to = bind.destination.as_str();
                    let is_there = to == "private" || self.exchanges.contains(to);
                    assert!(is_there, "{to} is not there");
                    it.done.push(bind.routing_key.to_string());
                }
                AMQPClass::Exchange(Exchange::Bind(_)) => {}
                other => panic!("{other:?}"),
            },
        }
        true
    }

    /// Closes the `which`th AMQP channel that is open.
    fn close(&mut self, which: usize) -> bool {
        let mut open: Vec<_> = self.channels.iter_mut().collect();
        let count = open.len().max(1);
        match open.get_mut(which % count) {
            Some((channel, it)) if !it.is_closing => {
                it.is_closing = true;
                self.answers.push_back((**channel, Answer::Close));
                true
            }
            _ => false,
        }
    }

    /// Has the next answer arrive; false if there is none.
    fn answer(&mut self, rig: &mut Rig) -> bool {
        let Some((channel, answer)) = self.answers.pop_front() else {
            return false;
        };
        let method = match answer {
            Answer::OpenOk => Incoming::ChannelOpenOk,
            Answer::QosOk(done) => {
                self.known.extend(done);
                Incoming::QosOk
            }
            Answer::Close => Incoming::ChannelClose(NOT_FOUND),
            Answer::CloseOk => Incoming::ChannelCloseOk,
        };
        rig.method(channel, &method);
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    None,
    ClosedByBroker,
    EpochOver,
    Cut,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::None),
        Just(Ending::ClosedByBroker),
        Just(Ending::EpochOver),
        Just(Ending::Cut),
    ]
}

proptest! {
    /// A change is told after the broker has done it, and if that is known, whatever comes then; no AMQP
    /// channel stays open or unanswered; and all ends.
    #[test]
    fn what_is_told_is_done_and_what_is_done_is_told(
        channels in 1_u16..6,
        first in 0_u32..200,
        later in prop::collection::vec(0_u32..150, 0..5),
        apart in prop_oneof![Just(1_u32), Just(60)],
        ending in ending(),
        end_at in 0_usize..600,
        order in prop::collection::vec(any::<u16>(), 1..64),
    ) {
        let numbered = |numbers: std::ops::Range<u32>| -> Vec<_> {
            numbers.map(|number| bind(number).at(number * apart)).collect()
        };
        let mut rig = Rig::new(channels, private(), numbered(0..first));
        let mut broker = FakeBroker::default();
        let mut wanted = first;
        let mut later = later.into_iter();
        let mut order = order.into_iter().cycle().map(usize::from);
        let mut has_ended = None;
        let mut closes = ending == Ending::ClosedByBroker;
        let mut idle = 0;
        for step in 0.. {
            if step >= end_at {
                match ending {
                    Ending::ClosedByBroker if closes => {
                        closes = !broker.close(order.next().unwrap_or_default());
                    }
                    Ending::EpochOver if step == end_at => rig.shared.bindings.end(),
                    Ending::Cut => break,
                    _ => {}
                }
            }
            let which = order.next().unwrap_or_default();
            // At last all gets its turn.
            let what = if step < end_at { which % 5 } else { step % 5 };
            let has_worked = match what {
                0 => {
                    let count = later.next().unwrap_or_default();
                    rig.shared.bindings.push(EPOCH, numbered(wanted..wanted + count));
                    wanted += count;
                    count > 0
                }
                1 | 2 => (0..20).any(|_| broker.work(which / 5)),
                3 => broker.answer(&mut rig),
                _ => false,
            };
            if let Err(end) = rig.turn() {
                has_ended = Some(end);
            }
            broker.receive(rig.written());
            idle = if has_worked || step <= end_at { 0 } else { idle + 1 };
            if has_ended.is_some() || idle > 20 {
                break;
            }
        }
        if ending == Ending::Cut {
            rig.engine.end(&"the connection was cut".into());
        } else if let Some(end) = &has_ended {
            rig.engine.end(end);
        }
        let told: BTreeSet<_> = rig.told().iter().map(|it| it.group.to_string()).collect();
        prop_assert_eq!(told.len(), rig.told().len(), "told twice");
        prop_assert_eq!(&told, &broker.known);
        match ending {
            Ending::None => {
                prop_assert_eq!(told.len(), wanted as usize);
                prop_assert!(rig.is_opened() && has_ended.is_none());
            }
            Ending::Cut => {}
            Ending::ClosedByBroker | Ending::EpochOver => {
                let end = has_ended.expect("it ends");
                prop_assert_eq!(end.code.is_some(), ending == Ending::ClosedByBroker);
                // What was answered last is on its way.
                while broker.work(0) {}
                prop_assert!(broker.channels.is_empty(), "{:?}", broker.channels);
                prop_assert!((1..=channels).all(|channel| rig.io.is_free(channel)));
            }
        }
    }
}
