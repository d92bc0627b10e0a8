//! Hands publications over and reports what became of each.
//!
//! One publishes at a time on one AMQP channel, since two could swap their delivery tags: lapin's I/O
//! thread, between its reads and writes, and a task when that thread is gone or the layer is closed. It
//! starts many publications before it waits for any: lapin's `basic_publish` comes back only once the
//! frames are written.
//!
//! # Which message was returned
//!
//! The broker returns an unroutable message before it acks it. lapin queues returned messages and
//! gives the oldest to whichever confirm it completes next, and a 'multiple' ack completes its
//! confirms in no order. So a returned message may arrive with the confirm of another, earlier or
//! later than its own. What holds is this:
//!
//! - Each completed confirm takes one queued message, if there is one. So there are never more
//!   queued messages than returned ones whose confirm is not completed.
//! - The broker acks returned messages in the order of their returns. So between two acks the
//!   completed ones among them are the first few, and those queued are among the last: the return
//!   of each completed one has been given to some completed confirm.
//!
//! On the I/O thread we are always between two acks: so the returns of all that we collect there are
//! known, by the message id that they carry. Elsewhere we collect confirms, take once the lock under
//! which lapin handles an ack, so that none is half done, and collect what else is ready: then the
//! returns of all that was collected before the lock are known.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{Either, poll_fn, select};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::sync::watch;

use super::failure::{Failure, describe};
use super::in_flight::{InFlight, poll_once};
use super::io_thread::{IoThread, Task, Turn, Work, time_to_gather};
use super::shared::{Shared, Stop};
use super::topology::short;

use crate::broker::{Host, Outcome, Publication, Route, Token};

/// How many publications are taken at once. Confirms are looked at in between.
const BATCH: usize = 256;

/// How many batches are handled before other tasks have their turn.
const ROUNDS: usize = 8;

/// A message that is lost with the broker: there is no queue of ours that outlives it.
const TRANSIENT: u8 = 1;

/// What the messages of a layer have in common.
#[derive(Debug)]
pub(super) struct Envelope {
    exchange: ShortString,
    properties: BasicProperties,
}

impl Envelope {
    pub(super) fn new(exchange: &str, expiry: Duration) -> Result<Self, Failure> {
        Ok(Self {
            exchange: short(exchange)?,
            properties: BasicProperties::default()
                .with_delivery_mode(TRANSIENT)
                .with_expiration(short(&expiry.as_millis().to_string())?),
        })
    }
}

/// A publication under way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    token: Token,
    mandatory: bool,
}

/// What the broker has answered.
#[derive(Debug, Default)]
struct Answers {
    /// Acked, but perhaps returned.
    acked: Vec<Token>,
    /// With what it comes to, if it was acked.
    returned: HashMap<Token, Outcome>,
    outcomes: Vec<(Token, Outcome)>,
    /// What ended the connection or the AMQP channel.
    failed: Option<String>,
}

impl Answers {
    /// Takes in the answer to one publication, and what lapin has attached to it.
    fn add(&mut self, sent: Sent, result: lapin::Result<Confirmation>) {
        let Sent { token, mandatory } = sent;
        let attached = match result {
            Ok(Confirmation::Ack(attached)) => {
                if mandatory {
                    self.acked.push(token);
                } else {
                    self.outcomes.push((token, Outcome::Confirmed));
                }
                attached
            }
            Ok(Confirmation::Nack(attached)) => {
                self.outcomes.push((token, Outcome::Full));
                attached
            }
            Ok(Confirmation::NotRequested) => {
                self.fail(token, "the AMQP channel is not in confirm mode".to_owned());
                None
            }
            Err(error) => {
                self.fail(token, describe(&error));
                None
            }
        };
        let returned = attached.and_then(|message| {
            let delivery = message.delivery;
            let id = delivery.properties.message_id().as_ref()?;
            let token = id.as_str().parse::<Token>().ok()?;
            let queue = delivery.routing_key.as_str();
            Some((token, Outcome::no_channel(queue, delivery.data)))
        });
        self.returned.extend(returned);
    }

    fn fail(&mut self, token: Token, reason: String) {
        let outcome = Outcome::Unconfirmed(reason.clone());
        self.outcomes.push((token, outcome));
        self.failed.get_or_insert(reason);
    }

    /// Decides on the first `known` acked publications, the returns of all of which are here.
    fn decide(&mut self, known: usize) {
        for token in self.acked.drain(..known) {
            let returned = if self.returned.is_empty() {
                None
            } else {
                self.returned.remove(&token)
            };
            let outcome = returned.unwrap_or(Outcome::Confirmed);
            self.outcomes.push((token, outcome));
        }
    }
}

struct Publisher<F, S>
where
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(Publication) -> F,
{
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Makes a publication into a future whose first poll hands it over.
    send: S,
    in_flight: InFlight<Sent, F>,
    answers: Answers,
    batch: Vec<Publication>,
    blocked: bool,
}

/// Publishes until the connection ends or `stop` says so. Returns why.
pub(super) async fn run(
    shared: Arc<Shared>,
    io_thread: Arc<IoThread>,
    channel: Channel,
    events: impl Stream<Item = Event> + Send + 'static,
    envelope: Envelope,
    mut stop: watch::Receiver<Stop>,
) -> String {
    let channel = Arc::new(channel);
    let sender = Arc::clone(&channel);
    let publisher = Publisher {
        shared: Arc::clone(&shared),
        channel,
        events: Box::pin(events),
        send: move |publication| send(Arc::clone(&sender), &envelope, publication),
        in_flight: InFlight::new(),
        answers: Answers::default(),
        batch: Vec::with_capacity(BATCH),
        blocked: false,
    };
    // There may be what came while there was no connection.
    shared.doorbell.ring();
    let publisher = Task::begin(io_thread, publisher);
    let stopped = pin!(stop.wait_for(|stop| !matches!(stop, Stop::No)));
    let publishing = poll_fn(|cx| publisher.poll(cx));
    let reason = match select(publishing, stopped).await {
        Either::Left((reason, _)) => Some(reason),
        Either::Right((Ok(stop), _)) => match &*stop {
            Stop::Now(reason) => Some(reason.clone()),
            Stop::No | Stop::Finish => None,
        },
        Either::Right((Err(_), _)) => None,
    };
    let Some(mut publisher) = publisher.take() else {
        return "the publisher was taken before".to_owned();
    };
    let reason = match reason {
        Some(reason) => reason,
        None => publisher.finish().await,
    };
    publisher.end(&reason);
    reason
}

/// What was taken has an outcome, however the publisher ends: the task may be ended while a session is
/// being made.
impl<F, S> Drop for Publisher<F, S>
where
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(Publication) -> F,
{
    fn drop(&mut self) {
        self.end("the connection was given up");
    }
}

/// The future of one publication. Its first poll hands the message over; it is done with the
/// broker's confirm.
fn send(
    channel: Arc<Channel>,
    envelope: &Envelope,
    publication: Publication,
) -> impl Future<Output = lapin::Result<Confirmation>> + Send + use<> {
    let Publication { token, route, body } = publication;
    let mut properties = envelope.properties.clone();
    let mut options = BasicPublishOptions::default();
    // Names are shorter than 100 bytes, and decimal numbers too: none of them is refused here.
    let (exchange, key) = match route {
        Route::Queue(queue) => {
            options.mandatory = true;
            let id = ShortString::try_new(token.to_string()).unwrap_or_default();
            properties = properties.with_message_id(id);
            (ShortString::default(), queue)
        }
        Route::Group(group) => (envelope.exchange.clone(), group),
    };
    let key = ShortString::try_new(key).unwrap_or_default();
    async move {
        let written = channel
            .basic_publish(exchange, key, options, &body, properties)
            .await;
        // lapin has copied it, and the confirm may take a while.
        drop(body);
        written?.await
    }
}

impl<F, S> Work for Publisher<F, S>
where
    F: Future<Output = lapin::Result<Confirmation>> + Send,
    S: Fn(Publication) -> F + Send,
{
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, String> {
        let mut turn = Turn::default();
        self.in_flight.register(cx.waker());
        self.shared.doorbell.register(cx.waker());
        for _ in 0..ROUNDS {
            let Some(host) = self.shared.host.upgrade() else {
                return Err("the layer is gone".to_owned());
            };
            self.read_events(&*host, cx);
            let took = self.take(&*host);
            turn.has_written |= took;
            self.collect();
            let known = self.answers.acked.len();
            self.answers.decide(known);
            turn.gather = time_to_gather(self.answers.outcomes.len(), self.in_flight.len() as u64);
            self.report(&*host);
            if let Some(reason) = self.answers.failed.take() {
                return Err(reason);
            }
            if !took {
                return Ok(turn);
            }
        }
        cx.waker().wake_by_ref();
        Ok(turn)
    }
}

impl<F, S> Publisher<F, S>
where
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(Publication) -> F,
{
    /// Waits for confirms for a part of the time that there is to close. Returns why what is still
    /// in flight then is unconfirmed.
    async fn finish(&mut self) -> String {
        let shared = Arc::clone(&self.shared);
        let out_of_time = pin!(shared.closing.passed(0.5));
        match select(poll_fn(|cx| self.poll_confirms(cx)), out_of_time).await {
            Either::Left((Some(failed), _)) => failed,
            _ => "the layer was closed before the broker confirmed the message".to_owned(),
        }
    }

    /// Ready when nothing is in flight, or nothing more will be confirmed: with the reason if the
    /// connection has ended, without one if the broker blocks us.
    fn poll_confirms(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.in_flight.register(cx.waker());
        let Some(host) = self.shared.host.upgrade() else {
            return Poll::Ready(None);
        };
        self.read_events(&*host, cx);
        self.settle(&*host);
        if self.answers.failed.is_some() || self.blocked || self.in_flight.len() == 0 {
            return Poll::Ready(self.answers.failed.take());
        }
        Poll::Pending
    }

    fn read_events(&mut self, host: &dyn Host, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = self.events.as_mut().poll_next(cx) {
            match event {
                Event::ConnectionBlocked(_) => self.set_blocked(host, true),
                Event::ConnectionUnblocked => self.set_blocked(host, false),
                Event::Error(error) => {
                    self.answers.failed.get_or_insert_with(|| describe(&error));
                }
                _ => {}
            }
        }
    }

    fn set_blocked(&mut self, host: &dyn Host, blocked: bool) {
        if self.blocked != blocked {
            self.blocked = blocked;
            host.publishers_blocked(blocked);
        }
    }

    /// Hands a batch over; whether there was one.
    fn take(&mut self, host: &dyn Host) -> bool {
        // A ring that is not answered stays for later.
        if self.blocked || self.answers.failed.is_some() || !self.shared.doorbell.answer() {
            return false;
        }
        host.take_publications(BATCH, &mut self.batch);
        if self.batch.len() >= BATCH {
            self.shared.doorbell.ring();
        }
        for publication in self.batch.drain(..) {
            let sent = Sent {
                token: publication.token,
                mandatory: matches!(publication.route, Route::Queue(_)),
            };
            let future = (self.send)(publication);
            if let Some((sent, result)) = self.in_flight.start(sent, future) {
                self.answers.add(sent, result);
            }
        }
        true
    }

    /// Reports all that the broker has answered, on another thread than lapin's.
    fn settle(&mut self, host: &dyn Host) {
        self.collect();
        while !self.answers.acked.is_empty() {
            let known = self.answers.acked.len();
            self.pass_barrier();
            // This brings the returns that were still missing, and perhaps new acks, which must
            // wait for a barrier of their own.
            self.collect();
            self.answers.decide(known);
        }
        self.report(host);
    }

    fn report(&mut self, host: &dyn Host) {
        if !self.answers.outcomes.is_empty() {
            host.publications_ended(&mut self.answers.outcomes);
            self.answers.outcomes.clear();
        }
    }

    /// Takes in all confirms that are ready.
    fn collect(&mut self) {
        let answers = &mut self.answers;
        self.in_flight
            .drain(|sent, result| answers.add(sent, result));
    }

    /// Waits until lapin's I/O thread is between two acks, by the lock that it holds while it
    /// completes the confirms of one.
    fn pass_barrier(&self) {
        // The first poll takes the lock; later ones would wait for confirms.
        let _ = poll_once(self.channel.wait_for_confirms());
    }

    /// Ends what is in flight.
    fn end(&mut self, reason: &str) {
        let Some(host) = self.shared.host.upgrade() else {
            return;
        };
        self.settle(&*host);
        let unconfirmed = |sent: Sent| (sent.token, Outcome::Unconfirmed(reason.to_owned()));
        let mut outcomes: Vec<_> = self.in_flight.abandon().map(unconfirmed).collect();
        if !outcomes.is_empty() {
            host.publications_ended(&mut outcomes);
        }
        self.set_blocked(&*host, false);
    }
}

#[cfg(test)]
mod tests {
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;
    use crate::wire::{self, Recipient};

    fn returned(token: Token) -> Option<BasicReturnMessage> {
        let channel = format!("gone!{token}");
        let body = wire::encode(b"\x80", Recipient::Channel(&channel), usize::MAX).unwrap();
        let mut delivery = Delivery::mock(0, "".into(), "gone".into(), false, body);
        delivery.properties = BasicProperties::default().with_message_id(token.to_string().into());
        Some(BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        })
    }

    fn sent(token: Token) -> Sent {
        Sent {
            token,
            mandatory: true,
        }
    }

    #[test]
    fn a_return_counts_for_the_message_it_names_not_for_its_bearer() {
        let mut answers = Answers::default();
        // The return of 3 comes with 1, which was delivered; that of 5 with 4, which was refused.
        answers.add(sent(1), Ok(Confirmation::Ack(returned(3))));
        answers.add(sent(2), Ok(Confirmation::Ack(None)));
        answers.add(sent(3), Ok(Confirmation::Ack(None)));
        answers.add(sent(4), Ok(Confirmation::Nack(returned(5))));
        answers.decide(3);
        let mut outcomes = std::mem::take(&mut answers.outcomes);
        outcomes.sort_by_key(|(token, _)| *token);
        assert_eq!(
            outcomes,
            [
                (1, Outcome::Confirmed),
                (2, Outcome::Confirmed),
                (3, Outcome::NoChannel("gone!3".to_owned())),
                (4, Outcome::Full),
            ]
        );
        answers.add(sent(5), Ok(Confirmation::Ack(None)));
        answers.decide(1);
        assert_eq!(
            answers.outcomes,
            [(5, Outcome::NoChannel("gone!5".to_owned()))]
        );
        assert!(answers.returned.is_empty());
    }

    #[test]
    fn an_error_leaves_it_open_and_says_why() {
        let mut answers = Answers::default();
        let error = lapin::ErrorKind::MissingHeartbeatError.into();
        answers.add(sent(1), Err(error));
        let reason = "the broker was silent for more than two heartbeats".to_owned();
        assert_eq!(
            answers.outcomes,
            [(1, Outcome::Unconfirmed(reason.clone()))]
        );
        assert_eq!(answers.failed, Some(reason));
    }
}
