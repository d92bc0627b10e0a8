//! What must exist on the broker: the groups exchange, the own queue, its bindings and its
//! consumer; all of it on the consuming connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{poll_fn, try_join_all};
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::timeout;

use super::binder::{BINDING_CHANNELS, Binder, Change};
use super::connect::Link;
use super::failure::{Failure, is_access_refused, is_not_found, is_resource_locked};
use super::own_queue::Look;
use crate::broker::BindingChange;
use crate::config::Settings;

/// How many binds of a new connection are under way at once.
const BINDS_AHEAD: usize = 1024;

/// How many AMQP channels the consuming connection has beside those for bindings: two, and where there are
/// enough, two more for what is made again while it stands.
const OTHER_CHANNELS: usize = 4;

/// How often to ask for the queue where no heartbeat says how fast a loss is to be noticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Of so many intervals without an answer the queue hangs.
const CHECK_PATIENCE: u32 = 3;

/// The names and limits of what is declared.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) queue: String,
    pub(super) exchange: String,
    pub(super) capacity: u32,
    pub(super) expiry: Duration,
    pub(super) prefetch: u16,
    /// How long the broker may take for one answer.
    pub(super) timeout: Duration,
    /// How often the queue is asked for, and probed.
    pub(super) interval: Duration,
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
            interval: match settings.heartbeat {
                0 => CHECK_INTERVAL,
                seconds => Duration::from_secs(seconds.into()),
            },
        }
    }

    /// How long without a sign of life a queue hangs. A broker under load may be slow.
    pub(super) fn silence(&self) -> Duration {
        self.timeout.max(self.interval * CHECK_PATIENCE)
    }

    /// Declares the exchange and the queue, and returns the AMQP channel for its consumer.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Channel, Failure> {
        let channel = self.declare_exchange(connection).await?;
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
        self.limit_prefetch(&channel).await?;
        Ok(channel)
    }

    /// Limits how many deliveries may be unacked on the AMQP channel of the consumer.
    pub(super) async fn limit_prefetch(&self, channel: &Channel) -> Result<(), Failure> {
        self.answer(channel.basic_qos(self.prefetch, BasicQosOptions::default()))
            .await
    }

    /// Declares the groups exchange; returns an AMQP channel that is still open.
    pub(super) async fn declare_exchange(
        &self,
        connection: &Connection,
    ) -> Result<Channel, Failure> {
        let exchange = short(&self.exchange)?;
        let declare = async |passive| {
            let channel = self.answer(connection.create_channel()).await?;
            // Any other flags, and the peers in Python get 406.
            let flags = ExchangeDeclareOptions {
                passive,
                ..ExchangeDeclareOptions::default()
            };
            let none = FieldTable::default();
            let declared =
                channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, flags, none);
            match timeout(self.timeout, declared).await {
                Ok(Ok(())) => Ok(Ok(channel)),
                Ok(Err(error)) => Ok(Err(error)),
                Err(_) => Err(self.no_answer()),
            }
        };
        match declare(false).await? {
            Ok(channel) => Ok(channel),
            // Who may not configure it may use it where it exists. To look needs no right.
            Err(refused) if is_access_refused(&refused) => match declare(true).await? {
                Ok(channel) => Ok(channel),
                Err(_) => Err(self.failure(&refused)),
            },
            Err(error) => Err(self.failure(&error)),
        }
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

    /// Opens the AMQP channels for bindings, and binds the queue to all `groups`, many at once.
    /// Returns what was done.
    pub(super) async fn bind_all(
        &self,
        connection: &Connection,
        groups: &[Arc<str>],
    ) -> Result<(Binder, Vec<Change>), Failure> {
        let count = match usize::from(connection.configuration().channel_max()) {
            0 => BINDING_CHANNELS,
            most => BINDING_CHANNELS.min(most.saturating_sub(OTHER_CHANNELS).max(1)),
        };
        let channels = (0..count).map(|_| connection.create_channel());
        let channels = self.answer(try_join_all(channels)).await?;
        let mut binder = Binder::new(channels, short(&self.queue)?, short(&self.exchange)?);
        let mut done = Vec::with_capacity(groups.len());
        let mut groups = groups.iter();
        loop {
            let room = BINDS_AHEAD.saturating_sub(binder.under_way());
            for group in groups.by_ref().take(room) {
                binder.submit((Arc::clone(group), BindingChange::Bind));
            }
            // Each answer gets the whole time: many groups take longer than one.
            match timeout(self.timeout, poll_fn(|cx| binder.poll(cx, &mut done))).await {
                Ok(Ok(())) if binder.under_way() == 0 && groups.len() == 0 => {
                    return Ok((binder, done));
                }
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

/// Looks for a queue of this name. Where there is none, or one of another connection, the broker closes
/// `channel`.
pub(super) async fn find_queue(
    link: &Link,
    channel: Channel,
    queue: ShortString,
    patience: Duration,
) -> lapin::Result<Look> {
    // Where it is dropped before the answer comes, lapin closes it, and then takes the broker's own
    // close for an error of the connection. Nor may it be dropped while the connection is being closed.
    link.keep(channel.clone());
    // Without `nowait` it would hang where the process of the queue is dead.
    let flags = QueueDeclareOptions {
        passive: true,
        nowait: true,
        ..QueueDeclareOptions::default()
    };
    let question = async {
        channel
            .queue_declare(queue, flags, FieldTable::default())
            .await?;
        // What is answered to this comes behind the error.
        channel.basic_qos(1, BasicQosOptions::default()).await
    };
    match timeout(patience, question).await {
        Ok(Ok(())) => Ok(Look::Ours),
        Ok(Err(error)) if is_not_found(&error) => Ok(Look::Free),
        Ok(Err(error)) if is_resource_locked(&error) => Ok(Look::Taken),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Look::NoAnswer),
    }
}

/// A name as AMQP carries it. Ours are checked before they come here.
pub(super) fn short(name: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(name).map_err(|error| Failure::passing(format!("'{name}': {error}")))
}
