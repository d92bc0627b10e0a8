//! What must exist on the broker: the groups exchange, the own queue, its bindings and its
//! consumer; all of it on the consuming connection.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn, try_join_all};
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::failure::{Failure, describe};
use super::in_flight::InFlight;
use crate::broker::{BindingChange, Generation, Host};
use crate::config::Settings;

/// lapin's unbind looks through all bindings of an AMQP channel, so they are spread over some.
const BINDING_CHANNELS: usize = 8;

/// How many binds of a new connection are under way at once.
const BINDS_AHEAD: usize = 1024;

/// One change of a binding, and its group.
pub(super) type Change = (Arc<str>, BindingChange);

/// The names and limits of what is declared.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) queue: String,
    pub(super) exchange: String,
    capacity: u32,
    pub(super) expiry: Duration,
    pub(super) prefetch: u16,
    /// How long the broker may take for one answer.
    pub(super) timeout: Duration,
}

impl Topology {
    pub(super) fn new(queue: String, settings: &Settings) -> Self {
        Self {
            queue,
            exchange: settings.groups_exchange.clone(),
            capacity: settings.remote_capacity,
            expiry: settings.expiry,
            prefetch: settings.prefetch_count,
            timeout: settings.connect_timeout,
        }
    }

    /// Declares the exchange and the queue, and returns the AMQP channel for its consumer.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Channel, Failure> {
        let channel = self.answer(connection.create_channel()).await?;
        // Any other flags, and the peers in Python get 406.
        let flags = ExchangeDeclareOptions::default();
        let none = FieldTable::default();
        let exchange = short(&self.exchange)?;
        self.answer(channel.exchange_declare(exchange, ExchangeKind::Direct, flags, none))
            .await?;
        let flags = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let mut limits = FieldTable::default();
        limits.insert(
            "x-max-length".into(),
            AMQPValue::LongLongInt(self.capacity.into()),
        );
        limits.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        limits.insert(
            "x-message-ttl".into(),
            AMQPValue::LongLongInt(i64::try_from(self.expiry.as_millis()).unwrap_or(i64::MAX)),
        );
        self.answer(channel.queue_declare(short(&self.queue)?, flags, limits))
            .await?;
        self.answer(channel.basic_qos(self.prefetch, BasicQosOptions::default()))
            .await?;
        Ok(channel)
    }

    /// Starts the consumer.
    pub(super) async fn consume(&self, channel: &Channel) -> Result<lapin::Consumer, Failure> {
        self.answer(channel.basic_consume(
            short(&self.queue)?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await
    }

    /// Opens the AMQP channel of a publishing connection.
    pub(super) async fn publish(&self, connection: &Connection) -> Result<Channel, Failure> {
        let channel = self.answer(connection.create_channel()).await?;
        self.answer(channel.confirm_select(ConfirmSelectOptions::default()))
            .await?;
        Ok(channel)
    }

    /// Opens the AMQP channels for bindings.
    pub(super) async fn binder(&self, connection: &Connection) -> Result<Binder, Failure> {
        let channels = (0..BINDING_CHANNELS).map(|_| connection.create_channel());
        Ok(Binder {
            channels: self.answer(try_join_all(channels)).await?,
            queue: short(&self.queue)?,
            exchange: short(&self.exchange)?,
            in_flight: InFlight::new(),
            submitted: 0,
            done: Vec::new(),
            failed: None,
        })
    }

    /// Binds the queue to all `groups`, many at once.
    pub(super) async fn bind_all(
        &self,
        binder: &mut Binder,
        groups: &[Arc<str>],
    ) -> Result<Vec<Change>, Failure> {
        let mut done = Vec::with_capacity(groups.len());
        let mut groups = groups.iter();
        loop {
            let room = BINDS_AHEAD.saturating_sub(binder.in_flight.len());
            for group in groups.by_ref().take(room) {
                binder.submit((Arc::clone(group), BindingChange::Bind));
            }
            if binder.in_flight.len() == 0 && binder.failed.is_none() {
                binder.collect(&mut done);
                return Ok(done);
            }
            // Each answer gets the whole time: many groups take longer than one.
            match timeout(self.timeout, poll_fn(|cx| binder.poll(cx, &mut done))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.failure(&error)),
                Err(_) => return Err(self.no_answer()),
            }
        }
    }

    /// What the broker answers, in time.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    fn failure(&self, error: &lapin::Error) -> Failure {
        Failure::of_setup(&self.queue, &self.exchange, error)
    }

    fn no_answer(&self) -> Failure {
        Failure::passing(format!(
            "no answer from the broker in {:?} (option connect_timeout)",
            self.timeout
        ))
    }
}

/// Changes the bindings of the queue. All changes of a group go through one AMQP channel, in
/// order.
pub(super) struct Binder {
    channels: Vec<Channel>,
    queue: ShortString,
    exchange: ShortString,
    in_flight: InFlight<(u64, Change), BoxFuture<'static, lapin::Result<()>>>,
    submitted: u64,
    done: Vec<(u64, Change)>,
    failed: Option<lapin::Error>,
}

impl Binder {
    /// The AMQP channels that it uses.
    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Makes changes and reports them, until one fails or the layer is gone; returns why.
    pub(super) async fn run(
        mut self,
        generation: Generation,
        mut changes: mpsc::UnboundedReceiver<Vec<Change>>,
        host: Weak<dyn Host>,
    ) -> String {
        let mut done = Vec::new();
        poll_fn(|cx| {
            while let Poll::Ready(Some(changes)) = changes.poll_recv(cx) {
                for change in changes {
                    self.submit(change);
                }
            }
            let result = self.poll(cx, &mut done);
            if !done.is_empty() {
                let Some(host) = host.upgrade() else {
                    return Poll::Ready("the layer is gone".to_owned());
                };
                host.bindings_changed(generation, std::mem::take(&mut done));
            }
            match result {
                Poll::Ready(Err(error)) => Poll::Ready(format!(
                    "a binding could not be changed: {}",
                    describe(&error)
                )),
                // There may be more to do, and the last poll registered for nothing.
                Poll::Ready(Ok(())) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends a change on its way.
    fn submit(&mut self, (group, change): Change) {
        let mut hash = DefaultHasher::new();
        group.hash(&mut hash);
        let index = hash.finish() as usize % self.channels.len().max(1);
        let (Some(channel), Ok(key)) = (self.channels.get(index), ShortString::try_new(&*group))
        else {
            return;
        };
        let channel = channel.clone();
        let queue = self.queue.clone();
        let exchange = self.exchange.clone();
        let none = FieldTable::default();
        let request = async move {
            match change {
                BindingChange::Bind => {
                    let flags = QueueBindOptions::default();
                    channel.queue_bind(queue, exchange, key, flags, none).await
                }
                BindingChange::Unbind => channel.queue_unbind(queue, exchange, key, none).await,
            }
        };
        self.submitted += 1;
        let key = (self.submitted, (group, change));
        if let Some((key, result)) = self.in_flight.start(key, request.boxed()) {
            self.finish(key, result);
        }
    }

    fn finish(&mut self, key: (u64, Change), result: lapin::Result<()>) {
        match result {
            Ok(()) => self.done.push(key),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Appends what is done to `done`; pending if nothing is.
    fn poll(&mut self, cx: &mut Context<'_>, done: &mut Vec<Change>) -> Poll<lapin::Result<()>> {
        self.in_flight.register(cx.waker());
        let mut finished = Vec::new();
        self.in_flight
            .drain(|key, result| finished.push((key, result)));
        for (key, result) in finished {
            self.finish(key, result);
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.done.is_empty() {
            return Poll::Pending;
        }
        self.collect(done);
        Poll::Ready(Ok(()))
    }

    /// Moves what is done to `done`, in the order of submission: so the last change of a group is
    /// its last.
    fn collect(&mut self, done: &mut Vec<Change>) {
        self.done.sort_unstable_by_key(|(order, _)| *order);
        done.extend(self.done.drain(..).map(|(_, change)| change));
    }
}

/// A name as AMQP carries it. Ours are checked before they come here.
pub(super) fn short(name: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(name).map_err(|error| Failure::passing(format!("'{name}': {error}")))
}
