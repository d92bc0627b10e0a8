//! The publisher without a thread, a socket or a broker: the test gives it frames, and reads what it
//! writes.

use tokio::sync::mpsc;

use super::*;
use crate::amqp::{Close, Confirm, Frame, Kind};
use crate::broker::rabbitmq::io::TestIo;
use crate::broker::testing::{FakeHost, settings, to};

const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];
const CONFIRM_SELECT: [u8; 4] = [0, 85, 0, 10];
const PUBLISH: [u8; 4] = [0, 60, 0, 40];

struct Rig {
    engine: Engine,
    io: TestIo,
    host: Arc<FakeHost>,
    events: UnboundedReceiver<Event>,
    nacked: UnboundedReceiver<Publication>,
    patience: Duration,
}

impl Rig {
    fn new() -> Self {
        let host = Arc::new(FakeHost::default());
        let weak: std::sync::Weak<dyn Host> = Arc::<FakeHost>::downgrade(&host);
        let topology = Topology::new(
            "own".to_owned(),
            &settings(&[("groups_exchange", "groups")]),
        );
        let (complaints, _) = mpsc::unbounded_channel();
        let (tells, events) = unbounded_channel();
        let (inquiry, nacked) = unbounded_channel();
        let shared = Arc::new(Shared::new(weak, complaints));
        Self {
            engine: Engine::new(shared, &topology, tells, Arc::default(), inquiry),
            io: TestIo::new(3),
            host,
            events,
            nacked,
            patience: topology.timeout,
        }
    }

    /// One whose AMQP channel, 1, is open.
    fn open() -> Self {
        let mut rig = Self::new();
        rig.turn();
        assert_eq!(rig.written(), [(1, CHANNEL_OPEN), (1, CONFIRM_SELECT)]);
        rig.method(1, &Incoming::ChannelOpenOk);
        rig.method(1, &Incoming::ConfirmSelectOk);
        assert!(matches!(rig.events.try_recv(), Ok(Event::Open)));
        rig.engine.orders.lock().may_go_on = true;
        rig.turn();
        rig
    }

    /// The same, and nothing goes alone any more.
    fn proven() -> Self {
        let mut rig = Self::open();
        for token in [1, 2] {
            rig.push(
                token,
                [to("queue"), group()][usize::from(token == 2)].clone(),
            );
            rig.turn();
            rig.ack(token, false);
        }
        rig.turn();
        rig.written();
        rig
    }

    fn try_turn(&mut self) -> Result<Turn, End> {
        self.engine.turn(&mut self.io.io())
    }

    fn turn(&mut self) -> Turn {
        self.try_turn().expect("it goes on")
    }

    fn method(&mut self, channel: u16, method: &Incoming<'_>) {
        let dealt = self.engine.method(channel, method, &mut self.io.io());
        dealt.expect("it goes on");
    }

    fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.method(
            1,
            &Incoming::Ack(Confirm {
                delivery_tag,
                multiple,
            }),
        );
    }

    fn close(&mut self, channel: u16, reply_code: u16, reply_text: &str) {
        let close = Close {
            reply_code,
            reply_text: reply_text.as_bytes(),
            class: 60,
            method: 40,
        };
        self.method(channel, &Incoming::ChannelClose(close));
    }

    fn push(&mut self, token: Token, route: Route) {
        self.push_body(token, route, b"x");
    }

    fn push_body(&mut self, token: Token, route: Route, body: &[u8]) {
        self.host.push(Publication {
            token,
            route,
            body: body.to_vec(),
        });
        self.engine.shared.doorbell.ring();
    }

    /// The methods that were written since the last time, each with its AMQP channel.
    fn written(&mut self) -> Vec<(u16, [u8; 4])> {
        let written = self.io.written();
        let (mut rest, mut methods) = (written.as_slice(), Vec::new());
        while let Some((frame, len)) = Frame::split(rest, 200_000).unwrap() {
            if frame.head.kind == Kind::Method {
                methods.push((frame.head.channel, *frame.payload.first_chunk().unwrap()));
            }
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        methods
    }

    fn outcome(&mut self, token: Token) -> Option<Outcome> {
        self.turn();
        self.host.outcome(token)
    }

    fn take_back(&mut self, message_id: &[u8]) {
        let returned = Incoming::Return {
            reply_code: 312,
            reply_text: b"NO_ROUTE",
        };
        self.method(1, &returned);
        let header = Header {
            body_size: 1,
            message_id: Some(message_id),
            kind: None,
        };
        let io = &mut self.io.io();
        self.engine.header(1, &header, io).unwrap();
        self.engine.body(1, b"x", io).unwrap();
    }
}

fn group() -> Route {
    Route::Group("g".to_owned())
}

#[test]
fn nothing_is_taken_before_the_rest_of_the_link_stands() {
    let mut rig = Rig::new();
    rig.push(1, group());
    rig.turn();
    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.written();
    rig.turn();
    assert_eq!(rig.written(), []);
    rig.engine.orders.lock().may_go_on = true;
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH)]);
}

#[test]
fn a_confirm_that_came_before_the_end_is_told_as_one() {
    let mut rig = Rig::proven();
    for token in 3..=5 {
        rig.push(token, to("queue"));
    }
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH); 3]);
    rig.ack(3, false);
    rig.ack(5, false);
    rig.engine.end(&"the connection was cut".into());
    assert_eq!(rig.host.outcome(3), Some(Outcome::Confirmed));
    assert!(matches!(rig.host.outcome(4), Some(Outcome::Unconfirmed(_))));
    assert_eq!(rig.host.outcome(5), Some(Outcome::Confirmed));
}

#[test]
fn nothing_is_taken_or_published_while_the_broker_blocks() {
    let mut rig = Rig::open();
    // The first goes alone, so that the second waits behind it.
    rig.push(1, to("queue"));
    rig.push(2, to("queue"));
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH)]);
    rig.io.is_blocked = true;
    rig.ack(1, false);
    rig.push(3, to("queue"));
    assert_eq!(rig.outcome(1), Some(Outcome::Confirmed));
    assert_eq!(rig.host.record().blocked, [true]);
    assert_eq!(rig.written(), []);
    assert!(!rig.engine.is_at_rest());

    rig.io.is_blocked = false;
    rig.turn();
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH); 2]);
    assert_eq!(rig.host.record().blocked, [true, false]);
}

#[test]
fn the_first_message_to_an_exchange_goes_alone_for_a_second_at_most() {
    let mut rig = Rig::open();
    for token in 1..=3 {
        rig.push(token, group());
    }
    let due = rig.turn().due.expect("the others are held");
    assert_eq!(rig.written(), [(1, PUBLISH)]);
    assert_eq!(due, rig.io.now + ALONE_AT_MOST);
    rig.io.now = due;
    assert_eq!(rig.turn().due, None);
    assert_eq!(rig.written(), [(1, PUBLISH); 2]);
}

#[test]
fn one_that_comes_back_has_no_channel_and_the_others_are_confirmed() {
    let mut rig = Rig::proven();
    for token in 3..=5 {
        rig.push(token, to("queue"));
    }
    rig.turn();
    rig.take_back(b"4");
    rig.ack(5, true);
    assert_eq!(rig.outcome(3), Some(Outcome::Confirmed));
    assert_eq!(rig.outcome(4), Some(Outcome::NoChannel("queue".to_owned())));
    assert_eq!(rig.outcome(5), Some(Outcome::Confirmed));
    assert!(rig.engine.is_at_rest());
}

#[test]
fn what_a_queue_refuses_is_judged_by_others_and_what_a_group_refuses_is_full() {
    let mut rig = Rig::proven();
    rig.push(3, to("queue"));
    rig.push(4, group());
    rig.turn();
    let nack = Confirm {
        delivery_tag: 4,
        multiple: true,
    };
    rig.method(1, &Incoming::Nack(nack));
    assert_eq!(rig.outcome(4), Some(Outcome::Full));
    assert_eq!(rig.outcome(3), None);
    assert_eq!(rig.nacked.try_recv().map(|it| it.token), Ok(3));
}

#[test]
fn a_message_that_is_too_large_costs_the_channel_and_what_came_behind_it_goes_again_in_order() {
    let mut rig = Rig::proven();
    rig.push(3, group());
    rig.push_body(4, to("queue"), &[1; 2000]);
    for token in 5..=6 {
        rig.push(token, group());
    }
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH); 4]);
    let said = "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000";
    rig.close(1, 406, said);
    // Nothing else may go on a channel between the two.
    assert_eq!(rig.written(), [(1, CHANNEL_CLOSE_OK)]);
    let too_large = Outcome::TooLarge {
        size: 2000,
        limit: 1000,
    };
    assert_eq!(rig.outcome(4), Some(too_large.clone()));
    assert!(matches!(rig.outcome(3), Some(Outcome::Unconfirmed(_))));
    assert_eq!(rig.outcome(5), None);
    assert_eq!(rig.written(), [(1, CHANNEL_OPEN), (1, CONFIRM_SELECT)]);
    assert_eq!(rig.host.record().size_limits, [1000]);

    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.turn();
    // The first to an exchange goes alone again; its tags count from 1.
    assert_eq!(rig.written(), [(1, PUBLISH)]);
    rig.ack(1, false);
    assert_eq!(rig.outcome(5), Some(Outcome::Confirmed));
    rig.ack(2, false);
    assert_eq!(rig.outcome(6), Some(Outcome::Confirmed));

    // The limit is known from now on.
    rig.push_body(7, to("queue"), &[1; 2000]);
    assert_eq!(rig.outcome(7), Some(too_large));
}

#[test]
fn one_that_had_come_back_when_the_channel_was_closed_has_no_channel() {
    let mut rig = Rig::proven();
    rig.push(3, to("queue"));
    rig.push_body(4, group(), &[1; 2000]);
    rig.turn();
    rig.take_back(b"3");
    rig.close(
        1,
        406,
        "PRECONDITION_FAILED - message size 2000 larger than max size 1000",
    );
    let gone = Outcome::NoChannel("queue".to_owned());
    assert_eq!(rig.outcome(3), Some(gone));
}

#[test]
fn a_right_that_is_missing_is_not_asked_for_again_for_a_while() {
    let mut rig = Rig::proven();
    rig.push(3, group());
    rig.turn();
    rig.written();
    rig.close(
        1,
        403,
        "ACCESS_REFUSED - write access to exchange 'groups' in vhost '/' refused",
    );
    assert!(matches!(rig.outcome(3), Some(Outcome::Refused(_))));
    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.written();
    rig.push(4, group());
    assert!(matches!(rig.outcome(4), Some(Outcome::Refused(_))));
    assert_eq!(rig.written(), []);
    rig.io.now += Duration::from_secs(1);
    rig.push(5, group());
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH)]);
}

#[test]
fn without_its_exchange_the_publisher_waits_until_that_is_there_again() {
    let mut rig = Rig::proven();
    rig.push(3, group());
    rig.turn();
    rig.close(1, 404, "NOT_FOUND - no exchange 'groups' in vhost '/'");
    assert!(matches!(rig.events.try_recv(), Ok(Event::NoExchange(said)) if said.contains("404")));
    rig.written();
    assert_eq!(rig.turn(), Turn::default());
    assert_eq!(rig.written(), []);
    rig.engine.orders.lock().may_go_on = true;
    rig.turn();
    assert_eq!(rig.written(), [(1, CHANNEL_OPEN), (1, CONFIRM_SELECT)]);
    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH)]);
}

#[test]
fn a_channel_that_does_not_open_in_time_ends_the_publisher_unless_the_broker_blocks() {
    let mut rig = Rig::new();
    let due = rig.turn().due.expect("the answer is waited for");
    assert_eq!(due, rig.io.now + rig.patience);
    rig.io.is_blocked = true;
    rig.io.now = due;
    assert!(rig.turn().due > Some(due));
    rig.io.is_blocked = false;
    rig.io.now += rig.patience;
    let end = rig.try_turn().expect_err("it has waited");
    assert_eq!(end.why, Failure::silence(rig.patience).why);
}

#[test]
fn without_a_free_number_there_is_no_publisher() {
    let mut rig = Rig::new();
    rig.io = TestIo::new(0);
    let end = rig.try_turn().expect_err("there is none");
    assert_eq!(end.why, TOO_FEW_CHANNELS);
}

#[test]
fn at_the_end_what_was_taken_is_published_and_nothing_more_is_taken() {
    let mut rig = Rig::open();
    rig.push(1, group());
    rig.push(2, group());
    rig.turn();
    rig.engine.orders.lock().finish = true;
    rig.push(3, group());
    rig.turn();
    rig.ack(1, false);
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH); 2]);
    rig.ack(2, false);
    let end = rig.try_turn().expect_err("all is confirmed");
    assert_eq!(end.why, CLOSED);
    assert_eq!(rig.host.outcome(2), Some(Outcome::Confirmed));
    assert_eq!(rig.host.outcome(3), None);
}

#[test]
fn at_the_end_nothing_is_waited_for_while_the_broker_blocks() {
    let mut rig = Rig::proven();
    rig.push(3, group());
    rig.turn();
    rig.engine.orders.lock().finish = true;
    rig.io.is_blocked = true;
    let end = rig.try_turn().expect_err("nothing comes");
    rig.engine.end(&end);
    let closed = Outcome::Unconfirmed(CLOSED.to_owned());
    assert_eq!(rig.host.outcome(3), Some(closed));
    assert_eq!(rig.host.record().blocked, [true, false]);
}

#[test]
fn what_was_not_handed_over_at_the_end_was_certainly_not_sent() {
    let mut rig = Rig::open();
    rig.push(1, group());
    rig.push(2, group());
    rig.turn();
    rig.engine.end(&"cut".into());
    let unconfirmed = Outcome::Unconfirmed("cut".to_owned());
    assert_eq!(rig.host.outcome(1), Some(unconfirmed));
    let unsent = Outcome::Unsent("cut".to_owned());
    assert_eq!(rig.host.outcome(2), Some(unsent));
}

#[test]
fn one_that_had_come_back_when_the_connection_ended_has_no_channel() {
    let mut rig = Rig::proven();
    rig.push(3, to("queue"));
    rig.turn();
    rig.take_back(b"3");
    rig.engine.end(&"cut".into());
    let gone = Outcome::NoChannel("queue".to_owned());
    assert_eq!(rig.host.outcome(3), Some(gone));
}

#[test]
fn that_it_may_go_on_is_not_forgotten_while_the_channel_opens() {
    let mut rig = Rig::new();
    rig.push(1, group());
    rig.turn();
    rig.engine.orders.lock().may_go_on = true;
    rig.turn();
    rig.written();
    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.turn();
    assert_eq!(rig.written(), [(1, PUBLISH)]);
}

#[test]
fn a_channel_that_the_broker_closes_while_it_opens_ends_the_publisher() {
    let mut rig = Rig::new();
    rig.turn();
    rig.written();
    let close = Close {
        reply_code: 504,
        reply_text: b"CHANNEL_ERROR",
        class: 20,
        method: 10,
    };
    let closed = Incoming::ChannelClose(close);
    let end = rig.engine.method(1, &closed, &mut rig.io.io());
    assert_eq!(end.expect_err("it is refused").code, Some(504));
    assert_eq!(rig.written(), [(1, CHANNEL_CLOSE_OK)]);
}

#[test]
fn a_large_body_is_sent_whole_and_handed_over_again_whole() {
    let mut rig = Rig::proven();
    let large = vec![7; LARGE];
    rig.push_body(3, group(), &large);
    rig.turn();
    let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 7).count();
    assert!(count(&rig.io.written()) >= LARGE);
    rig.close(1, 404, "NOT_FOUND - no exchange 'groups' in vhost '/'");
    rig.engine.orders.lock().may_go_on = true;
    rig.turn();
    rig.method(1, &Incoming::ConfirmSelectOk);
    rig.io.written();
    rig.turn();
    assert!(count(&rig.io.written()) >= LARGE);
}

#[test]
fn a_batch_that_is_full_is_not_the_last() {
    let mut rig = Rig::proven();
    for token in 0..=BATCH as u64 {
        rig.push(3 + token, group());
    }
    rig.turn();
    assert_eq!(rig.written().len(), BATCH);
    rig.turn();
    assert_eq!(rig.written().len(), 1);
}

#[test]
fn nothing_is_taken_while_what_was_written_is_not_sent() {
    let mut rig = Rig::proven();
    for token in 3..11 {
        rig.push_body(token, group(), &[1; 60_000]);
    }
    rig.turn();
    // The test has not read what was written: there is room for no more.
    let sent = rig.engine.in_flight.len();
    assert!((4..6).contains(&sent), "{sent}");
    rig.io.written();
    rig.turn();
    assert_eq!(rig.engine.in_flight.len(), 8);
}
