//! Publishes what the layer sends, and tells what became of it.
//!
//! One AMQP channel in confirm mode, so that the broker answers by delivery tags. [`super::answers`] has
//! what an answer comes to.
//!
//! # Where the broker closes the AMQP channel
//!
//! A message that is too large for the broker, or that the user may not send, costs the AMQP channel
//! and nothing else: it is opened again on the same connection, and what was not processed is handed
//! over again, in its order ([`super::verdict`]). So that few others are in doubt then, the first
//! message to each exchange goes alone, and so does a large one that is larger than all before.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answers::{Answers, Sent, Unconfirmed, exchange_of};
use super::connect::Link;
use super::denial::Denials;
use super::failure::{End, Failure, TOO_FEW_CHANNELS};
use super::gathering::time_to_gather;
use super::io::{Handler, Io, LARGE, Task, Turn};
use super::shared::Shared;
use super::topology::Topology;
use super::verdict::{ChannelError, ExchangeKind, Fate, Unanswered};
use super::workers::{Stop, stopped};
use crate::amqp::{Header, Incoming, Name, Properties, Publish};
use crate::broker::{Host, Outcome, Publication, Route, Token};
use crate::sync::Mutex;

/// How many publications are taken at once. Confirms are looked at in between.
const BATCH: usize = 256;

/// A doubtful message goes alone for this long at most: a queue whose process hangs confirms nothing,
/// and is not to keep all others from theirs.
const ALONE_AT_MOST: Duration = Duration::from_secs(1);

/// Why what is in flight has no outcome then.
const CLOSED: &str = "the layer was closed before the broker confirmed the message";

/// Why what was published has no outcome where the broker does something that AMQP does not have.
const CONFUSED: &str = "the broker sent what no publisher expects";

/// A message that is lost with the broker: there is no queue of ours that outlives it.
const TRANSIENT: u8 = 1;

/// What the messages of a layer have in common.
#[derive(Debug)]
struct Envelope {
    exchange: String,
    /// In milliseconds, as a decimal.
    expiration: String,
}

impl Envelope {
    fn new(topology: &Topology) -> Self {
        Self {
            exchange: topology.exchange.clone(),
            expiration: topology.expiry.as_millis().to_string(),
        }
    }
}

/// What a publisher tells its task.
#[derive(Debug)]
enum Event {
    /// The AMQP channel is open, for the first time.
    Open,
    /// It waits until the groups exchange is there again; the broker's own words.
    NoExchange(String),
}

/// What the task tells its publisher.
#[derive(Debug, Default)]
struct Orders {
    /// What it waited for is there: the rest of the link, or the groups exchange.
    may_go_on: bool,
    /// Nothing more is to be taken from the layer.
    finish: bool,
}

/// The AMQP channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// The broker closed it, and there is no groups exchange.
    WaitsForExchange,
    /// It was asked for, and is waited for until then.
    Opening {
        channel: u16,
        until: Instant,
    },
    /// It is open, and the rest of the link is not made yet.
    Ready {
        channel: u16,
    },
    Open {
        channel: u16,
    },
}

/// What publishes on the I/O thread.
struct Engine {
    shared: Arc<Shared>,
    envelope: Envelope,
    state: State,
    /// The last of [`Orders::may_go_on`], until it waits again.
    may_go_on: bool,
    /// How long an AMQP channel may take to open.
    patience: Duration,
    events: UnboundedSender<Event>,
    orders: Arc<Mutex<Orders>>,
    is_finishing: bool,
    in_flight: Unconfirmed,
    /// What is in flight is doubtful: nothing goes with it.
    is_alone: bool,
    /// How long what waits for that, or waits to go alone, still does.
    held_until: Option<Instant>,
    denials: Denials,
    answers: Answers,
    batch: Vec<Publication>,
    /// Taken from the layer, and not handed over yet; in order.
    waiting: VecDeque<Publication>,
    /// The broker's `max_message_size`, once it has told.
    size_limit: Option<usize>,
    /// Who judges what was nacked.
    inquiry: UnboundedSender<Publication>,
    is_blocked: bool,
}

/// The publisher of one connection, for its task.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    task: Task,
    events: UnboundedReceiver<Event>,
    orders: Arc<Mutex<Orders>>,
    /// How long a groups exchange that is gone is waited for.
    patience: Duration,
}

impl Publisher {
    /// Opens what publishes on `link`.
    pub(super) async fn open(
        shared: Arc<Shared>,
        link: &Link,
        topology: &Topology,
        inquiry: UnboundedSender<Publication>,
    ) -> Result<Self, Failure> {
        let (tells, events) = unbounded_channel();
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let engine = Engine::new(
            Arc::clone(&shared),
            topology,
            tells,
            Arc::clone(&orders),
            inquiry,
        );
        let mut publisher = Self {
            shared,
            task: link.io().begin(engine),
            events,
            orders,
            patience: topology.timeout,
        };
        let opened = publisher.opened();
        match timeout(topology.timeout, opened).await {
            Ok(Ok(())) => Ok(publisher),
            Ok(Err(end)) => Err(topology.ended(&end)),
            Err(_) => Err(Failure::silence(topology.timeout)),
        }
    }

    async fn opened(&mut self) -> Result<(), End> {
        let event = pin!(self.events.recv());
        match select(event, pin!(self.task.ended())).await {
            Either::Left((Some(_), _)) => Ok(()),
            Either::Left((None, ended)) => Err(ended.await),
            Either::Right((end, _)) => Err(end),
        }
    }

    /// Publishes until the connection ends or `stop` says so. Returns why.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<Stop>) -> String {
        if let Some(host) = self.shared.host.upgrade() {
            host.publishing_changed(true);
        }
        self.shared.publishes_on(Some(self.task.io()));
        self.order(|orders| orders.may_go_on = true);
        let stopped = {
            match select(pin!(self.serve()), pin!(stopped(&mut stop))).await {
                Either::Left((reason, _)) => Stop::Now(reason),
                Either::Right((stop, _)) => stop,
            }
        };
        let reason = match stopped {
            Stop::Now(reason) => reason,
            Stop::No | Stop::Finish => self.finish().await,
        };
        self.shared.publishes_on(None);
        self.task.end(&reason.clone().into());
        reason
    }

    /// Waits for confirms for a part of the time that there is to close. Returns why what is still in
    /// flight then is unconfirmed.
    async fn finish(&mut self) -> String {
        self.order(|orders| orders.finish = true);
        let shared = Arc::clone(&self.shared);
        let out_of_time = pin!(shared.closing.passed(0.5));
        match select(pin!(self.task.ended()), out_of_time).await {
            Either::Left((end, _)) => end.why,
            Either::Right(_) => CLOSED.to_owned(),
        }
    }

    async fn serve(&mut self) -> String {
        loop {
            let event = {
                let event = pin!(self.events.recv());
                match select(pin!(self.task.ended()), event).await {
                    Either::Left((end, _)) => return end.why,
                    Either::Right((event, _)) => event,
                }
            };
            match event {
                Some(Event::Open) => {}
                Some(Event::NoExchange(reason)) => {
                    if !self.shared.declare_again(reason, self.patience).await {
                        return format!(
                            "the groups exchange was not there again in {:?}",
                            self.patience
                        );
                    }
                    self.order(|orders| orders.may_go_on = true);
                }
                None => return self.task.ended().await.why,
            }
        }
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders.lock());
        self.task.wake();
    }
}

impl Engine {
    fn new(
        shared: Arc<Shared>,
        topology: &Topology,
        events: UnboundedSender<Event>,
        orders: Arc<Mutex<Orders>>,
        inquiry: UnboundedSender<Publication>,
    ) -> Self {
        Self {
            shared,
            envelope: Envelope::new(topology),
            state: State::Closed,
            may_go_on: false,
            patience: topology.timeout,
            events,
            orders,
            is_finishing: false,
            in_flight: Unconfirmed::default(),
            is_alone: false,
            held_until: None,
            denials: Denials::default(),
            answers: Answers::default(),
            batch: Vec::with_capacity(BATCH),
            waiting: VecDeque::new(),
            size_limit: None,
            inquiry,
            is_blocked: false,
        }
    }

    /// Takes in what has changed outside.
    fn look(&mut self, host: &dyn Host, io: &mut Io<'_>) -> Result<(), End> {
        if io.is_blocked != self.is_blocked {
            self.set_blocked(host, io.is_blocked);
        }
        {
            let mut orders = self.orders.lock();
            self.is_finishing = orders.finish;
            self.may_go_on |= std::mem::take(&mut orders.may_go_on);
        }
        match self.state {
            State::Closed => self.open(io),
            State::WaitsForExchange if self.may_go_on => self.open(io),
            State::Ready { channel } if self.may_go_on => {
                self.begin(channel);
                Ok(())
            }
            // A connection that is blocked answers later.
            State::Opening { channel, .. } if self.is_blocked => {
                let until = io.now + self.patience;
                self.state = State::Opening { channel, until };
                Ok(())
            }
            State::Opening { until, .. } if io.now >= until => {
                Err(Failure::silence(self.patience).why.into())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, io: &mut Io<'_>) -> Result<(), End> {
        let channel = io.take_channel().ok_or(TOO_FEW_CHANNELS)?;
        let mut writer = io.writer(channel);
        writer.channel_open();
        writer.confirm_select();
        let until = io.now + self.patience;
        self.state = State::Opening { channel, until };
        Ok(())
    }

    fn opened(&mut self) {
        let State::Opening { channel, .. } = self.state else {
            return;
        };
        // The next turn goes on, if it may.
        self.state = State::Ready { channel };
        if !self.may_go_on {
            // If nobody listens, the publisher is about to be ended.
            let _ = self.events.send(Event::Open);
        }
    }

    fn begin(&mut self, channel: u16) {
        self.state = State::Open { channel };
        // There may be what came while there was none: this turn looks.
        self.shared.doorbell.ring();
    }

    fn set_blocked(&mut self, host: &dyn Host, is_blocked: bool) {
        if self.is_blocked != is_blocked {
            self.is_blocked = is_blocked;
            host.publishers_blocked(is_blocked);
        }
    }

    /// Hands over what is there.
    fn take(&mut self, host: &dyn Host, channel: u16, io: &mut Io<'_>) {
        if self.is_blocked || !io.has_room() {
            return;
        }
        // A ring that is not answered stays for later.
        if self.waiting.is_empty() && !self.is_finishing && self.shared.doorbell.answer() {
            host.take_publications(BATCH, &mut self.batch);
            if self.batch.len() >= BATCH {
                self.shared.doorbell.ring();
                io.waker.wake_by_ref();
            }
            self.waiting.extend(self.batch.drain(..));
        }
        self.hand_over(channel, io);
    }

    /// Hands over what waits, as far as nothing doubtful stands in the way.
    fn hand_over(&mut self, channel: u16, io: &mut Io<'_>) {
        while !self.is_blocked
            && io.has_room()
            && let Some(first) = self.waiting.front()
        {
            if let Some(outcome) = self.refused_here(first, io.now) {
                self.answers.outcomes.push((first.token, outcome));
                self.waiting.pop_front();
                continue;
            }
            let is_first = self.in_flight.len() == 0;
            let mut is_doubtful = self.answers.proven.is_doubtful(first);
            if !is_first && (self.is_alone || is_doubtful) {
                if io.now < *self.held_until.get_or_insert(io.now + ALONE_AT_MOST) {
                    break;
                }
                self.answers.proven.processed(first);
                is_doubtful = false;
            }
            self.held_until = None;
            self.is_alone = is_doubtful;
            let Some(publication) = self.waiting.pop_front() else {
                break;
            };
            let sent = self.publish(publication, channel, io);
            self.in_flight.push(sent);
        }
    }

    fn publish(&self, publication: Publication, channel: u16, io: &mut Io<'_>) -> Sent {
        let frame_max = io.frame_max;
        let mut id = itoa::Buffer::new();
        // Names are shorter than 100 bytes, and decimal numbers too: none of them is empty here.
        let name = |name| Name::new(name).unwrap_or_default();
        let (exchange, key, message_id) = match &publication.route {
            Route::Queue(queue) => ("", queue, Some(name(id.format(publication.token)))),
            Route::Group(group) => (self.envelope.exchange.as_str(), group, None),
        };
        let publish = Publish {
            exchange: name(exchange),
            routing_key: name(key),
            mandatory: message_id.is_some(),
            properties: Properties {
                delivery_mode: Some(TRANSIENT),
                expiration: Some(name(&self.envelope.expiration)),
                message_id,
                kind: None,
            },
        };
        let mut writer = io.writer(channel);
        writer.publish(&publish, publication.body.len());
        if publication.body.len() < LARGE {
            writer.body(&publication.body, frame_max);
            return Sent::copied(publication);
        }
        let (sent, body) = Sent::shared(publication);
        io.write_shared(channel, &body);
        sent
    }

    /// What is known to come of it, without the broker.
    fn refused_here(&self, publication: &Publication, now: Instant) -> Option<Outcome> {
        if let Some(limit) = self.size_limit
            && publication.body.len() > limit
        {
            return Some(refusal(&ChannelError::TooLarge(limit), publication));
        }
        if self.denials.is_empty() {
            return None;
        }
        let error = self.denials.of(exchange_of(publication), now)?;
        Some(refusal(error, publication))
    }

    /// The AMQP channel is closed: tells what became of what has no answer, and lets what was not
    /// processed wait for another one.
    fn judge(&mut self, error: &ChannelError, now: Instant) {
        let unanswered = self.in_flight.abandon();
        self.is_alone = false;
        self.held_until = None;
        self.denials.learn(error, now);
        let known: Vec<_> = unanswered
            .iter()
            .map(|publication| Unanswered {
                exchange: exchange_of(publication),
                size: publication.body.len(),
            })
            .collect();
        let fates = error.judge(&known);
        let mut again = Vec::new();
        for (publication, fate) in unanswered.into_iter().zip(fates) {
            let Some(publication) = self.answers.end_if_returned(publication) else {
                continue;
            };
            let outcome = match fate {
                Fate::Discarded => {
                    again.push(publication);
                    continue;
                }
                Fate::Refused => refusal(error, &publication),
                Fate::Unknown => Outcome::Unconfirmed(unknown(error)),
            };
            self.answers.outcomes.push((publication.token, outcome));
        }
        for publication in again.into_iter().rev() {
            self.waiting.push_front(publication);
        }
        self.answers.proven.forget_exchanges();
    }

    /// The broker has closed the AMQP channel.
    fn channel_closed(&mut self, error: ChannelError, now: Instant) {
        self.judge(&error, now);
        self.state = State::Closed;
        match error {
            ChannelError::TooLarge(limit) => {
                self.size_limit = Some(limit);
                if let Some(host) = self.shared.host.upgrade() {
                    host.size_limit_learned(limit);
                }
            }
            ChannelError::NoExchange(said) => {
                self.state = State::WaitsForExchange;
                self.may_go_on = false;
                // If nobody listens, the publisher is about to be ended.
                let _ = self.events.send(Event::NoExchange(said));
            }
            ChannelError::NoRight { .. } | ChannelError::Other(_) => {}
        }
    }

    fn report(&mut self, host: &dyn Host) {
        for publication in self.answers.nacked.drain(..) {
            // Where nobody judges any more, that it was refused is what is known.
            if let Err(unjudged) = self.inquiry.send(publication) {
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

    /// When there is something to do even if nothing happens.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Opening { until, .. } => Some(until),
            State::Open { .. } if !self.is_blocked => self.held_until,
            _ => None,
        }
    }
}

impl Handler for Engine {
    fn method(&mut self, channel: u16, method: &Incoming<'_>, io: &mut Io<'_>) -> Result<(), End> {
        let answers = &mut self.answers;
        match method {
            Incoming::Ack(confirm) => {
                self.in_flight
                    .confirmed(*confirm, |publication| answers.acked(publication));
            }
            Incoming::Nack(confirm) => {
                self.in_flight
                    .confirmed(*confirm, |publication| answers.nacked(publication));
            }
            // Its header says which one.
            Incoming::Return { .. } | Incoming::ChannelOpenOk => {}
            Incoming::ConfirmSelectOk => self.opened(),
            Incoming::ChannelClose(close) => {
                io.writer(channel).channel_close_ok();
                io.release_channel(channel);
                if matches!(self.state, State::Opening { .. }) {
                    // To open it again at once would be to do so for ever.
                    return Err(End::said(close));
                }
                let error = ChannelError::of(close, &self.envelope.exchange);
                self.channel_closed(error, io.now);
            }
            Incoming::ChannelFlow { active } => io.writer(channel).channel_flow_ok(*active),
            _ => return Err(CONFUSED.into()),
        }
        Ok(())
    }

    fn header(&mut self, _: u16, header: &Header<'_>, _: &mut Io<'_>) -> Result<(), End> {
        if let Some(message_id) = header.message_id {
            self.answers.returned(message_id, self.in_flight.len());
        }
        Ok(())
    }

    // What came back is in flight still.
    fn body(&mut self, _: u16, _: &[u8], _: &mut Io<'_>) -> Result<(), End> {
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let is_open = matches!(self.state, State::Open { .. }) && !self.is_blocked;
        is_open && self.in_flight.len() == 0 && self.waiting.is_empty()
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, End> {
        let Some(host) = self.shared.host.upgrade() else {
            return Err("the layer is gone".into());
        };
        self.look(&*host, io)?;
        let answered = self.answers.outcomes.len();
        if let State::Open { channel } = self.state {
            self.take(&*host, channel, io);
        }
        self.report(&*host);
        let is_done = self.in_flight.len() == 0 && self.waiting.is_empty();
        if self.is_finishing && (is_done || self.is_blocked) {
            return Err(CLOSED.into());
        }
        Ok(Turn {
            due: self.due(),
            gather: time_to_gather(answered, self.in_flight.len() as u64),
        })
    }

    /// What was taken has an outcome, however the publisher ends.
    fn end(&mut self, end: &End) {
        let Some(host) = self.shared.host.upgrade() else {
            return;
        };
        for publication in self.in_flight.abandon() {
            if let Some(publication) = self.answers.end_if_returned(publication) {
                let outcome = Outcome::Unconfirmed(end.why.clone());
                self.answers.outcomes.push((publication.token, outcome));
            }
        }
        // Never handed over, or known not to be processed.
        let unsent = |publication: Publication| -> (Token, Outcome) {
            (publication.token, Outcome::Unsent(end.why.clone()))
        };
        self.answers
            .outcomes
            .extend(self.waiting.drain(..).map(unsent));
        self.report(&*host);
        self.set_blocked(&*host, false);
    }
}

/// Of a publication that the broker has certainly refused.
fn refusal(error: &ChannelError, publication: &Publication) -> Outcome {
    match error {
        ChannelError::TooLarge(limit) => Outcome::TooLarge {
            size: publication.body.len(),
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

#[cfg(test)]
mod tests;
