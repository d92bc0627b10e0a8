//! Hands publications over and reports what became of each.
//!
//! One publishes at a time on one AMQP channel, since two could swap their delivery tags: lapin's I/O
//! thread, between its reads and writes, and a task when that thread is gone or the layer is closed. It
//! starts many publications before it waits for any: lapin's `basic_publish` comes back only once the
//! frames are written.
//!
//! # Which message was returned
//!
//! [`super::answers`] has the rules, which hold between two acks.
//!
//! On the I/O thread we are always between two acks: so the returns of all that we collect there are
//! known, by the message id that they carry. Elsewhere we collect confirms, take once the lock under
//! which lapin handles an ack, so that none is half done, and collect what else is ready: then the
//! returns of all that was collected before the lock are known.
//!
//! # Where the broker closes the AMQP channel
//!
//! A message that is too large for the broker, or that the user may not send, costs the AMQP channel
//! and nothing else: a new one is opened on the same connection, and what was not processed is handed
//! over again, in its order ([`super::verdict`]). So that few others are in doubt then, the first
//! message to each exchange goes alone, and so does a large one that is larger than all before.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::future::{Either, poll_fn, select};
use lapin::options::BasicPublishOptions;
use lapin::protocol::AMQPErrorKind;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, Event};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::answers::{Answers, Sent, exchange_of};
use super::denial::Denials;
use super::failure::{Failure, describe};
use super::in_flight::{InFlight, poll_once};
use super::io_thread::{IoThread, Task, Turn, Work, time_to_gather};
use super::shared::Shared;
use super::topology::short;
use super::verdict::{ChannelError, ExchangeKind, Fate, Unanswered};
use super::workers::{Stop, stopped};

use crate::broker::{Host, Outcome, Publication, Route};

/// How many publications are taken at once. Confirms are looked at in between.
const BATCH: usize = 256;

/// How many batches are handled before other tasks have their turn.
const ROUNDS: usize = 8;

/// A doubtful message goes alone for this long at most: a queue whose process hangs confirms nothing,
/// and is not to keep all others from theirs.
const ALONE_AT_MOST: Duration = Duration::from_secs(1);

/// Why what is in flight has no outcome then.
const CLOSED: &str = "the layer was closed before the broker confirmed the message";

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

/// An AMQP channel that is in confirm mode.
trait Confirms {
    /// Waits until lapin's I/O thread is between two acks, by the lock that it holds while it
    /// completes the confirms of one.
    fn pass_barrier(&self);
}

impl Confirms for Channel {
    fn pass_barrier(&self) {
        // The first poll takes the lock; later ones would wait for confirms.
        let _ = poll_once(self.wait_for_confirms());
    }
}

struct Publisher<C, F, S>
where
    C: Confirms,
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(&Arc<C>, &Sent) -> F,
{
    shared: Arc<Shared>,
    channel: Arc<C>,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Makes a publication into a future whose first poll hands it over.
    send: S,
    in_flight: InFlight<Sent, F>,
    /// What is in flight is doubtful: nothing goes with it.
    is_alone: bool,
    /// How long what waits for that, or waits to go alone, still does.
    held_until: Option<Instant>,
    denials: Denials,
    answers: Answers,
    batch: Vec<Publication>,
    /// Taken from the layer, and not handed over yet; in order.
    waiting: VecDeque<Sent>,
    /// The broker's `max_message_size`, once it has told.
    size_limit: Option<usize>,
    /// Who judges what was nacked.
    inquiry: UnboundedSender<Sent>,
    blocked: bool,
}

/// Where publications go: an AMQP channel, and the connection that it is on.
pub(super) struct Outlet<E, O> {
    pub(super) io_thread: Arc<IoThread>,
    pub(super) channel: Channel,
    /// Those of the connection.
    pub(super) events: E,
    /// Opens an AMQP channel in place of one that the broker has closed.
    pub(super) open: O,
    /// How long a groups exchange that is gone is waited for.
    pub(super) patience: Duration,
}

/// Publishes until the connection ends or `stop` says so. Returns why.
pub(super) async fn run<E, F, O>(
    shared: Arc<Shared>,
    outlet: Outlet<E, F>,
    envelope: Envelope,
    inquiry: UnboundedSender<Sent>,
    mut stop: watch::Receiver<Stop>,
) -> String
where
    E: Stream<Item = Event> + Send + 'static,
    F: Fn() -> O + Send,
    O: Future<Output = Result<Channel, Failure>> + Send,
{
    let Outlet {
        io_thread,
        channel,
        events,
        open,
        patience,
    } = outlet;
    let mut publisher = Publisher {
        shared: Arc::clone(&shared),
        channel: Arc::new(channel),
        events: Box::pin(events),
        answers: Answers::new(envelope.exchange.to_string()),
        send: move |channel: &Arc<Channel>, sent: &Sent| {
            send(Arc::clone(channel), &envelope, Arc::clone(sent))
        },
        in_flight: InFlight::new(),
        is_alone: false,
        held_until: None,
        denials: Denials::default(),
        batch: Vec::with_capacity(BATCH),
        waiting: VecDeque::new(),
        size_limit: None,
        inquiry,
        blocked: false,
    };
    if let Some(host) = shared.host.upgrade() {
        host.publishing_changed(true);
    }
    // There may be what came while there was no connection.
    shared.doorbell.ring();
    let reason = loop {
        let task = Task::begin(Arc::clone(&io_thread), publisher);
        let reason = publish(&task, &mut stop).await;
        publisher = match task.take() {
            Some(publisher) => publisher,
            None => return "the publisher was taken before".to_owned(),
        };
        match reason {
            Some(_) if publisher.answers.channel_error.is_some() => {
                let no_exchange = publisher.judge();
                let reopened = async {
                    if let Some(reason) = no_exchange
                        && !shared.declare_again(reason, patience).await
                    {
                        return Err(Failure::passing(format!(
                            "the groups exchange was not there again in {patience:?}"
                        )));
                    }
                    open().await
                };
                match select(pin!(reopened), pin!(stopped(&mut stop))).await {
                    Either::Left((Ok(channel), _)) => publisher.channel = Arc::new(channel),
                    Either::Left((Err(failure), _)) => break failure.why,
                    Either::Right((Stop::Now(reason), _)) => break reason,
                    Either::Right((Stop::No | Stop::Finish, _)) => break CLOSED.to_owned(),
                }
            }
            Some(reason) => break reason,
            None => break publisher.finish().await,
        }
    };
    publisher.end(&reason);
    reason
}

/// Publishes until there is no more to do on this AMQP channel: the reason, or `None` where what is in
/// flight may be finished.
async fn publish<W: Work>(task: &Task<W>, stop: &mut watch::Receiver<Stop>) -> Option<String> {
    match select(poll_fn(|cx| task.poll(cx)), pin!(stopped(stop))).await {
        Either::Left((reason, _)) | Either::Right((Stop::Now(reason), _)) => Some(reason),
        Either::Right((Stop::No | Stop::Finish, _)) => None,
    }
}

/// What was taken has an outcome, however the publisher ends: the task may be ended while a session is
/// being made.
impl<C, F, S> Drop for Publisher<C, F, S>
where
    C: Confirms,
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(&Arc<C>, &Sent) -> F,
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
    sent: Sent,
) -> impl Future<Output = lapin::Result<Confirmation>> + Send + use<> {
    let mut properties = envelope.properties.clone();
    let mut options = BasicPublishOptions::default();
    // Names are shorter than 100 bytes, and decimal numbers too: none of them is refused here.
    let (exchange, key) = match &sent.route {
        Route::Queue(queue) => {
            options.mandatory = true;
            let id = ShortString::try_new(sent.token.to_string()).unwrap_or_default();
            properties = properties.with_message_id(id);
            (ShortString::default(), queue)
        }
        Route::Group(group) => (envelope.exchange.clone(), group),
    };
    let key = ShortString::try_new(key.clone()).unwrap_or_default();
    async move {
        let written = channel
            .basic_publish(exchange, key, options, &sent.body, properties)
            .await;
        written?.await
    }
}

impl<C, F, S> Work for Publisher<C, F, S>
where
    C: Confirms + Send + Sync,
    F: Future<Output = lapin::Result<Confirmation>> + Send,
    S: Fn(&Arc<C>, &Sent) -> F + Send,
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
            // Before more is handed over: what was alone may be no more.
            self.collect();
            let took = self.take(&*host);
            turn.has_written |= took;
            let known = self.answers.acked.len();
            self.answers.decide(known);
            turn.gather = time_to_gather(self.answers.outcomes.len(), self.in_flight.len() as u64);
            self.report(&*host);
            if let Some(reason) = self.answers.failed.take() {
                return Err(reason);
            }
            if self.answers.channel_error.is_some() {
                return Err("the broker has closed the AMQP channel".to_owned());
            }
            if !took {
                turn.due = self.held_until.filter(|_| !self.blocked);
                return Ok(turn);
            }
        }
        cx.waker().wake_by_ref();
        Ok(turn)
    }
}

impl<C, F, S> Publisher<C, F, S>
where
    C: Confirms,
    F: Future<Output = lapin::Result<Confirmation>>,
    S: Fn(&Arc<C>, &Sent) -> F,
{
    /// The AMQP channel is closed: tells what became of what has no answer, and lets what was not
    /// processed wait for another one. Returns what the broker says where the groups exchange is gone.
    fn judge(&mut self) -> Option<String> {
        self.collect();
        let error = self.answers.channel_error.take()?;
        let mut unanswered = std::mem::take(&mut self.answers.unanswered);
        unanswered.extend(self.in_flight.abandon());
        unanswered.sort_by_key(|sent| sent.token);
        self.is_alone = false;
        self.held_until = None;
        self.denials.learn(&error, Instant::now());
        let known: Vec<_> = unanswered
            .iter()
            .map(|sent| Unanswered {
                exchange: exchange_of(sent),
                size: sent.body.len(),
            })
            .collect();
        let fates = error.judge(&known);
        if let ChannelError::TooLarge(limit) = &error {
            self.size_limit = Some(*limit);
        }
        let mut again = Vec::new();
        for (sent, fate) in unanswered.into_iter().zip(fates) {
            let outcome = match fate {
                Fate::Discarded => {
                    again.push(sent);
                    continue;
                }
                Fate::Refused => refusal(&error, &sent),
                Fate::Unknown => Outcome::Unconfirmed(unknown(&error)),
            };
            self.answers.outcomes.push((sent.token, outcome));
        }
        for sent in again.into_iter().rev() {
            self.waiting.push_front(sent);
        }
        self.answers.proven.forget_exchanges();
        let known = self.answers.acked.len();
        self.answers.decide(known);
        if let Some(host) = self.shared.host.upgrade() {
            self.report(&*host);
            if let Some(limit) = self.size_limit {
                host.size_limit_learned(limit);
            }
        }
        // There is work on the new one.
        self.shared.doorbell.ring();
        match error {
            ChannelError::NoExchange(said) => Some(said),
            _ => None,
        }
    }

    /// Waits for confirms for a part of the time that there is to close. Returns why what is still
    /// in flight then is unconfirmed.
    async fn finish(&mut self) -> String {
        let shared = Arc::clone(&self.shared);
        let out_of_time = pin!(shared.closing.passed(0.5));
        match select(poll_fn(|cx| self.poll_confirms(cx)), out_of_time).await {
            Either::Left((Some(failed), _)) => failed,
            _ => CLOSED.to_owned(),
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
        self.hand_over();
        if self.answers.channel_error.is_some() {
            return Poll::Ready(Some("the broker has closed the AMQP channel".to_owned()));
        }
        let is_done = self.in_flight.len() == 0 && self.waiting.is_empty();
        if self.answers.failed.is_some() || self.blocked || is_done {
            return Poll::Ready(self.answers.failed.take());
        }
        Poll::Pending
    }

    fn read_events(&mut self, host: &dyn Host, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = self.events.as_mut().poll_next(cx) {
            match event {
                Event::ConnectionBlocked(_) => self.set_blocked(host, true),
                Event::ConnectionUnblocked => self.set_blocked(host, false),
                // One of an AMQP channel may be of another than ours, and ours tells by itself.
                Event::Error(error) if !is_of_a_channel(&error) => {
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
        if self.has_ended() || self.blocked {
            return false;
        }
        // A ring that is not answered stays for later.
        if self.waiting.is_empty() && self.shared.doorbell.answer() {
            host.take_publications(BATCH, &mut self.batch);
            if self.batch.len() >= BATCH {
                self.shared.doorbell.ring();
            }
            self.waiting.extend(self.batch.drain(..).map(Arc::new));
        }
        self.hand_over()
    }

    fn has_ended(&self) -> bool {
        self.answers.failed.is_some() || self.answers.channel_error.is_some()
    }

    /// Hands over what waits, as far as nothing doubtful stands in the way; whether there was any.
    fn hand_over(&mut self) -> bool {
        let mut has_handed_over = false;
        while !self.has_ended()
            && !self.blocked
            && let Some(first) = self.waiting.front()
        {
            if let Some(outcome) = self.refused_here(first) {
                self.answers.outcomes.push((first.token, outcome));
                self.waiting.pop_front();
                // There may be more to take, which nothing else would tell of.
                has_handed_over = true;
                continue;
            }
            let is_first = self.in_flight.len() == 0;
            let mut is_doubtful = self.answers.proven.is_doubtful(first);
            if !is_first && (self.is_alone || is_doubtful) {
                let now = Instant::now();
                if now < *self.held_until.get_or_insert(now + ALONE_AT_MOST) {
                    break;
                }
                self.answers.proven.processed(first);
                is_doubtful = false;
            }
            self.held_until = None;
            self.is_alone = is_doubtful;
            let Some(sent) = self.waiting.pop_front() else {
                break;
            };
            let future = (self.send)(&self.channel, &sent);
            if let Some((sent, result)) = self.in_flight.start(sent, future) {
                self.answers.add(sent, result);
            }
            has_handed_over = true;
        }
        has_handed_over
    }

    /// What is known to come of it, without the broker.
    fn refused_here(&self, sent: &Sent) -> Option<Outcome> {
        if let Some(limit) = self.size_limit
            && sent.body.len() > limit
        {
            return Some(refusal(&ChannelError::TooLarge(limit), sent));
        }
        if self.denials.is_empty() {
            return None;
        }
        let error = self.denials.of(exchange_of(sent), Instant::now())?;
        Some(refusal(error, sent))
    }

    /// Reports all that the broker has answered, on another thread than lapin's.
    fn settle(&mut self, host: &dyn Host) {
        self.collect();
        while !self.answers.acked.is_empty() {
            let known = self.answers.acked.len();
            self.channel.pass_barrier();
            // This brings the returns that were still missing, and perhaps new acks, which must
            // wait for a barrier of their own.
            self.collect();
            self.answers.decide(known);
        }
        self.report(host);
    }

    fn report(&mut self, host: &dyn Host) {
        for sent in self.answers.nacked.drain(..) {
            // Where nobody judges any more, that it was refused is what is known.
            if let Err(unjudged) = self.inquiry.send(sent) {
                self.answers
                    .outcomes
                    .push((unjudged.0.token, Outcome::Full));
            }
        }
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

    /// Ends what is in flight.
    fn end(&mut self, reason: &str) {
        let Some(host) = self.shared.host.upgrade() else {
            return;
        };
        self.settle(&*host);
        let unconfirmed = |sent: Sent| (sent.token, Outcome::Unconfirmed(reason.to_owned()));
        let unanswered = std::mem::take(&mut self.answers.unanswered);
        let left = self.in_flight.abandon().chain(unanswered);
        let mut outcomes: Vec<_> = left.map(unconfirmed).collect();
        // Never handed over, or known not to be processed.
        let unsent = |sent: Sent| (sent.token, Outcome::Unsent(reason.to_owned()));
        outcomes.extend(self.waiting.drain(..).map(unsent));
        if !outcomes.is_empty() {
            host.publications_ended(&mut outcomes);
        }
        self.set_blocked(&*host, false);
    }
}

/// Of a publication that the broker has certainly refused.
fn refusal(error: &ChannelError, sent: &Sent) -> Outcome {
    match error {
        ChannelError::TooLarge(limit) => Outcome::TooLarge {
            size: sent.body.len(),
            limit: *limit,
        },
        ChannelError::NoRight { exchange, said } => {
            let exchange = match exchange {
                ExchangeKind::Default => "the default exchange (amq.default)",
                ExchangeKind::Groups => "the groups exchange",
            };
            Outcome::Refused(format!(
                "{said}; the user needs the right to write to {exchange}"
            ))
        }
        ChannelError::NoExchange(said) | ChannelError::Other(said) => {
            Outcome::Refused(said.clone())
        }
    }
}

/// Of one that may have been processed before the broker closed the AMQP channel.
fn unknown(error: &ChannelError) -> String {
    match error {
        ChannelError::TooLarge(limit) => format!(
            "the broker refused a message behind it that was larger than {limit} bytes, and closed \
             the AMQP channel"
        ),
        ChannelError::NoRight { said, .. }
        | ChannelError::NoExchange(said)
        | ChannelError::Other(said) => format!("{said}, and closed the AMQP channel"),
    }
}

fn is_of_a_channel(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return false;
    };
    matches!(said.kind(), AMQPErrorKind::Soft(_))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures_util::stream;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::broker::Token;
    use crate::broker::testing::{FakeHost, to};
    use crate::sync::Mutex;

    /// An AMQP channel that keeps what is published, until the test says what came of it.
    #[derive(Default)]
    struct Kept(Mutex<HashMap<Token, oneshot::Sender<Confirmation>>>);

    impl Confirms for Kept {
        fn pass_barrier(&self) {}
    }

    impl Kept {
        fn publish(&self, sent: &Sent) -> Confirming {
            let (answer, answered) = oneshot::channel();
            self.0.lock().insert(sent.token, answer);
            Box::pin(async { Ok(answered.await.unwrap_or(Confirmation::NotRequested)) })
        }

        /// The broker confirms, which nobody has collected yet.
        fn ack(&self, token: Token) {
            let answer = self.0.lock().remove(&token).expect("it was published");
            answer
                .send(Confirmation::Ack(None))
                .expect("it is in flight");
        }

        fn holds(&self) -> Vec<Token> {
            let mut tokens: Vec<_> = self.0.lock().keys().copied().collect();
            tokens.sort_unstable();
            tokens
        }
    }

    type Confirming = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;
    type Publish = fn(&Arc<Kept>, &Sent) -> Confirming;

    fn publisher(host: &Arc<FakeHost>) -> Publisher<Kept, Confirming, Publish> {
        let host: Arc<dyn Host> = Arc::clone(host) as Arc<dyn Host>;
        let (complaints, _) = mpsc::unbounded_channel();
        let (inquiry, _) = mpsc::unbounded_channel();
        Publisher {
            shared: Arc::new(Shared::new(Arc::downgrade(&host), complaints)),
            channel: Arc::default(),
            events: Box::pin(stream::pending()),
            send: |channel, sent| channel.publish(sent),
            in_flight: InFlight::new(),
            is_alone: false,
            held_until: None,
            denials: Denials::default(),
            answers: Answers::new("groups".to_owned()),
            batch: Vec::new(),
            waiting: VecDeque::new(),
            size_limit: None,
            inquiry,
            blocked: false,
        }
    }

    type Tested = Publisher<Kept, Confirming, Publish>;

    /// A new publication, of which the publisher is told.
    fn send(publisher: &Tested, host: &FakeHost, token: Token) {
        host.push(Publication {
            token,
            route: to("queue"),
            body: b"x".to_vec(),
        });
        publisher.shared.doorbell.ring();
    }

    /// After this no publication goes alone.
    fn proven(publisher: &mut Tested, host: &FakeHost) {
        send(publisher, host, 1);
        assert!(publisher.take(host));
        publisher.channel.ack(1);
        publisher.settle(host);
        assert_eq!(host.outcome(1), Some(Outcome::Confirmed));
    }

    #[test]
    fn a_confirm_that_nobody_has_collected_when_the_connection_ends_is_told_as_one() {
        let host = Arc::new(FakeHost::default());
        let mut publisher = publisher(&host);
        proven(&mut publisher, &host);
        for token in 2..=4 {
            send(&publisher, &host, token);
        }
        assert!(publisher.take(&*host));
        assert_eq!(publisher.channel.holds(), [2, 3, 4]);
        publisher.channel.ack(2);
        publisher.channel.ack(4);
        publisher.end("the connection was cut");
        assert_eq!(host.outcome(2), Some(Outcome::Confirmed));
        assert!(matches!(host.outcome(3), Some(Outcome::Unconfirmed(_))));
        assert_eq!(host.outcome(4), Some(Outcome::Confirmed));
    }

    #[test]
    fn nothing_is_taken_or_published_while_the_broker_blocks() {
        let host = Arc::new(FakeHost::default());
        let mut publisher = publisher(&host);
        // The first goes alone, so that the second waits behind it.
        send(&publisher, &host, 1);
        send(&publisher, &host, 2);
        assert!(publisher.take(&*host));
        assert_eq!(publisher.channel.holds(), [1]);
        publisher.set_blocked(&*host, true);
        assert_eq!(host.record().blocked, [true]);

        publisher.channel.ack(1);
        publisher.settle(&*host);
        assert_eq!(host.outcome(1), Some(Outcome::Confirmed));
        send(&publisher, &host, 3);
        assert!(!publisher.take(&*host));
        assert!(!publisher.hand_over());
        assert_eq!(publisher.channel.holds(), [0; 0]);

        publisher.set_blocked(&*host, false);
        assert!(publisher.take(&*host));
        assert!(publisher.take(&*host));
        assert_eq!(publisher.channel.holds(), [2, 3]);
    }
}
