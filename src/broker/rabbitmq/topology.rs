//! What must exist on the broker: the groups exchange, the own queue, its bindings and its
//! consumer; all of it on the consuming connection.

use std::future::Future;
use std::time::Duration;

use futures_util::future::{try_join, try_join5};
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeBindOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use super::connect::Link;
use super::destination::Destination;
use super::failure::{End, Failure, is_access_refused, is_not_found, is_resource_locked};
use super::own_queue::Look;
use super::private_exchange::{Intake, KEEPER_KEY, KEPT_FOR, Plan};
use crate::config::Settings;

/// What a topic exchange takes for each key.
const ALL_KEYS: &str = "#";

/// How often to ask for the queue where no heartbeat says how fast a loss is to be noticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How long an answer may take at most after attempts that were not answered in time. A broker that is
/// gone is noticed by its heartbeats.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// How long the broker may take for one answer; see [`Topology::is_answered`].
    pub(super) timeout: Duration,
    /// The same, while it answers in time.
    least_timeout: Duration,
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
            least_timeout: settings.connect_timeout,
            interval: match settings.heartbeat {
                0 => CHECK_INTERVAL,
                seconds => Duration::from_secs(seconds.into()),
            },
        }
    }

    /// What became of an attempt to make all of it. A broker to which many layers come back at once is slow
    /// for all of them, and an attempt that is given up has cost it as much as one that succeeds: so the
    /// next one has longer, or none ever came to its end.
    pub(super) fn is_answered(&mut self, in_time: bool) {
        self.timeout = if in_time {
            self.least_timeout
        } else {
            (self.timeout * 2).min(self.least_timeout.max(LONGEST_TIMEOUT))
        };
    }

    /// How long the broker may answer nothing while many groups are bound: who shares it with many that bind
    /// as much waits for all of them.
    pub(super) fn long_timeout(&self) -> Duration {
        self.timeout.max(LONGEST_TIMEOUT)
    }

    /// How long without a sign of life a queue hangs. A broker under load may be slow.
    pub(super) fn silence(&self) -> Duration {
        self.least_timeout.max(self.interval * CHECK_PATIENCE)
    }

    /// Declares the exchange and the queue, and returns an AMQP channel that is still open.
    pub(super) async fn declare(&self, link: &Link) -> Result<Channel, Failure> {
        let channel = self.declare_exchange(link).await?;
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
        limits.insert("x-message-ttl".into(), milliseconds(self.expiry));
        self.answer(channel.queue_declare(short(&self.queue)?, flags, limits))
            .await?;
        Ok(channel)
    }

    /// Declares the groups exchange; returns an AMQP channel that is still open.
    pub(super) async fn declare_exchange(&self, link: &Link) -> Result<Channel, Failure> {
        let exchange = short(&self.exchange)?;
        let declare = async |passive| {
            let channel = self.open(link).await?;
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

    /// Declares what `plan` names, and routes it to the queue. The consumer, of the keeper, holds it.
    pub(super) async fn route_privately(
        &self,
        channel: &Channel,
        plan: &Plan,
    ) -> Result<lapin::Consumer, Failure> {
        let (private, intake) = (short(&plan.exchange)?, short(&plan.intake)?);
        let none = FieldTable::default;
        let declare = |name: &ShortString, kind, passive| {
            let flags = ExchangeDeclareOptions {
                passive,
                auto_delete: true,
                ..ExchangeDeclareOptions::default()
            };
            self.answer(channel.exchange_declare(name.clone(), kind, flags, none()))
        };
        // All at once, and so in this order: the exchange, which goes with its last binding only, is not
        // declared where the keeper, which goes by itself, is not allowed.
        let all = try_join5(
            self.declare_keeper(channel, &plan.keeper),
            declare(&private, ExchangeKind::Topic, plan.is_kept()),
            self.consume_keeper(channel, &plan.exchange, &plan.keeper),
            declare(&intake, ExchangeKind::Fanout, false),
            self.attach(channel, intake.clone(), private.clone()),
        );
        let ((), (), keeper, (), ()) = all.await?;
        Ok(keeper)
    }

    /// Routes `private` by `intake` to the queue.
    async fn attach(
        &self,
        channel: &Channel,
        intake: ShortString,
        private: ShortString,
    ) -> Result<(), Failure> {
        let to_queue = channel.queue_bind(
            short(&self.queue)?,
            intake.clone(),
            ShortString::default(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let to_intake = channel.exchange_bind(
            intake,
            private,
            ALL_KEYS.into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        );
        try_join(self.answer(to_queue), self.answer(to_intake)).await?;
        Ok(())
    }

    /// Declares a keeper, and consumes it: while it is bound, `exchange` stays.
    pub(super) async fn keep(
        &self,
        channel: &Channel,
        exchange: &str,
        keeper: &str,
    ) -> Result<lapin::Consumer, Failure> {
        let declared = self.declare_keeper(channel, keeper);
        let consumed = self.consume_keeper(channel, exchange, keeper);
        let ((), consumer) = try_join(declared, consumed).await?;
        Ok(consumer)
    }

    async fn declare_keeper(&self, channel: &Channel, keeper: &str) -> Result<(), Failure> {
        // One that is not durable goes with its node, or is not allowed at all.
        let flags = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), milliseconds(KEPT_FOR));
        // A vhost may have another type by default, which costs more.
        let classic = AMQPValue::LongString("classic".into());
        arguments.insert("x-queue-type".into(), classic);
        let declared = channel.queue_declare(short(keeper)?, flags, arguments);
        self.answer(declared).await?;
        Ok(())
    }

    async fn consume_keeper(
        &self,
        channel: &Channel,
        exchange: &str,
        keeper: &str,
    ) -> Result<lapin::Consumer, Failure> {
        let name = short(keeper)?;
        let bind = channel.queue_bind(
            name.clone(),
            short(exchange)?,
            KEEPER_KEY.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let consume = channel.basic_consume(
            name,
            ShortString::default(),
            BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        );
        let ((), consumer) = try_join(self.answer(bind), self.answer(consume)).await?;
        Ok(consumer)
    }

    /// Takes intakes of other queues off their exchanges. They may be gone by themselves.
    pub(super) async fn detach(&self, link: &Link, intakes: &[Intake]) -> Result<(), Failure> {
        for intake in intakes {
            let channel = self.open(link).await?;
            let unbound = channel.exchange_unbind(
                short(&intake.name)?,
                short(&intake.exchange)?,
                ALL_KEYS.into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            );
            match self.answer(unbound).await {
                Ok(()) => self.close(&channel, "detached").await?,
                Err(failure) if failure.is_not_found => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Deletes private exchanges or intakes, where they are there.
    pub(super) async fn delete(
        &self,
        channel: &Channel,
        exchanges: &[String],
    ) -> Result<(), Failure> {
        for exchange in exchanges {
            let flags = ExchangeDeleteOptions::default();
            self.answer(channel.exchange_delete(short(exchange)?, flags))
                .await?;
        }
        Ok(())
    }

    /// Has the groups exchange route `key` to `destination`.
    pub(super) async fn bind(
        &self,
        channel: &Channel,
        destination: &Destination,
        key: &str,
    ) -> Result<(), Failure> {
        let (exchange, key) = (short(&self.exchange)?, short(key)?);
        let none = FieldTable::default();
        match destination {
            Destination::Exchange(name, _) => {
                let flags = ExchangeBindOptions::default();
                let name = short(name)?;
                self.answer(channel.exchange_bind(name, exchange, key, flags, none))
                    .await
            }
            Destination::Queue(name) => {
                let flags = QueueBindOptions::default();
                let name = short(name)?;
                self.answer(channel.queue_bind(name, exchange, key, flags, none))
                    .await
            }
        }
    }

    /// Opens an AMQP channel.
    pub(super) async fn open(&self, link: &Link) -> Result<Channel, Failure> {
        self.answer(link.connection()?.create_channel()).await
    }

    /// Opens one that stays open as long as the link lives.
    pub(super) async fn open_kept(&self, link: &Link) -> Result<Channel, Failure> {
        let channel = self.open(link).await?;
        link.keep(channel.clone());
        Ok(channel)
    }

    /// Closes one that is open: its number is free again then.
    pub(super) async fn close(&self, channel: &Channel, why: &str) -> Result<(), Failure> {
        self.answer(channel.close(200, short(why)?)).await
    }

    /// Opens one whose messages the broker confirms.
    pub(super) async fn open_confirming(&self, link: &Link) -> Result<Channel, Failure> {
        let channel = self.open(link).await?;
        self.answer(channel.confirm_select(ConfirmSelectOptions::default()))
            .await?;
        Ok(channel)
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

    /// What ended a handler that was to be set up.
    pub(super) fn ended(&self, end: &End) -> Failure {
        Failure::of_end(&self.queue, &self.exchange, end)
    }

    fn failure(&self, error: &lapin::Error) -> Failure {
        Failure::of_setup(&self.queue, &self.exchange, error)
    }

    fn no_answer(&self) -> Failure {
        Failure::silence(self.timeout)
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

fn milliseconds(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// A name as AMQP carries it. Ours are checked before they come here.
pub(super) fn short(name: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(name).map_err(|error| Failure::passing(format!("'{name}': {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_attempt_without_an_answer_leaves_the_next_one_twice_the_time_up_to_a_minute() {
        let mut config = Config::new();
        config.set("connect_timeout", "5").expect("an option");
        let settings = config.settings().expect("settings");
        let mut topology = Topology::new("q".to_owned(), &settings);
        let silence = topology.silence();
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(topology.timeout.as_secs());
            topology.is_answered(false);
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(
            topology.silence(),
            silence,
            "a queue that hangs is noticed as soon"
        );
        topology.is_answered(true);
        assert_eq!(topology.timeout.as_secs(), 5);

        config.set("connect_timeout", "300").expect("an option");
        let settings = config.settings().expect("settings");
        let mut topology = Topology::new("q".to_owned(), &settings);
        topology.is_answered(false);
        assert_eq!(topology.timeout.as_secs(), 300, "a longer one is kept");
    }
}
