//! The consuming link: one connection with the own queue, its consumer and what routes groups to it,
//! made again whenever it is lost. What goes wrong with publishing does not touch it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, poll_fn, select};
use lapin::Channel;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::binder::{self, Bindings};
use super::connect::{Link, Options};
use super::connector::Connector;
use super::consumer::{Consumer, ConsumerEnd};
use super::destination::Destination;
use super::failure::{Failure, Kind, describe};
use super::lanes::LaneLimit;
use super::link_life::MakeLink;
use super::own_queue::{Look, Past, Step};
use super::private_exchange::{Plan, PrivateExchange, probe_key};
use super::queue_check::QueueCheck;
use super::shared::{Complaint, OwnQueue, Shared};
use super::standing::{Consumed, LinkState, Side};
use super::topology::{Topology, find_queue, short};
use super::workers::{LAST_WORDS, Stop, Workers};
use crate::broker::{BindingEpoch, Earlier, Generation, Host};
use crate::log::RecordId;
use crate::name;
use crate::sync::Mutex;

/// Pauses between attempts to bind again where the groups exchange is gone meanwhile.
const BIND_AGAIN: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
];

/// The pause before another keeper is made in place of one that was deleted.
const KEEP_AGAIN: Duration = Duration::from_millis(100);

/// How long the process of a queue may take for the answer to a passive declaration; or so many times as
/// long as the broker takes for an AMQP channel, where that is longer.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
const SLOW: u32 = 4;

/// Looking for a queue costs an AMQP channel number each time, which lapin does not use again. A
/// connection with fewer numbers than this declares the queue at once.
const NUMBERS_FOR_LOOKS: usize = 64;

/// A private exchange takes an AMQP channel of lapin's beside that of the check, and where it is made again
/// one more for a moment. A connection with fewer numbers than this does without.
const NUMBERS_FOR_A_PRIVATE_EXCHANGE: usize = 3;

/// The tasks of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Consumer,
    Binder(BindingEpoch),
    Keeper(u64),
    QueueCheck,
}

/// Makes the link, again and again.
pub(super) struct Consuming {
    connector: Connector,
    owner: Owner,
    complaints: mpsc::UnboundedReceiver<Complaint>,
}

/// What outlives a link: the name of the queue, and what counts up.
struct Owner {
    shared: Arc<Shared>,
    topology: Topology,
    /// The name that the queue had first.
    first_queue: String,
    past: Past,
    /// A queue of the present name may be left of an earlier attempt.
    may_have_declared: bool,
    private: PrivateExchange,
    /// That there is none was logged.
    is_direct_logged: bool,
    lanes: Arc<LaneLimit>,
    /// Counts the keepers.
    keepers: u64,
    generation: Generation,
    epoch: BindingEpoch,
    /// Whether the layer takes bindings to be there.
    has_bindings: bool,
    /// How much had been delivered before the queue was made.
    delivered_before: u64,
    options: Options,
}

/// A link that stands.
pub(super) struct Session {
    /// Its name, without a password.
    endpoint: String,
    link: Arc<Link>,
    workers: Workers<Role>,
    consumer_end: Arc<OnceLock<ConsumerEnd>>,
    routing: Routing,
    /// The intakes of private exchanges that others have taken the place of.
    replaced: Vec<String>,
    /// Closes when the binder has ended.
    binder: watch::Receiver<()>,
}

/// What groups are bound to, on one link.
struct Routing {
    destination: Destination,
    earlier: Earlier,
    probe_key: Arc<str>,
    /// `None` where groups are bound to the queue.
    private: Option<Private>,
}

/// The private exchange, as one link has it.
struct Private {
    plan: Plan,
    channel: Channel,
    /// The number of its keeper.
    keeper: u64,
    /// The consumer of the keeper, which the link keeps too.
    consumer: Arc<Mutex<Option<lapin::Consumer>>>,
}

/// What a standing link has to act upon.
enum Event {
    Closing,
    Ended(Option<Role>, String),
    LinkEnded,
    Complaint(Complaint),
}

impl Consuming {
    pub(super) fn new(
        shared: Arc<Shared>,
        connector: Connector,
        topology: Topology,
        complaints: mpsc::UnboundedReceiver<Complaint>,
    ) -> Self {
        let options = connector.options().clone();
        Self {
            connector,
            owner: Owner {
                shared,
                private: PrivateExchange::new(&topology.queue),
                is_direct_logged: false,
                lanes: Arc::default(),
                keepers: 0,
                first_queue: topology.queue.clone(),
                topology,
                past: Past::default(),
                may_have_declared: false,
                generation: 0,
                epoch: 0,
                has_bindings: false,
                delivered_before: 0,
                options,
            },
            complaints,
        }
    }
}

impl MakeLink for Consuming {
    const SIDE: Side = Side::Consuming;

    type Session = Session;

    async fn attempt(&mut self) -> Result<Session, LinkState> {
        let owner = &mut self.owner;
        let name = format!("channel-layer {} consume", owner.topology.queue);
        let mut attempt = self.connector.attempt(name);
        while let Some((place, link)) = attempt.next().await {
            owner.shared.reached.send_replace(Some(place));
            let endpoint = attempt.name_of(place);
            match owner.set_up(link, endpoint).await {
                Ok(session) => {
                    owner.topology.is_answered(true);
                    attempt.succeeded();
                    owner.stands(&session);
                    return Ok(session);
                }
                Err(failure) => {
                    owner.topology.is_answered(!failure.is_silence);
                    owner.learn(&failure);
                    owner.is_lost();
                    attempt.failed(failure);
                }
            }
        }
        Err(attempt.outcome())
    }

    async fn serve(&mut self, mut session: Session) -> Option<String> {
        let shared = Arc::clone(&self.owner.shared);
        loop {
            let event = session.next_event(&shared, &mut self.complaints).await;
            if matches!(event, Event::Closing) {
                session.close(&shared).await;
                return None;
            }
            let acted = {
                let acts = pin!(self.owner.act(event, &mut session));
                match select(acts, pin!(shared.closing.begun())).await {
                    Either::Left((acted, _)) => acted,
                    // It is the next event.
                    Either::Right(_) => Ok(()),
                }
            };
            if let Err(reason) = acted {
                self.is_lost();
                let reason = format!("{}: {reason}", session.endpoint);
                shared
                    .standing
                    .failed(Self::SIDE, LinkState::Down(reason.clone()));
                session.lose(&reason).await;
                return Some(reason);
            }
        }
    }

    fn is_lost(&mut self) {
        self.owner.is_lost();
    }
}

impl Owner {
    fn host(&self) -> Result<Arc<dyn Host>, Failure> {
        let host = self.shared.host.upgrade();
        host.ok_or_else(|| Failure::passing("the layer is gone"))
    }

    fn log(&self, id: RecordId, message: String) {
        if let Some(host) = self.shared.host.upgrade() {
            host.log(id, message);
        }
    }

    /// Acts upon what has become of a link that stands. The error says why it is lost.
    async fn act(&mut self, event: Event, session: &mut Session) -> Result<(), String> {
        match event {
            Event::Ended(Some(Role::Consumer), reason) => match session.consumer_end.get() {
                Some(end) => self.consume_again(session, end.unacked, &reason).await,
                None => Err(reason),
            },
            // One that all was bound again without.
            Event::Ended(Some(Role::Binder(epoch)), _) if epoch != self.epoch => Ok(()),
            Event::Ended(Some(Role::Binder(_)), reason) if session.link.stands() => {
                let why = format!("a binding could not be changed: {reason}");
                self.bind_again(session, &why).await
            }
            Event::Ended(Some(Role::Keeper(number)), reason) if session.link.stands() => {
                match &session.routing.private {
                    Some(private) if private.keeper == number => {
                        self.keep_again(session, &reason).await
                    }
                    _ => Ok(()),
                }
            }
            Event::Ended(Some(Role::Keeper(_)), _) => Err(session.workers.last_words().await),
            Event::Ended(_, reason) => Err(reason),
            Event::LinkEnded => Err(session.workers.last_words().await),
            Event::Complaint(Complaint::NotBound { epoch, reason }) if epoch == self.epoch => {
                self.bind_again(session, &reason).await
            }
            Event::Complaint(Complaint::Lost { generation, reason })
                if generation == self.generation =>
            {
                Err(reason)
            }
            Event::Complaint(_) | Event::Closing => Ok(()),
        }
    }

    /// Declares and binds the queue on `link`, and consumes it.
    async fn set_up(&mut self, link: Link, endpoint: String) -> Result<Session, Failure> {
        let link = Arc::new(link);
        link.io().serve(Weak::clone(&self.shared.host));
        let channel = self.own_the_queue(&link).await?;
        self.shared.declared.send_modify(|count| *count += 1);
        self.private.has_new_queue(&self.topology.queue);
        link.keep(channel.clone());

        self.generation += 1;
        self.shared.credit.begin(self.generation);
        let host = self.host()?;
        host.begin_generation(self.generation, &self.topology.queue);
        self.delivered_before = self.shared.arrivals.delivered();
        self.shared.arrivals.follow(Arc::clone(link.io()));
        let mut workers = Workers::new(self.options.clone());
        let routing = self.route(&link, &channel, &mut workers).await?;
        let binder = self.bind_all(&link, &routing, &mut workers).await?;
        let consumer_end = self.consume(&link, &mut workers, 0).await?;
        let check = QueueCheck {
            shared: Arc::clone(&self.shared),
            topology: self.topology.clone(),
            asking: channel,
        };
        workers.spawn(Role::QueueCheck, check.run());
        Ok(Session {
            endpoint,
            link,
            workers,
            consumer_end,
            routing,
            replaced: Vec::new(),
            binder,
        })
    }

    /// The link stands: others may use the queue.
    fn stands(&self, session: &Session) {
        self.publish_queue(&session.routing);
        self.shared.standing.consumes(Consumed {
            generation: self.generation,
            epoch: Some(self.epoch),
            endpoint: session.endpoint.clone(),
            queue: self.topology.queue.clone(),
        });
    }

    fn publish_queue(&self, routing: &Routing) {
        self.shared.consumed.send_replace(Some(OwnQueue {
            name: self.topology.queue.as_str().into(),
            generation: self.generation,
            epoch: self.epoch,
            probe_key: Arc::clone(&routing.probe_key),
            is_presumed: routing.earlier != Earlier::Nothing,
            delivered_before: self.delivered_before,
        }));
    }

    /// Nothing of the link may be used any more.
    fn is_lost(&mut self) {
        self.shared.bindings.end();
        self.shared.credit.begin(0);
        self.shared.reached.send_replace(None);
        self.shared.consumed.send_replace(None);
        if std::mem::take(&mut self.has_bindings)
            && let Some(host) = self.shared.host.upgrade()
        {
            host.bindings_lost();
        }
    }

    /// Declares the queue, under a new name if the old one stays taken. Returns an AMQP channel that is
    /// open.
    async fn own_the_queue(&mut self, link: &Link) -> Result<Channel, Failure> {
        loop {
            // The first time there is no past.
            let looks = self.may_have_declared && link.numbers() >= NUMBERS_FOR_LOOKS;
            let now = Instant::now();
            let look = if looks {
                self.look(link).await?
            } else {
                Look::Free
            };
            let mut step = self.past.after(&look, now);
            if step == Step::Declare {
                // Before the answer, which may never come.
                let may_have_declared = std::mem::replace(&mut self.may_have_declared, true);
                match self.topology.declare(link).await {
                    Ok(channel) => return Ok(channel),
                    Err(failure) if looks && failure.is_locked => {
                        step = self.past.after(&Look::Taken, Instant::now());
                    }
                    Err(failure) => {
                        // A name that was another's from the first is no past of ours.
                        self.may_have_declared = may_have_declared || !failure.is_locked;
                        return Err(failure);
                    }
                }
            }
            match step {
                Step::LookAgain(pause) => sleep(pause).await,
                Step::Rename => self.rename()?,
                Step::Declare => {}
            }
        }
    }

    /// Looks for a queue of our name.
    async fn look(&self, link: &Link) -> Result<Look, Failure> {
        let begin = Instant::now();
        let channel = self.topology.open(link).await?;
        let patience = LOOK_PATIENCE.max(SLOW * begin.elapsed());
        let look = find_queue(link, channel, short(&self.topology.queue)?, patience);
        look.await
            .map_err(|error| Failure::passing(describe(&error)))
    }

    fn rename(&mut self) -> Result<(), Failure> {
        let new = name::other_queue(&self.first_queue, &random()?);
        let old = std::mem::replace(&mut self.topology.queue, new);
        self.may_have_declared = false;
        self.log(
            RecordId::QueueRenamed,
            format!(
                "queue '{old}' still belongs to an earlier connection of this layer, which the broker \
                 does not end: the queue is '{}' from now on",
                self.topology.queue
            ),
        );
        Ok(())
    }

    /// Makes what groups are bound to: the private exchange, that of the link before if it is there; or
    /// the queue itself, where the broker allows no private exchange. `channel` stays open.
    async fn route(
        &mut self,
        link: &Link,
        channel: &Channel,
        workers: &mut Workers<Role>,
    ) -> Result<Routing, Failure> {
        let routing = match self.route_by_exchange(link, workers).await? {
            Some(routing) => routing,
            None => Routing {
                destination: Destination::Queue(self.topology.queue.clone()),
                earlier: Earlier::Nothing,
                probe_key: probe_key(&self.topology.queue).into(),
                private: None,
            },
        };
        if routing.earlier == Earlier::Nothing {
            let key = &routing.probe_key;
            let bound = self.topology.bind(channel, &routing.destination, key);
            bound.await?;
        }
        if let Some(private) = &routing.private {
            self.private.stands(&private.plan);
        }
        let unfinished = self.private.unfinished();
        self.delete(link, routing.private.as_ref(), &unfinished)
            .await?;
        self.private.forget_unfinished();
        let left_behind = self.private.left_behind(&self.topology.queue);
        self.topology.detach(link, &left_behind).await?;
        self.private.removed(&left_behind);
        Ok(routing)
    }

    /// `None` where the broker allows no private exchange.
    async fn route_by_exchange(
        &mut self,
        link: &Link,
        workers: &mut Workers<Role>,
    ) -> Result<Option<Routing>, Failure> {
        if link.numbers() < NUMBERS_FOR_A_PRIVATE_EXCHANGE {
            self.bind_directly(&format!(
                "the broker allows {} AMQP channels (its setting 'channel_max')",
                link.numbers() + link.io().most_channels()
            ));
            return Ok(None);
        }
        loop {
            let letters: String = name::letters(&random()?).collect();
            let plan = self.private.plan(&letters, &self.topology.queue);
            match self.route_privately(link, &plan, workers).await {
                Ok(private) => {
                    return Ok(Some(Routing {
                        destination: Destination::Exchange(
                            plan.exchange.clone(),
                            self.private.parts(),
                        ),
                        earlier: plan.earlier,
                        probe_key: probe_key(&plan.exchange).into(),
                        private: Some(private),
                    }));
                }
                // It is gone meanwhile, and all bindings with it.
                Err(failure) if failure.is_not_found && plan.is_kept() => self.private.is_lost(),
                Err(failure) if failure.kind == Kind::Refused && link.stands() => {
                    self.bind_directly(&failure.why);
                    return Ok(None);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn route_privately(
        &mut self,
        link: &Link,
        plan: &Plan,
        workers: &mut Workers<Role>,
    ) -> Result<Private, Failure> {
        let channel = self.topology.open_kept(link).await?;
        let keeper = self.topology.route_privately(&channel, plan).await?;
        let consumer = Arc::default();
        link.keep(Arc::clone(&consumer));
        Ok(Private {
            plan: plan.clone(),
            channel,
            keeper: self.watch(keeper, &consumer, workers),
            consumer,
        })
    }

    /// Deletes private exchanges and intakes, where they are there. Who may not delete them could not make
    /// them.
    async fn delete(
        &self,
        link: &Link,
        private: Option<&Private>,
        names: &[String],
    ) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        // One more AMQP channel may be more than the user is allowed.
        let (channel, is_own) = match private {
            Some(private) => (private.channel.clone(), false),
            None => (self.topology.open(link).await?, true),
        };
        match self.topology.delete(&channel, names).await {
            Ok(()) if is_own => self.topology.close(&channel, "deleted").await,
            Ok(()) => Ok(()),
            Err(failure) if failure.kind == Kind::Refused && link.stands() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Watches the keeper, whose consumer ends with it. Returns its number.
    fn watch(
        &mut self,
        mut keeper: lapin::Consumer,
        consumer: &Mutex<Option<lapin::Consumer>>,
        workers: &mut Workers<Role>,
    ) -> u64 {
        *consumer.lock() = Some(keeper.clone());
        self.keepers += 1;
        let watched = async move {
            while let Some(delivery) = keeper.next().await {
                // Somebody has published to it; nobody else can have wanted that.
                if let Err(error) = delivery {
                    return describe(&error);
                }
            }
            "its consumer was cancelled".to_owned()
        };
        workers.spawn(Role::Keeper(self.keepers), watched);
        self.keepers
    }

    fn learn(&self, failure: &Failure) {
        if failure.is_over_limit {
            self.lanes.is_reached();
        }
    }

    fn bind_directly(&mut self, why: &str) {
        self.private.is_lost();
        if !std::mem::replace(&mut self.is_direct_logged, true) {
            self.log(
                RecordId::BoundDirectly,
                format!(
                    "groups are bound to queue '{}' itself, and all of them again after each lost \
                     connection: an exchange of the layer's own could not be made: {why}",
                    self.topology.queue
                ),
            );
        }
    }

    /// Makes another keeper in place of one that is gone; or, where that cannot be, all again.
    async fn keep_again(&mut self, session: &mut Session, why: &str) -> Result<(), String> {
        let Some(private) = &session.routing.private else {
            return Ok(());
        };
        let (plan, before) = (private.plan.clone(), private.channel.clone());
        let consumer = Arc::clone(&private.consumer);
        // Whoever deletes it may do so again at once.
        sleep(KEEP_AGAIN).await;
        let name = self.private.next_keeper(&plan);
        let kept = async {
            let channel = if before.status().connected() {
                before
            } else {
                self.topology.open_kept(&session.link).await?
            };
            let keeper = self.topology.keep(&channel, &plan.exchange, &name).await?;
            Ok::<_, Failure>((channel, keeper))
        };
        match kept.await {
            Ok((channel, keeper)) => {
                let keeper = self.watch(keeper, &consumer, &mut session.workers);
                session.routing.private = Some(Private {
                    plan,
                    channel,
                    keeper,
                    consumer,
                });
                Ok(())
            }
            Err(failure) if session.link.stands() => {
                let why = format!(
                    "what keeps exchange '{}' is gone: {why}; {}",
                    plan.exchange, failure.why
                );
                self.bind_again(session, &why).await
            }
            Err(_) => Err(session.workers.last_words().await),
        }
    }

    /// Has all groups of the layer routed to the queue, and starts the binder for what follows.
    async fn bind_all(
        &mut self,
        link: &Arc<Link>,
        routing: &Routing,
        workers: &mut Workers<Role>,
    ) -> Result<watch::Receiver<()>, Failure> {
        self.epoch += 1;
        // Before the layer is asked, so that no change gets lost in between.
        self.shared.bindings.begin(self.epoch);
        let host = self.host()?;
        self.has_bindings = true;
        let changes = host.bind_all(self.epoch, routing.earlier);
        // From here on the layer knows that what is bound is bound to this.
        if let Some(private) = &routing.private {
            self.private.is_used(&private.plan);
        }
        let bindings = Bindings {
            epoch: self.epoch,
            destination: routing.destination.clone(),
            changes,
        };
        let shared = Arc::clone(&self.shared);
        let opened = binder::open(shared, link, &self.topology, &self.lanes, bindings).await;
        let outlives = routing.private.is_some();
        let mut task = match opened {
            Err(failure) if failure.kind == Kind::Refused && outlives && link.stands() => {
                return Err(self.refused_a_part(failure));
            }
            // A part that was there, or the exchange itself: the next one is another.
            Err(failure) if failure.is_not_found && outlives => {
                self.private.is_lost();
                return Err(failure);
            }
            opened => opened?,
        };
        let (works, ended) = watch::channel(());
        workers.spawn(Role::Binder(self.epoch), async move {
            let end = task.ended().await;
            drop(works);
            end.why
        });
        Ok(ended)
    }

    /// What is bound with the private exchange was refused: for a part, the first time. Then the next link
    /// does without.
    fn refused_a_part(&mut self, failure: Failure) -> Failure {
        if !self.private.do_without_parts() {
            return failure;
        }
        self.log(
            RecordId::BoundTogether,
            format!(
                "all groups are bound to one exchange, since another one could not be made: {}",
                failure.why
            ),
        );
        Failure::passing(failure.why)
    }

    /// Consumes the queue. `repeated` messages will come once more.
    async fn consume(
        &self,
        link: &Link,
        workers: &mut Workers<Role>,
        repeated: u64,
    ) -> Result<Arc<OnceLock<ConsumerEnd>>, Failure> {
        let shared = Arc::clone(&self.shared);
        let topology = &self.topology;
        let consumer = Consumer::open(shared, self.generation, link, topology, repeated);
        let Consumer { mut task, ended } = consumer.await?;
        workers.spawn(Role::Consumer, async move { task.ended().await.why });
        Ok(ended)
    }

    /// Makes the exchange and all bindings again, on the link as it stands.
    async fn bind_again(&mut self, session: &mut Session, why: &str) -> Result<(), String> {
        self.log(
            RecordId::BoundAgain,
            format!("all groups are bound again: {why}"),
        );
        self.shared.standing.is_bound_again(why);
        self.shared.bindings.end();
        if let Some(host) = self.shared.host.upgrade() {
            host.bindings_lost();
        }
        let mut attempts = BIND_AGAIN.iter();
        session.binder = loop {
            let bound = self.declare_and_bind(session).await;
            match (bound, attempts.next()) {
                (Ok(bound), _) => break bound,
                // The exchange was deleted once more, or is being deleted still.
                (Err(failure), Some(pause)) if failure.is_not_found && session.link.stands() => {
                    sleep(*pause).await;
                }
                (Err(failure), _) => {
                    self.learn(&failure);
                    return Err(failure.why);
                }
            }
        };
        self.shared.standing.bound(self.epoch);
        self.publish_queue(&session.routing);
        // What still routes by them would bring messages of groups that are left from now on.
        let replaced = std::mem::take(&mut session.replaced);
        let private = session.routing.private.as_ref();
        let deleted = self.delete(&session.link, private, &replaced).await;
        deleted.map_err(|failure| failure.why)
    }

    async fn declare_and_bind(
        &mut self,
        session: &mut Session,
    ) -> Result<watch::Receiver<()>, Failure> {
        // What it has under way is not to reach what is declared next.
        if timeout(self.topology.timeout, session.binder.changed())
            .await
            .is_err()
        {
            return Err(Failure::silence(self.topology.timeout));
        }
        let channel = self.topology.declare_exchange(&session.link).await?;
        self.shared.declared.send_modify(|count| *count += 1);
        // Its bindings, or those to it, are not what they were.
        self.private.is_lost();
        if let Some(private) = session.routing.private.take() {
            session.replaced.push(private.plan.intake);
            if private.channel.status().connected() {
                // Its keeper goes in a while, and the exchange with that.
                self.topology.close(&private.channel, "bound again").await?;
            }
        }
        let routing = self.route(&session.link, &channel, &mut session.workers);
        session.routing = routing.await?;
        self.topology.close(&channel, "bound again").await?;
        self.bind_all(&session.link, &session.routing, &mut session.workers)
            .await
    }

    /// Consumes the queue again, after the broker has closed the AMQP channel of the consumer for its
    /// `consumer_timeout`. The queue and what is in it stay.
    async fn consume_again(
        &mut self,
        session: &mut Session,
        unacked: u64,
        why: &str,
    ) -> Result<(), String> {
        self.log(
            RecordId::ConsumerTimedOut,
            format!(
                "{unacked} messages were not acknowledged within the broker's consumer_timeout, since \
                 receivers of this process have not taken them: {why}"
            ),
        );
        let again = async {
            // What the layer holds is not held for the broker any more.
            self.shared.credit.begin(self.generation);
            self.host()?.deliveries_requeued(self.generation);
            let Session { link, workers, .. } = &mut *session;
            self.consume(link, workers, unacked).await
        };
        session.consumer_end = again.await.map_err(|failure: Failure| failure.why)?;
        Ok(())
    }
}

/// Random bytes for a name.
fn random() -> Result<[u8; name::RANDOM_LETTERS], Failure> {
    let mut random = [0; name::RANDOM_LETTERS];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::passing(format!("no random bytes: {error}")))?;
    Ok(random)
}

impl Session {
    async fn next_event(
        &mut self,
        shared: &Shared,
        complaints: &mut mpsc::UnboundedReceiver<Complaint>,
    ) -> Event {
        let mut closing = pin!(shared.closing.begun());
        let mut ended = pin!(self.link.ended());
        let workers = &mut self.workers;
        poll_fn(|cx| {
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Closing);
            }
            if let Poll::Ready((role, reason)) = workers.poll_ended(cx) {
                return Poll::Ready(Event::Ended(role, reason));
            }
            if let Poll::Ready(Some(complaint)) = complaints.poll_recv(cx) {
                return Poll::Ready(Event::Complaint(complaint));
            }
            ended.as_mut().poll(cx).map(|()| Event::LinkEnded)
        })
        .await
    }

    async fn close(mut self, shared: &Shared) {
        self.workers.finish(&self.link, &shared.closing).await;
    }

    async fn lose(mut self, reason: &str) {
        self.workers.stop(Stop::Now(reason.to_owned()));
        self.workers.join().await;
        // The broker deletes the queue before it answers: so the next attempt finds its name free.
        let _ = timeout(LAST_WORDS, self.link.close()).await;
    }
}
