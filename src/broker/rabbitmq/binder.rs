//! Changes which groups are routed to the own queue, many at once.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::options::{
    BasicQosOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions,
    QueueBindOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::sync::mpsc::UnboundedReceiver;

use super::connect::Link;
use super::failure::{describe, is_not_allowed, is_out_of_channels};
use super::in_flight::{InFlight, poll_once};
use super::io_thread::{Turn, Work};
use super::lanes::{LANES, LaneId, Lanes, Step};
use super::parts::{Admission, Errand, Made, Part, Parts, part_name};
use crate::broker::{BindingChange, BindingEpoch, Host, Mark, Verb};
use crate::sync::Mutex;

/// What groups are bound to.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The private exchange of the layer; and which parts it has, if it may have some.
    Exchange(ShortString, Option<Made>),
    /// The own queue.
    Queue(ShortString),
}

/// The argument of a binding that tells it from those of other marks. Exchanges do not route by it.
const MARK: &str = "channel-layer-link";

/// The AMQP channels that a binder has open, which others close, or keep until the connection has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened(Arc<Mutex<HashMap<LaneId, Channel>>>);

impl Opened {
    pub(super) fn take(&self) -> Vec<Channel> {
        let channels = std::mem::take(&mut *self.0.lock());
        channels.into_values().collect()
    }
}

/// How many lanes the connections of a layer may have, as far as is known.
#[derive(Debug)]
pub(super) struct LaneLimit(AtomicUsize);

impl Default for LaneLimit {
    fn default() -> Self {
        Self(AtomicUsize::new(LANES))
    }
}

impl LaneLimit {
    /// `numbers` is how many AMQP channels this connection may have, and `others` how many it needs for
    /// other things.
    pub(super) fn for_connection(&self, numbers: usize, others: usize) -> usize {
        let most = numbers.saturating_sub(others).max(1);
        most.min(self.0.load(Ordering::Relaxed))
    }

    /// The broker has ended a connection for one AMQP channel too many: there is room for one lane, since
    /// which of them were too many depends on what else was open for a moment.
    pub(super) fn is_reached(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// What goes over a lane.
#[derive(Debug, Clone)]
enum Task {
    Errand(Errand),
    Change(Part, BindingChange),
}

/// What the broker was asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    Open(LaneId),
    Bar(LaneId),
    Close(LaneId),
}

type Answer = lapin::Result<Option<Channel>>;

/// Changes bindings. At most one change of each binding is under way.
pub(super) struct Binder {
    link: Weak<Link>,
    destination: Destination,
    exchange: ShortString,
    limit: Arc<LaneLimit>,
    parts: Parts<BindingChange>,
    /// How often the parts are looked for, and when next.
    look_every: Duration,
    look_at: Instant,
    lanes: Lanes<Task>,
    opened: Opened,
    in_flight: InFlight<Question, BoxFuture<'static, Answer>>,
    done: Vec<BindingChange>,
    failed: Option<lapin::Error>,
    /// A change could not be sent. What the broker says of it comes as the answer to a barrier, if there is
    /// one under way.
    not_sent: Option<lapin::Error>,
    /// lapin was given something to write.
    has_written: bool,
}

impl Binder {
    /// `channel` is its first, of at most `most`.
    pub(super) fn new(
        link: &Arc<Link>,
        channel: Channel,
        (limit, most): (Arc<LaneLimit>, usize),
        destination: Destination,
        exchange: ShortString,
        look_every: Duration,
    ) -> Self {
        let opened = Opened::default();
        opened.0.lock().insert(0, channel);
        let now = Instant::now();
        let made = match &destination {
            Destination::Exchange(_, made) => made.clone(),
            Destination::Queue(_) => None,
        };
        Self {
            link: Arc::downgrade(link),
            destination,
            exchange,
            limit,
            parts: Parts::new(made),
            look_every,
            look_at: now + look_every,
            lanes: Lanes::new(most, now),
            opened,
            in_flight: InFlight::new(),
            done: Vec::new(),
            failed: None,
            not_sent: None,
            has_written: false,
        }
    }

    /// The AMQP channels that it has open at any time.
    pub(super) fn opened(&self) -> Opened {
        self.opened.clone()
    }

    /// How many changes are not known to be done.
    pub(super) fn unfinished(&self) -> usize {
        self.lanes.unfinished() + self.parts.waiting()
    }

    /// Takes a change on, which the next poll sends on its way.
    pub(super) fn submit(&mut self, change: BindingChange) {
        match self.parts.admit(change.place, change) {
            Admission::Now(part, change) => self.lanes.push(Task::Change(part, change)),
            Admission::First(errand) => self.lanes.push(Task::Errand(errand)),
            Admission::Waits => {}
        }
    }

    /// Does what can be done now, and appends to `done` what the broker has done. Pending if it has answered
    /// nothing, and will.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        done: &mut Vec<BindingChange>,
    ) -> Poll<lapin::Result<()>> {
        self.in_flight.register(cx.waker());
        let mut answers = Vec::new();
        self.in_flight
            .drain(|question, answer| answers.push((question, answer)));
        let now = Instant::now();
        let has_answered = !answers.is_empty();
        for (question, answer) in answers {
            self.answered(question, answer, now);
        }
        self.look_for_parts(now);
        while self.failed.is_none()
            && self.not_sent.is_none()
            && let Some(step) = self.lanes.next(now)
        {
            self.act(step, now);
        }
        if self.failed.is_none() && self.in_flight.len() == 0 {
            self.failed = self.not_sent.take();
        }
        if let Some(error) = self.failed.take() {
            done.append(&mut self.done);
            return Poll::Ready(Err(error));
        }
        if self.done.is_empty() && !has_answered && self.unfinished() > 0 {
            return Poll::Pending;
        }
        done.append(&mut self.done);
        Poll::Ready(Ok(()))
    }

    /// A part that is gone has taken its bindings with it, and no probe goes over it.
    fn look_for_parts(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + self.look_every;
        for errand in self.parts.look() {
            self.lanes.push(Task::Errand(errand));
        }
    }

    /// When to poll again even if nothing happens.
    fn next_look(&self) -> Option<Instant> {
        let parts = self.parts.look().next().map(|_| self.look_at);
        parts.into_iter().chain(self.lanes.next_look()).min()
    }

    fn act(&mut self, step: Step<Task>, now: Instant) {
        self.has_written = true;
        match step {
            Step::Open(id) => {
                let link = Weak::clone(&self.link);
                let open = async move {
                    let link = link.upgrade();
                    let connection = link.as_ref().and_then(|link| link.connection().ok());
                    match connection {
                        Some(connection) => connection.create_channel().await.map(Some),
                        None => Ok(None),
                    }
                };
                self.ask(Question::Open(id), open.boxed(), now);
            }
            Step::Send(id, task) => {
                if let Some(channel) = self.channel(id)
                    && let Err(error) = self.send(&channel, task)
                {
                    self.not_sent.get_or_insert(error);
                }
            }
            Step::Bar(id) => {
                if let Some(channel) = self.channel(id) {
                    // Any method with an answer would do, and this one changes nothing.
                    let bar = async move {
                        let limit = channel.basic_qos(0, BasicQosOptions::default());
                        limit.await.map(|()| None)
                    };
                    self.ask(Question::Bar(id), bar.boxed(), now);
                }
            }
            Step::Close(id) => {
                if let Some(channel) = self.channel(id) {
                    let close = async move {
                        let close = channel.close(200, "not needed any more".into());
                        close.await.map(|()| None)
                    };
                    self.ask(Question::Close(id), close.boxed(), now);
                }
            }
        }
    }

    fn channel(&self, id: LaneId) -> Option<Channel> {
        self.opened.0.lock().get(&id).cloned()
    }

    fn ask(&mut self, question: Question, answer: BoxFuture<'static, Answer>, now: Instant) {
        if let Some((question, answer)) = self.in_flight.start(question, answer) {
            self.answered(question, answer, now);
        }
    }

    fn answered(&mut self, question: Question, answer: Answer, now: Instant) {
        match (question, answer) {
            (Question::Open(id), Ok(Some(channel))) => {
                self.opened.0.lock().insert(id, channel);
                self.lanes.opened(id, now);
            }
            (Question::Open(id), Ok(None)) => self.not_opened(id),
            (Question::Open(id), Err(error)) if is_out_of_channels(&error) => self.not_opened(id),
            (Question::Bar(id), Ok(_)) => self.passed(id, now),
            (Question::Close(id), Ok(_)) => {
                self.opened.0.lock().remove(&id);
                self.lanes.closed(id);
            }
            (question, Err(error)) => {
                if matches!(question, Question::Open(_)) && is_not_allowed(&error) {
                    self.limit.is_reached();
                }
                self.failed.get_or_insert(error);
            }
        }
    }

    fn passed(&mut self, id: LaneId, now: Instant) {
        for task in self.lanes.passed(id, now) {
            match task {
                Task::Change(_, change) => self.done.push(change),
                Task::Errand(errand) => {
                    let (part, waited) = self.parts.done(errand);
                    for change in waited {
                        self.lanes.push(Task::Change(part, change));
                    }
                }
            }
        }
    }

    fn not_opened(&mut self, id: LaneId) {
        if !self.lanes.not_opened(id) {
            self.failed
                .get_or_insert(lapin::ErrorKind::ChannelsLimitReached.into());
        }
    }

    /// Sends what has no answer of its own: lapin has written it after one poll.
    fn send(&self, channel: &Channel, task: Task) -> lapin::Result<()> {
        match (task, &self.destination) {
            (Task::Change(part, change), _) => self.change(channel, part, change),
            (Task::Errand(Errand::Make(part)), Destination::Exchange(private, _)) => {
                make(channel, private, short(&part_name(private.as_str(), part))?)
            }
            (Task::Errand(Errand::Find(part)), Destination::Exchange(private, _)) => {
                find(channel, short(&part_name(private.as_str(), part))?)
            }
            (Task::Errand(_), Destination::Queue(_)) => unreachable!("a queue has no parts"),
        }
    }

    fn change(&self, channel: &Channel, part: Part, change: BindingChange) -> lapin::Result<()> {
        let key = short(&change.group)?;
        let (exchange, arguments) = (self.exchange.clone(), marked(change.mark));
        match (&self.destination, change.verb) {
            (Destination::Exchange(private, _), Verb::Bind) => {
                let part = short(&part_name(private.as_str(), part))?;
                let flags = ExchangeBindOptions { nowait: true };
                written(channel.exchange_bind(part, exchange, key, flags, arguments))
            }
            (Destination::Exchange(private, _), Verb::Unbind) => {
                let part = short(&part_name(private.as_str(), part))?;
                let flags = ExchangeUnbindOptions { nowait: true };
                written(channel.exchange_unbind(part, exchange, key, flags, arguments))
            }
            (Destination::Queue(queue), Verb::Bind) => {
                let flags = QueueBindOptions { nowait: true };
                written(channel.queue_bind(queue.clone(), exchange, key, flags, arguments))
            }
            // The protocol has no `nowait` for it. The barrier is answered behind it.
            (Destination::Queue(queue), Verb::Unbind) => {
                written(channel.queue_unbind(queue.clone(), exchange, key, arguments))
            }
        }
    }
}

/// Makes a part, which routes all to the private exchange, and which the broker deletes with that.
fn make(channel: &Channel, private: &ShortString, part: ShortString) -> lapin::Result<()> {
    let flags = ExchangeDeclareOptions {
        auto_delete: true,
        nowait: true,
        ..Default::default()
    };
    let none = FieldTable::default();
    written(channel.exchange_declare(part.clone(), ExchangeKind::Fanout, flags, none.clone()))?;
    let flags = ExchangeBindOptions { nowait: true };
    written(channel.exchange_bind(private.clone(), part, "".into(), flags, none))
}

/// The broker closes `channel` where a part is not there.
fn find(channel: &Channel, part: ShortString) -> lapin::Result<()> {
    let flags = ExchangeDeclareOptions {
        passive: true,
        nowait: true,
        ..Default::default()
    };
    let none = FieldTable::default();
    written(channel.exchange_declare(part, ExchangeKind::Fanout, flags, none))
}

/// Names of groups and of queues fit, and so do those of parts.
fn short(name: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(name)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()).into())
}

/// Gives lapin a method that it writes at its first poll.
fn written(method: impl Future<Output = lapin::Result<()>>) -> lapin::Result<()> {
    match poll_once(method) {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

/// The arguments of a binding.
fn marked(mark: Mark) -> FieldTable {
    let mut arguments = FieldTable::default();
    if mark > 0 {
        arguments.insert(MARK.into(), AMQPValue::LongLongInt(mark.into()));
    }
    arguments
}

/// What the layer wishes, on its way to the broker and back.
pub(super) struct Binding {
    binder: Binder,
    epoch: BindingEpoch,
    changes: UnboundedReceiver<Vec<BindingChange>>,
    host: Weak<dyn Host>,
}

impl Binding {
    pub(super) fn new(
        binder: Binder,
        epoch: BindingEpoch,
        changes: UnboundedReceiver<Vec<BindingChange>>,
        host: Weak<dyn Host>,
    ) -> Self {
        Self {
            binder,
            epoch,
            changes,
            host,
        }
    }
}

impl Work for Binding {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, String> {
        while let Poll::Ready(Some(changes)) = self.changes.poll_recv(cx) {
            for change in changes {
                self.binder.submit(change);
            }
        }
        let mut done = Vec::new();
        let polled = self.binder.poll(cx, &mut done);
        if !done.is_empty() {
            let Some(host) = self.host.upgrade() else {
                return Err("the layer is gone".to_owned());
            };
            host.bindings_changed(self.epoch, done);
        }
        if let Poll::Ready(Err(error)) = polled {
            return Err(format!(
                "a binding could not be changed: {}",
                describe(&error)
            ));
        }
        Ok(Turn {
            has_written: std::mem::take(&mut self.binder.has_written),
            due: self.binder.next_look(),
            ..Turn::default()
        })
    }
}
