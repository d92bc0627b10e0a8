//! Takes deliveries in and lets the broker send more.
//!
//! The AMQP channel is fresh and has one consumer, so its delivery tags count from 1: letting go
//! of `n` more is one cumulative ack of the tag `n` further on.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use lapin::Channel;
use lapin::options::BasicAckOptions;

use super::failure::{describe, is_ack_timeout};
use super::in_flight::poll_once;
use super::io_thread::{Turn, Work, time_to_gather};
use super::probe::probe_id;
use super::shared::Shared;
use crate::broker::{Delivery, Generation};

/// How many deliveries go to the layer at once.
const BATCH: usize = 256;

/// How long an ack may wait for others.
const ACK_DELAY: Duration = Duration::from_millis(1);

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

    /// Takes one delivery in. What is not for the layer is let go.
    fn take(&mut self, delivery: lapin::message::Delivery) -> Arrival {
        self.received += 1;
        if let Some(id) = probe_id(&delivery.properties) {
            self.due += 1;
            return Arrival::Probe(id.to_owned());
        }
        // What was put back into the queue stands in front of all that is new.
        if !delivery.redelivered {
            self.repeated = 0;
        } else if self.repeated > 0 {
            self.repeated -= 1;
            self.due += 1;
            return Arrival::Repeated;
        }
        Arrival::Message(Delivery {
            body: delivery.data,
            redelivered: delivery.redelivered,
        })
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

/// The consumer of one AMQP channel.
pub(super) struct Consumer {
    shared: Arc<Shared>,
    generation: Generation,
    channel: Channel,
    deliveries: lapin::Consumer,
    batch: Vec<Delivery>,
    ended: Arc<OnceLock<ConsumerEnd>>,
    acks: Acks,
    /// When what is due is acked, be it as little as it may.
    ack_at: Option<Instant>,
}

impl Consumer {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: Generation,
        channel: Channel,
        deliveries: lapin::Consumer,
        prefetch: u16,
        repeated: u64,
    ) -> Self {
        Self {
            shared,
            generation,
            channel,
            deliveries,
            batch: Vec::with_capacity(BATCH),
            ended: Arc::default(),
            acks: Acks::new(prefetch, repeated),
            ack_at: None,
        }
    }

    /// Filled when the consumer has ended for the broker's `consumer_timeout`.
    pub(super) fn ended(&self) -> Arc<OnceLock<ConsumerEnd>> {
        Arc::clone(&self.ended)
    }

    fn take(&mut self, delivery: lapin::message::Delivery) {
        match self.acks.take(delivery) {
            Arrival::Probe(id) => self.shared.arrivals.add_probe(id),
            Arrival::Repeated => {}
            Arrival::Message(message) => self.batch.push(message),
        }
    }

    fn note_end(&self, error: &lapin::Error) {
        if is_ack_timeout(error) {
            let unacked = self.acks.unacked();
            // It ends once.
            let _ = self.ended.set(ConsumerEnd { unacked });
        }
    }

    /// Acks at once what is urgent, and the rest when its time has come; whether there was any.
    fn ack_what_is_due(&mut self) -> lapin::Result<bool> {
        let credit = &self.shared.credit;
        let wake_at = self.acks.urgent().saturating_sub(self.acks.due).max(1);
        credit.wake_at(wake_at);
        let due = self.acks.due + u64::from(credit.count());
        if due == 0 {
            self.ack_at = None;
            return Ok(false);
        }
        if due < self.acks.urgent() {
            let now = Instant::now();
            if now < *self.ack_at.get_or_insert(now + ACK_DELAY) {
                return Ok(false);
            }
        }
        self.ack_at = None;
        self.ack()
    }

    fn ack(&mut self) -> lapin::Result<bool> {
        self.acks.due += u64::from(self.shared.credit.take(self.generation));
        let Some(tag) = self.acks.next() else {
            return Ok(false);
        };
        let ack = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true });
        // The first poll hands the frame over; a later one would wait until it is written.
        match poll_once(ack) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(true),
        }
    }
}

impl Work for Consumer {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, String> {
        self.shared.credit.register(cx.waker());
        let mut ended = None;
        while self.batch.len() < BATCH {
            match Pin::new(&mut self.deliveries).poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => self.take(delivery),
                Poll::Ready(Some(Err(error))) => {
                    self.note_end(&error);
                    ended = Some(describe(&error));
                    break;
                }
                Poll::Ready(None) => {
                    ended = Some("the broker ended the consumer of our queue".to_owned());
                    break;
                }
                Poll::Pending => break,
            }
        }
        let count = self.batch.len();
        let may_be_more = count == BATCH;
        if count > 0 {
            let Some(host) = self.shared.host.upgrade() else {
                return Err("the layer is gone".to_owned());
            };
            self.shared.arrivals.add_delivered(count as u64);
            let let_go = host.deliver(self.generation, &mut self.batch);
            self.batch.clear();
            self.acks.due += let_go as u64;
        }
        if let Some(reason) = ended {
            return Err(reason);
        }
        let arrivals = &self.shared.arrivals;
        arrivals.set_credit_used_up(self.acks.are_used_up());
        let has_written = self.ack_what_is_due().map_err(|error| describe(&error))?;
        if may_be_more {
            cx.waker().wake_by_ref();
        }
        let gather = if may_be_more {
            Duration::ZERO
        } else {
            time_to_gather(count, self.acks.may_follow())
        };
        Ok(Turn {
            has_written,
            due: self.ack_at,
            gather,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::KIND;
    use super::*;

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

    fn delivery(redelivered: bool) -> lapin::message::Delivery {
        let nothing = lapin::types::ShortString::default();
        lapin::message::Delivery::mock(1, nothing.clone(), nothing, redelivered, b"x".to_vec())
    }

    #[test]
    fn a_probe_is_acked_by_itself_so_that_the_smallest_prefetch_is_not_used_up() {
        let mut acks = Acks::new(1, 0);
        for tag in 1..=3 {
            let mut probe = delivery(false);
            probe.properties = lapin::BasicProperties::default()
                .with_type(KIND.into())
                .with_message_id("1-2-0".into());
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
}
