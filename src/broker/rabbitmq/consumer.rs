//! Takes deliveries in and lets the broker send more.
//!
//! The AMQP channel is fresh and has one consumer, so its delivery tags count from 1: letting go
//! of `n` more is one cumulative ack of the tag `n` further on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::time::{Instant, Sleep, sleep};

use super::failure::describe;
use super::helped::{Help, Helped, Work};
use super::in_flight::poll_once;
use super::self_check::is_check;
use super::shared::Shared;
use crate::broker::{Delivery, Generation, IdleThreads};

/// How many deliveries go to the layer at once.
const BATCH: usize = 256;

/// How long an ack may wait for others. Timers are exact to a millisecond, so it is two at most.
const ACK_DELAY: Duration = Duration::from_millis(1);

/// What may be acked, and when.
#[derive(Debug)]
struct Acks {
    prefetch: u64,
    received: u64,
    acked: u64,
    /// Let go, but not acked yet; without what is in [`super::credit::Credit`].
    due: u64,
}

impl Acks {
    /// How much must be let go for an ack at once: half of what the broker may send ahead, or
    /// anything when it waits for us.
    fn urgent(&self) -> u64 {
        if self.received - self.acked >= self.prefetch {
            1
        } else {
            (self.prefetch / 2).max(1)
        }
    }

    /// The tag to ack, if there is one.
    fn next(&mut self) -> Option<u64> {
        let due = std::mem::take(&mut self.due).min(self.received - self.acked);
        self.acked += due;
        (due > 0).then_some(self.acked)
    }
}

/// The consumer of one connection.
pub(super) struct Consumer {
    shared: Arc<Shared>,
    generation: Generation,
    channel: Channel,
    deliveries: lapin::Consumer,
    arrival: Arc<Arrival>,
    batch: Vec<Delivery>,
    /// How many messages have gone to the layer.
    delivered: Arc<AtomicU64>,
    acks: Acks,
    timer: Pin<Box<Sleep>>,
    timer_runs: bool,
}

impl Consumer {
    pub(super) fn new(
        shared: Arc<Shared>,
        idle: Arc<dyn IdleThreads>,
        generation: Generation,
        channel: Channel,
        deliveries: lapin::Consumer,
        prefetch: u16,
    ) -> Self {
        Self {
            arrival: Arc::new(Arrival {
                idle,
                in_crowds: AtomicBool::new(false),
                task: AtomicWaker::new(),
            }),
            shared,
            generation,
            channel,
            deliveries,
            batch: Vec::with_capacity(BATCH),
            delivered: Arc::default(),
            acks: Acks {
                prefetch: prefetch.into(),
                received: 0,
                acked: 0,
                due: 0,
            },
            timer: Box::pin(sleep(Duration::ZERO)),
            timer_runs: false,
        }
    }

    /// Counts the messages that have gone to the layer.
    pub(super) fn delivered(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.delivered)
    }

    /// Consumes until the consumer or its AMQP channel or connection ends. Returns why.
    pub(super) async fn run(self) -> String {
        let task = Task::begin(self);
        poll_fn(|cx| task.consumer.poll(cx)).await
    }

    /// Acks at once what is urgent, and starts the timer for the rest.
    fn ack_what_is_due(&mut self, cx: &mut Context<'_>) -> lapin::Result<()> {
        let credit = &self.shared.credit;
        let wake_at = self.acks.urgent().saturating_sub(self.acks.due).max(1);
        credit.wake_at(wake_at);
        let due = self.acks.due + u64::from(credit.count());
        if due >= self.acks.urgent() {
            self.ack()?;
        } else if due > 0 && !self.timer_runs {
            self.timer.as_mut().reset(Instant::now() + ACK_DELAY);
            self.timer_runs = true;
        }
        if self.timer_runs && self.timer.as_mut().poll(cx).is_ready() {
            self.timer_runs = false;
            self.ack()?;
        }
        Ok(())
    }

    fn ack(&mut self) -> lapin::Result<()> {
        self.acks.due += u64::from(self.shared.credit.take(self.generation));
        let Some(tag) = self.acks.next() else {
            return Ok(());
        };
        let ack = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true });
        // The first poll hands the frame over; a later one would wait until it is written.
        match poll_once(ack) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

/// The task of a consumer. Threads of the layer that are idle help it.
struct Task {
    shared: Arc<Shared>,
    consumer: Arc<Helped<Consumer>>,
}

impl Task {
    fn begin(consumer: Consumer) -> Self {
        let shared = Arc::clone(&consumer.shared);
        let consumer = Arc::new(Helped::new(consumer));
        *shared.consumer.lock() = Some(Arc::clone(&consumer) as Arc<dyn Help>);
        Self { shared, consumer }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        *self.shared.consumer.lock() = None;
        // Nobody helps any more.
        drop(self.consumer.take());
    }
}

/// Woken when deliveries have come in.
///
/// Where they come one by one, an idle thread takes each in at once. Where they come in crowds, the
/// task takes them: it is behind by the hop to its thread, and so has more of them in one batch.
/// With idle threads alone a flood was measured to cost a tenth more processor time.
struct Arrival {
    idle: Arc<dyn IdleThreads>,
    in_crowds: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // lapin has a lock here.
        if self.in_crowds.load(Ordering::Relaxed) || !self.idle.ask_to_deliver() {
            self.task.wake();
        }
    }
}

impl Work for Consumer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.shared.credit.register(cx.waker());
        self.arrival.task.register(cx.waker());
        let waker = Waker::from(Arc::clone(&self.arrival));
        let mut woken = Context::from_waker(&waker);
        let mut ended = None;
        while self.batch.len() < BATCH {
            match Pin::new(&mut self.deliveries).poll_next(&mut woken) {
                Poll::Ready(Some(Ok(delivery))) if is_check(&delivery.properties) => {
                    self.acks.received += 1;
                    self.acks.due += 1;
                }
                Poll::Ready(Some(Ok(delivery))) => {
                    self.acks.received += 1;
                    self.batch.push(Delivery {
                        body: delivery.data,
                        redelivered: delivery.redelivered,
                    });
                }
                Poll::Ready(Some(Err(error))) => {
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
        let may_be_more = self.batch.len() == BATCH;
        if !self.batch.is_empty() {
            let in_crowds = self.batch.len() > 1;
            self.arrival.in_crowds.store(in_crowds, Ordering::Relaxed);
            let Some(host) = self.shared.host.upgrade() else {
                return Poll::Ready("the layer is gone".to_owned());
            };
            self.delivered
                .fetch_add(self.batch.len() as u64, Ordering::Relaxed);
            let let_go = host.deliver(self.generation, &mut self.batch);
            self.batch.clear();
            self.acks.due += let_go as u64;
        }
        if let Some(reason) = ended {
            return Poll::Ready(reason);
        }
        if let Err(error) = self.ack_what_is_due(cx) {
            return Poll::Ready(describe(&error));
        }
        if may_be_more {
            // After the other tasks.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_cumulative_and_urgent_when_the_broker_waits() {
        let mut acks = Acks {
            prefetch: 10,
            received: 6,
            acked: 0,
            due: 0,
        };
        assert_eq!(acks.urgent(), 5);
        assert_eq!(acks.next(), None);
        acks.due = 4;
        assert_eq!(acks.next(), Some(4));
        acks.received = 14;
        assert_eq!(acks.urgent(), 1);
        // More than is held is never acked: the broker would close the AMQP channel.
        acks.due = 100;
        assert_eq!(acks.next(), Some(14));
        acks.due = 1;
        assert_eq!(acks.next(), None);
    }

    #[test]
    fn the_smallest_prefetch_acks_each_at_once() {
        let acks = Acks {
            prefetch: 1,
            received: 0,
            acked: 0,
            due: 0,
        };
        assert_eq!(acks.urgent(), 1);
    }
}
