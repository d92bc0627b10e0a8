//! Mailboxes: messages that come and go, one at a time, many at once, and not in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mailbox::{Call, Cancel, Flow, MailboxKey, Mailboxes};
use crate::message::Body;
use crate::messages;
use crate::wire::{self, Recipient};
use crate::work::{Case, Work, fed, steady};

/// The option `local_expiry` as it is by default.
pub(crate) const EXPIRY: Duration = Duration::from_secs(60);

/// Callbacks and threads that wait, as large as they are in a layer.
pub(crate) type Callback = Box<dyn Fn(&[u8]) -> Flow>;
pub(crate) type Boxes = Mailboxes<Callback, Arc<u32>>;

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("channels_kQzWmVbTrXpA!specific.{number:012}"))
        .collect()
}

pub(crate) fn body() -> Arc<Body> {
    let delivery = messages::delivery(&messages::small(), Recipient::Group(messages::GROUP));
    Arc::new(wire::decode(delivery).expect("our own").body)
}

pub(crate) fn callback() -> Callback {
    Box::new(|data| match std::hint::black_box(data).is_empty() {
        true => Flow::Stop,
        false => Flow::Continue,
    })
}

pub(crate) fn empty() -> Boxes {
    Mailboxes::new(EXPIRY)
}

/// Mailboxes with a receiver each.
pub(crate) fn received_from(names: &[String]) -> Boxes {
    let mut boxes = empty();
    for name in names {
        boxes.add_receiver(name, callback(), |_| ());
    }
    boxes
}

/// As a thread of the dispatcher does it.
pub(crate) fn receive(boxes: &mut Boxes, key: MailboxKey, now: Instant) -> bool {
    let ran = boxes.check_out(key, now).expect("it is due");
    let Call::Message(message) = &ran.call else {
        unreachable!("nothing ends here");
    };
    let flow = (ran.callback)(message.body().data());
    boxes.check_in(key, ran, flow, now).due
}

/// A message for one of so many channels, each in its turn.
fn one_by_one(channels: usize) -> Box<dyn Work> {
    let (names, now, body) = (names(channels), Instant::now(), body());
    let mut boxes = received_from(&names);
    let mut next = 0;
    steady(move || {
        let delivered = boxes.deliver(&names[next], Arc::clone(&body), now);
        next = (next + 1) % names.len();
        receive(&mut boxes, delivered.due.expect("it has a receiver"), now)
    })
}

/// So many messages for one channel, which are received when all are there.
fn backlog(count: usize) -> Box<dyn Work> {
    let (names, now, body) = (names(1), Instant::now(), body());
    let mut boxes = received_from(&names);
    steady(move || {
        let mut due = None;
        for _ in 0..count {
            due = due.or(boxes.deliver(&names[0], Arc::clone(&body), now).due);
        }
        let key = due.expect("it has a receiver");
        while receive(&mut boxes, key, now) {}
        assert_eq!(boxes.backlog(), 0);
    })
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mailbox/deliver_and_receive/1_channel", 100, || {
            one_by_one(1)
        }),
        Case::new("mailbox/deliver_and_receive/1000_channels", 1000, || {
            one_by_one(1000)
        }),
        Case::new("mailbox/deliver_and_receive/backlog_of_100", 10, || {
            backlog(100)
        }),
        Case::new("mailbox/deliver_and_pull", 100, || {
            let (names, now, body) = (names(1), Instant::now(), body());
            let mut boxes = empty();
            steady(move || {
                boxes.deliver(&names[0], Arc::clone(&body), now);
                boxes.pull(&names[0], now).expect("it is there")
            })
        }),
        Case::new("mailbox/receive_and_cancel", 100, || {
            let (names, now) = (names(1), Instant::now());
            let mut boxes = empty();
            steady(move || {
                let (receiver, _) = boxes.add_receiver(&names[0], callback(), |_| ());
                assert!(matches!(boxes.cancel(receiver, now), Cancel::Idle(_)));
            })
        }),
        Case::new("mailbox/deliver_in_place_of_expired", 100, || {
            let (names, mut now, body) = (names(1), Instant::now(), body());
            let mut boxes = empty();
            steady(move || {
                now += EXPIRY;
                boxes.deliver(&names[0], Arc::clone(&body), now);
                assert_eq!(boxes.backlog(), 1);
            })
        }),
        Case::new("mailbox/expire/1000_channels", 3, || {
            let (names, now, body) = (names(1000), Instant::now(), body());
            fed(
                move || {
                    let mut boxes = empty();
                    for name in &names {
                        boxes.deliver(name, Arc::clone(&body), now);
                    }
                    boxes
                },
                move |mut boxes| {
                    assert_eq!(boxes.expire(now + EXPIRY).dropped, 1000);
                    boxes
                },
            )
        }),
        Case::new("mailbox/expire/1_of_1000_channels", 3, || {
            let (names, now, body) = (names(1000), Instant::now(), body());
            fed(
                move || {
                    let mut boxes = empty();
                    let mut at = now;
                    for name in &names {
                        boxes.deliver(name, Arc::clone(&body), at);
                        at = now + EXPIRY / 2;
                    }
                    boxes
                },
                move |mut boxes| {
                    assert_eq!(boxes.expire(now + EXPIRY).dropped, 1);
                    boxes
                },
            )
        }),
    ]
}
