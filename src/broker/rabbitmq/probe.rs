//! Sends probes to the own queue, and acts on what they show; [`super::hearing`] has the rules.
//!
//! A connection may stand while what it is for is gone: an admin or a peer has declared the groups exchange
//! again, without our bindings; the late clean-up of an earlier queue has deleted ours. Heartbeats
//! pass all the same, and a layer that only receives would never notice.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::poll_fn;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::connect::Link;
use super::failure::{Failure, describe, is_not_found};
use super::hearing::{Answer, Hearing, Obstacle, Verdict, Way};
use super::shared::{Complaint, OwnQueue, Shared};
use super::standing::Place;
use super::topology::{Topology, short};
use super::verdict::{ChannelError, ExchangeKind};
use crate::amqp::Header;
use crate::log::RecordId;

/// How long a queue may be unheard where it is consumed at another place: nodes that do not reach each
/// other, or brokers that are no cluster. Then this link moves to that place.
const ELSEWHERE: Duration = Duration::from_millis(500);

/// A queue with fewer places than this is not to lose one to a probe.
const FEW: u32 = 10;

/// How often a blocked connection is looked at.
const WHILE_BLOCKED: Duration = Duration::from_millis(250);

/// The AMQP `type` of probes.
pub(super) const KIND: &str = "channel-layer.self-check";

/// The id of a message that is a probe, and is for no receiver.
pub(super) fn probe_id<'a>(header: &Header<'a>) -> Option<&'a str> {
    let is_probe = header.kind == Some(KIND.as_bytes());
    is_probe.then(|| {
        let id = header.message_id.map(std::str::from_utf8);
        id.and_then(Result::ok).unwrap_or_default()
    })
}

/// The id of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    prober: u64,
    round: u64,
    way: Way,
}

impl Id {
    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('-').map(|part| part.parse::<u64>().ok());
        let (prober, round, way) = (parts.next()??, parts.next()??, parts.next()??);
        let way = Way::ALL.into_iter().find(|one| *one as u64 == way)?;
        Some(Self { prober, round, way })
    }

    fn text(self) -> String {
        format!("{}-{}-{}", self.prober, self.round, self.way as u64)
    }
}

/// Why the probes of a round could not be sent.
enum Broken {
    /// The user may not write to the exchange of this way.
    Denied(Way, lapin::Error),
    /// There is no groups exchange.
    NoExchange,
    /// The AMQP channel or the connection ended otherwise.
    Other(lapin::Error),
}

type Answers = Pin<Box<dyn Future<Output = Result<Vec<(Way, Answer)>, lapin::Error>> + Send>>;

/// Sends probes by one publishing link.
pub(super) struct Prober {
    shared: Arc<Shared>,
    topology: Topology,
    link: Weak<Link>,
    place: Place,
    channel: Channel,
    /// Tells the probes of this one from those of others.
    id: u64,
}

/// What ends a wait.
enum Woken {
    Answers(Result<Vec<(Way, Answer)>, lapin::Error>),
    Other,
}

impl Prober {
    /// Opens the AMQP channel for probes on `link`, which is connected to `place`.
    pub(super) async fn open(
        shared: Arc<Shared>,
        topology: Topology,
        link: &Arc<Link>,
        place: Place,
    ) -> Result<Self, Failure> {
        let channel = topology.open_confirming(link).await?;
        link.keep(channel.clone());
        Ok(Self {
            shared,
            topology,
            link: Arc::downgrade(link),
            place,
            channel,
            id: fastrand::u64(..),
        })
    }

    /// Runs as long as the link is of use. Returns why it is not.
    pub(super) async fn run(mut self) -> String {
        let shared = Arc::clone(&self.shared);
        let mut consumed = shared.consumed.subscribe();
        loop {
            let queue = match consumed.wait_for(Option::is_some).await {
                Ok(queue) => queue.clone(),
                Err(_) => return "the consuming link is gone".to_owned(),
            };
            if let Some(queue) = queue
                && let Err(reason) = self.probe(queue, &mut consumed).await
            {
                return reason;
            }
        }
    }

    /// Probes `queue` until there is another, or none.
    async fn probe(
        &mut self,
        mut queue: OwnQueue,
        consumed: &mut watch::Receiver<Option<OwnQueue>>,
    ) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let arrivals = &shared.arrivals;
        let mut hearing = Hearing::new(
            self.topology.interval,
            self.topology.silence(),
            self.shared.standing.is_heard(queue.epoch),
            Instant::now(),
        );
        let mut answers: Option<Answers> = None;
        let begin = Instant::now();
        let mut progress = arrivals.progress();
        let mut is_given_up = false;
        loop {
            let now = Instant::now();
            match &*consumed.borrow_and_update() {
                Some(current) if current.generation == queue.generation => {
                    if current.epoch != queue.epoch {
                        queue = current.clone();
                        hearing.bound_again(now);
                    }
                }
                _ => return Ok(()),
            }
            for id in arrivals.take_probes() {
                if let Some(id) = Id::parse(&id).filter(|id| id.prober == self.id) {
                    hearing.arrived(id.round, id.way);
                }
            }
            let obstacle = self.obstacle();
            hearing.hindered(obstacle);
            if arrivals.delivered() != queue.delivered_before {
                hearing.is_fed();
            }
            if std::mem::replace(&mut progress, arrivals.progress()) != progress {
                hearing.other_arrives(now);
            }
            if !is_given_up {
                if let Some(verdict) = hearing.judge(now) {
                    if verdict == Verdict::Heard && queue.is_presumed && hearing.probes_groups() {
                        self.bindings_are_proven(queue.epoch);
                    }
                    is_given_up = self.act(verdict, &queue)?;
                }
                if let Some((round, ways)) = hearing.begin(now, obstacle) {
                    let mut expiry = self.topology.expiry.min(self.topology.silence());
                    if hearing.is_heard() && self.topology.capacity < FEW {
                        // One that cannot be delivered at once takes no place, and proves nothing.
                        expiry = Duration::ZERO;
                        hearing.hindered(Obstacle::CreditUsedUp);
                    }
                    answers = Some(self.send(&queue, round, ways, expiry)?);
                    continue;
                }
                if !hearing.is_heard() && obstacle != Obstacle::None {
                    self.shared.standing.is_unproven(why(obstacle));
                }
            }
            if !hearing.is_heard() && self.is_elsewhere() && now >= begin + ELSEWHERE {
                return Err(format!(
                    "nothing that is published here has reached queue '{}' on another host in \
                     {ELSEWHERE:?}",
                    queue.name
                ));
            }
            let mut next = hearing.next_look().filter(|_| !is_given_up);
            if !hearing.is_heard() && obstacle == Obstacle::None {
                // Nothing tells of an alarm.
                let soon = now + WHILE_BLOCKED;
                next = Some(next.map_or(soon, |next| next.min(soon)));
            }
            match wait(&mut answers, arrivals.probed(), consumed, next).await {
                Woken::Other => {}
                Woken::Answers(Ok(answered)) => {
                    if let Some(round) = hearing.round() {
                        hearing.answered(round, &answered, Instant::now());
                    }
                }
                Woken::Answers(Err(error)) => match self.classify(error) {
                    Broken::Denied(way, error) => {
                        let may_retry = self.link.upgrade().is_some_and(|link| link.has_numbers());
                        if hearing.denied(way, may_retry, Instant::now()) {
                            self.warn_of_exchange(&queue.name, way, &error);
                        }
                        self.reopen().await?;
                        if way == Way::Groups && queue.is_presumed {
                            self.complain(
                                &queue,
                                format!(
                                    "no probe can show that exchange '{}' still routes to queue '{}'",
                                    self.topology.exchange, queue.name
                                ),
                            );
                        }
                    }
                    Broken::NoExchange => {
                        let verdict = hearing.has_no_exchange();
                        self.reopen().await?;
                        is_given_up = self.act(verdict, &queue)?;
                    }
                    Broken::Other(error) => return Err(describe(&error)),
                },
            }
        }
    }

    /// Whether the queue is consumed at another place than this link is connected to.
    fn is_elsewhere(&self) -> bool {
        let consuming = *self.shared.reached.borrow();
        consuming.is_some_and(|place| place != self.place)
    }

    fn obstacle(&self) -> Obstacle {
        if self.link.upgrade().is_none_or(|link| link.is_blocked()) {
            Obstacle::PublishersBlocked
        } else if self.shared.arrivals.credit_was_used_up() {
            Obstacle::CreditUsedUp
        } else {
            Obstacle::None
        }
    }

    /// Acts on a verdict; whether the queue is given up. An error ends the publishing link.
    fn act(&self, verdict: Verdict, queue: &OwnQueue) -> Result<bool, String> {
        let (exchange, name) = (&self.topology.exchange, &queue.name);
        let epoch = queue.epoch;
        let complaint = match verdict {
            Verdict::Heard => {
                self.shared.standing.hears(epoch, self.place);
                return Ok(false);
            }
            Verdict::NotBound => {
                self.complain(
                    queue,
                    format!("exchange '{exchange}' does not route to queue '{name}' any more"),
                );
                return Ok(false);
            }
            Verdict::QueueLost => {
                format!("queue '{name}' is not reached by what is published to it")
            }
            Verdict::Silent => format!(
                "queue '{name}' delivers nothing: what the broker confirmed has not arrived in {:?}",
                self.topology.silence()
            ),
        };
        if self.is_elsewhere() {
            // Two brokers that are no cluster: the queue is all right, but elsewhere.
            return Err(complaint);
        }
        let _ = self.shared.complaints.send(Complaint::Lost {
            generation: queue.generation,
            reason: complaint,
        });
        Ok(true)
    }

    fn bindings_are_proven(&self, epoch: u64) {
        if let Some(host) = self.shared.host.upgrade() {
            host.bindings_proven(epoch);
        }
    }

    /// Has all groups bound again.
    fn complain(&self, queue: &OwnQueue, reason: String) {
        // If nobody takes it, the broker is being closed.
        let _ = self.shared.complaints.send(Complaint::NotBound {
            epoch: queue.epoch,
            reason,
        });
    }

    fn classify(&self, error: lapin::Error) -> Broken {
        if is_not_found(&error) {
            return Broken::NoExchange;
        }
        match ChannelError::of_lapin(&error, &self.topology.exchange) {
            Some(ChannelError::NoRight { exchange, .. }) => {
                let way = match exchange {
                    ExchangeKind::Default => Way::Direct,
                    ExchangeKind::Groups => Way::Groups,
                };
                Broken::Denied(way, error)
            }
            _ => Broken::Other(error),
        }
    }

    /// Opens another AMQP channel in place of one that the broker has closed.
    async fn reopen(&mut self) -> Result<(), String> {
        while self.link.upgrade().is_some_and(|link| link.is_blocked()) {
            sleep(WHILE_BLOCKED).await;
        }
        let Some(link) = self.link.upgrade() else {
            return Err("the connection has ended".to_owned());
        };
        if !link.spend_number(|_| 0) {
            return Err("this connection has no AMQP channel left for probes".to_owned());
        }
        let opened = self.topology.open_confirming(&link).await;
        self.channel = opened.map_err(|failure| failure.why)?;
        link.keep(self.channel.clone());
        Ok(())
    }

    fn warn_of_exchange(&self, queue: &str, way: Way, error: &lapin::Error) {
        let exchange = match way {
            Way::Groups => &*self.topology.exchange,
            Way::Direct => "amq.default",
        };
        if let Some(host) = self.shared.host.upgrade() {
            host.log(
                RecordId::ExchangeNotChecked,
                format!(
                    "no probe checks whether exchange '{exchange}' routes to queue '{queue}' on \
                     this connection: {}",
                    describe(error)
                ),
            );
        }
    }

    /// Sends the probes of a round.
    fn send(
        &self,
        queue: &OwnQueue,
        round: u64,
        ways: Vec<Way>,
        expiry: Duration,
    ) -> Result<Answers, String> {
        let exchange = short(&self.topology.exchange).map_err(|failure| failure.why)?;
        let group_key = short(&queue.probe_key).map_err(|failure| failure.why)?;
        let queue = short(&queue.name).map_err(|failure| failure.why)?;
        let expiry = expiry.as_millis().to_string();
        let (channel, prober) = (self.channel.clone(), self.id);
        Ok(Box::pin(async move {
            let (mut answers, mut returned) = (Vec::with_capacity(ways.len()), Vec::new());
            for way in ways {
                let (exchange, key) = match way {
                    Way::Groups => (exchange.clone(), group_key.clone()),
                    Way::Direct => (ShortString::default(), queue.clone()),
                };
                let flags = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let id = Id { prober, round, way };
                let properties = BasicProperties::default()
                    .with_type(KIND.into())
                    .with_message_id(id.text().into())
                    .with_expiration(expiry.as_str().into());
                let written = channel.basic_publish(exchange, key, flags, b"", properties);
                // One after the other: an error of the first would meet the second, and hide what it is.
                let (answer, attached) = match written.await?.await? {
                    Confirmation::Ack(attached) => (Answer::Confirmed, attached),
                    Confirmation::Nack(attached) => (Answer::Nacked, attached),
                    Confirmation::NotRequested => (Answer::Nacked, None),
                };
                answers.push((way, answer));
                returned.extend(attached.as_ref().and_then(way_of));
            }
            for (way, answer) in &mut answers {
                if returned.contains(way) {
                    *answer = Answer::Returned;
                }
            }
            Ok(answers)
        }))
    }
}

fn why(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::None => "",
        Obstacle::CreditUsedUp => "receivers have not taken what was delivered before",
        Obstacle::PublishersBlocked => "the broker blocks publishers (memory or disk alarm)",
    }
}

fn way_of(message: &BasicReturnMessage) -> Option<Way> {
    let id = message.delivery.properties.message_id().as_ref()?;
    Id::parse(id.as_str()).map(|id| id.way)
}

/// Waits for answers, a probe that arrives, a change of the queue, or until `next`.
async fn wait(
    answers: &mut Option<Answers>,
    probed: impl Future<Output = ()>,
    consumed: &mut watch::Receiver<Option<OwnQueue>>,
    next: Option<Instant>,
) -> Woken {
    let mut probed = pin!(probed);
    let mut changed = pin!(consumed.changed());
    let mut due = pin!(async {
        match next {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    });
    poll_fn(|cx| {
        if let Some(future) = answers
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            *answers = None;
            return Poll::Ready(Woken::Answers(result));
        }
        let is_woken = probed.as_mut().poll(cx).is_ready()
            || changed.as_mut().poll(cx).is_ready()
            || due.as_mut().poll(cx).is_ready();
        if is_woken {
            Poll::Ready(Woken::Other)
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_probe_is_one_and_its_id_names_prober_round_and_way() {
        fn header<'a>(kind: Option<&'a [u8]>, message_id: Option<&'a [u8]>) -> Header<'a> {
            Header {
                body_size: 0,
                message_id,
                kind,
            }
        }
        assert_eq!(probe_id(&header(None, Some(b"1-2-0"))), None);
        assert_eq!(probe_id(&header(Some(b"chat"), Some(b"1-2-0"))), None);
        let kind = Some(KIND.as_bytes());
        assert_eq!(probe_id(&header(kind, None)), Some(""));
        assert_eq!(probe_id(&header(kind, Some(b"\xff"))), Some(""));
        for way in Way::ALL {
            let id = Id {
                prober: u64::MAX,
                round: 7,
                way,
            };
            let text = id.text();
            let header = Header {
                message_id: Some(text.as_bytes()),
                ..header(kind, None)
            };
            assert_eq!(probe_id(&header).and_then(Id::parse), Some(id));
        }
        for text in ["", "1", "1-2", "1-2-9", "a-2-0"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
