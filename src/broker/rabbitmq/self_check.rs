//! Asks from time to time whether our queue is still there and messages still find it.
//!
//! A connection may stand while what it is for is gone: the groups exchange was deleted and made
//! again by a peer, and with it went our bindings; or the queue hangs inside the broker. Heartbeats
//! pass all the same, and a layer that only receives would wait for ever. So it asks two things:
//!
//! - The queue, by a passive declaration: does it answer, and does it know its consumer?
//! - The exchange, by a message to a key that only our queue is bound to: is it routed? That says
//!   that the exchange is the one we have bound to. The message has no time to live, so it never
//!   takes a place in the queue from another; where it is delivered, the consumer drops it.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, pending, select};
use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionStatus};
use tokio::time::{sleep, timeout};

use super::connect::Link;
use super::failure::{Failure, describe, is_access_refused};
use super::topology::{Topology, short};
use crate::broker::Host;
use crate::log::RecordId;

/// How often to ask where no heartbeat says how fast a loss is to be noticed.
const INTERVAL: Duration = Duration::from_secs(10);

/// Of so many intervals without an answer the queue hangs. A broker under load may be slow.
const PATIENCE: u32 = 3;

/// The AMQP `type` of the messages that only ask.
const KIND: &str = "channel-layer.self-check";

/// The key by which the queue is reached for a check. No group can have it, for its `!`.
fn key(queue: &str) -> String {
    format!("!{queue}")
}

/// Whether a delivery only asks, and is for no receiver.
pub(super) fn is_check(properties: &BasicProperties) -> bool {
    properties
        .kind()
        .as_ref()
        .is_some_and(|kind| kind.as_str() == KIND)
}

/// Binds the queue to the key of its checks.
pub(super) async fn bind(topology: &Topology, channel: &Channel) -> Result<(), Failure> {
    let (queue, exchange) = (short(&topology.queue)?, short(&topology.exchange)?);
    let key = short(&key(&topology.queue))?;
    let flags = QueueBindOptions::default();
    topology
        .answer(channel.queue_bind(queue, exchange, key, flags, FieldTable::default()))
        .await
}

/// What the checks of one session need.
pub(super) struct SelfCheck {
    queue: ShortString,
    exchange: ShortString,
    key: ShortString,
    interval: Duration,
    patience: Duration,
    /// Of the consuming connection: the queue is exclusive to it.
    asking: Channel,
    /// Of the publishing connection: on the other one an alarm would block what we consume.
    publishing: Channel,
    publishers: ConnectionStatus,
    /// How many messages have been delivered.
    delivered: Arc<AtomicU64>,
    host: Weak<dyn Host>,
}

impl SelfCheck {
    /// Opens the AMQP channels that the checks use.
    pub(super) async fn open(
        topology: &Topology,
        consuming: &Link,
        publishing: &Link,
        heartbeat: u16,
        delivered: Arc<AtomicU64>,
        host: Weak<dyn Host>,
    ) -> Result<Self, Failure> {
        let asking = topology
            .answer(consuming.connection()?.create_channel())
            .await?;
        consuming.keep(asking.clone());
        let publisher = publishing.connection()?;
        let channel = topology.publish(publisher).await?;
        publishing.keep(channel.clone());
        let interval = match heartbeat {
            0 => INTERVAL,
            seconds => Duration::from_secs(seconds.into()),
        };
        Ok(Self {
            queue: short(&topology.queue)?,
            exchange: short(&topology.exchange)?,
            key: short(&key(&topology.queue))?,
            interval,
            patience: topology.timeout.max(interval * PATIENCE),
            asking,
            publishing: channel,
            publishers: publisher.status().clone(),
            delivered,
            host,
        })
    }

    /// Asks until something is amiss. Returns what.
    pub(super) async fn run(self) -> String {
        let queue = pin!(self.ask_queue());
        let exchange = pin!(self.ask_exchange());
        match select(queue, exchange).await {
            Either::Left((reason, _)) | Either::Right((reason, _)) => reason,
        }
    }

    async fn ask_queue(&self) -> String {
        let flags = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        loop {
            sleep(self.interval).await;
            let delivered = self.delivered.load(Ordering::Relaxed);
            let question =
                self.asking
                    .queue_declare(self.queue.clone(), flags, FieldTable::default());
            match timeout(self.patience, question).await {
                Ok(Ok(queue)) if queue.consumer_count() == 0 => {
                    return format!("queue '{}' has lost its consumer", self.queue);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    return format!("queue '{}' is not there: {}", self.queue, describe(&error));
                }
                // The answer may be behind large messages on a slow line.
                Err(_) if self.delivered.load(Ordering::Relaxed) != delivered => {}
                Err(_) => {
                    return format!(
                        "queue '{}' gave no sign of life in {:?}",
                        self.queue, self.patience
                    );
                }
            }
        }
    }

    /// No deadline: the answer waits behind all that is being published, and while the broker
    /// blocks publishers there is none.
    async fn ask_exchange(&self) -> String {
        loop {
            sleep(self.interval).await;
            if self.publishers.blocked() {
                continue;
            }
            match self.probe().await {
                Ok(Confirmation::Ack(Some(_))) => {
                    return format!(
                        "exchange '{}' does not know queue '{}' any more",
                        self.exchange, self.queue
                    );
                }
                // A nack says that the queue is full: so it was found.
                Ok(_) => {}
                // A user that may not write to it never hears of it either. That costs the AMQP
                // channel of the checks alone.
                Err(error) if is_access_refused(&error) => {
                    self.warn_of_exchange(&error);
                    return pending().await;
                }
                Err(error) => {
                    return format!(
                        "exchange '{}' is not reached: {}",
                        self.exchange,
                        describe(&error)
                    );
                }
            }
        }
    }

    fn warn_of_exchange(&self, error: &lapin::Error) {
        if let Some(host) = self.host.upgrade() {
            host.log(
                RecordId::ExchangeNotChecked,
                format!(
                    "whether exchange '{}' still routes to queue '{}' is not checked on this \
                     connection: {}",
                    self.exchange,
                    self.queue,
                    describe(error)
                ),
            );
        }
    }

    async fn probe(&self) -> lapin::Result<Confirmation> {
        let flags = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_type(KIND.into())
            .with_expiration("0".into());
        let (exchange, key) = (self.exchange.clone(), self.key.clone());
        let written = self
            .publishing
            .basic_publish(exchange, key, flags, b"", properties);
        written.await?.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn no_group_has_the_key_of_a_check() {
        let key = key("channels_abcdefghijkl");
        assert!(name::validate_group(&key).is_err(), "{key}");
    }

    #[test]
    fn only_a_check_is_one() {
        let properties = BasicProperties::default();
        assert!(!is_check(&properties));
        assert!(!is_check(&properties.clone().with_type("chat".into())));
        assert!(is_check(&properties.with_type(KIND.into())));
    }
}
