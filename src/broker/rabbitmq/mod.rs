//! RabbitMQ by way of lapin: two connections, made and remade for ever.
//!
//! One task supervises. It makes an attempt at each host, and once one succeeds it watches a
//! *session*: two connections and four tasks (publisher, consumer, binder, self-check), of which three
//! work on the I/O threads of the connections. Whatever ends one of
//! these ends the session, and the next one starts from the layer's own list of groups. lapin's
//! recovery takes no part.

mod answers;
mod attention;
mod backoff;
mod binder;
mod connect;
mod consumer;
mod credit;
mod denial;
mod doorbell;
mod failure;
mod in_flight;
mod inquiry;
mod io_thread;
mod kit;
mod login;
mod publisher;
mod race;
mod self_check;
mod shared;
mod socket;
mod tls;
mod topology;
mod verdict;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, join, poll_fn, select};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::backoff::Backoff;
use self::binder::Binding;
use self::connect::{Alive, Link, TcpNetwork};
use self::consumer::Consumer;
use self::credit::Credit;
use self::doorbell::Doorbell;
use self::failure::{Failure, Kind};
use self::inquiry::Inquiry;
use self::io_thread::writes_frames;
use self::publisher::{Envelope, Outlet};
use self::race::{Arrival, Race};
use self::self_check::SelfCheck;
use self::shared::{Closing, Shared, Stop, stopped};
pub(crate) use self::tls::Tls;
use self::topology::Topology;
use crate::broker::{BindingChange, Broker, BrokerFuture, BrokerState, Generation, Host};
use crate::config::Settings;
use crate::endpoint::Endpoint;
use crate::log::RecordId;
use crate::sync::Mutex;

/// A session that lasted this long was a good one: the next attempt needs no wait.
const GOOD_SESSION: Duration = Duration::from_secs(1);

/// How long a dying connection may take to say why, or to say goodbye.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long threads and tasks may take to end once no peer is waited for.
const REMAINS: Duration = Duration::from_secs(5);

/// How often a blocked connection is looked at where something waits for it.
const WHILE_BLOCKED: Duration = Duration::from_millis(100);

/// The broker of a layer. Dropping it closes at once.
pub(crate) struct RabbitMq {
    shared: Arc<Shared>,
    /// Closes when nothing of this broker runs any more.
    running: watch::Receiver<()>,
}

impl RabbitMq {
    /// Starts to connect to one of `endpoints`, in the background. `tls` is of the same settings.
    pub(crate) fn open(
        endpoints: Vec<Endpoint>,
        queue: String,
        settings: &Settings,
        tls: Option<Tls>,
        host: Weak<dyn Host>,
        runtime: Handle,
    ) -> Arc<dyn Broker> {
        let shared = Arc::new(Shared {
            host,
            doorbell: Doorbell::default(),
            credit: Credit::default(),
            bindings: Mutex::new(None),
            closing: Closing::default(),
        });
        let (runs, running) = watch::channel(());
        let (alive, remains) = mpsc::channel(1);
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            hung_up: vec![0; endpoints.len()],
            endpoints,
            first: 0,
            address: None,
            topology: Topology::new(queue, settings),
            options: connect::Options {
                timeout: settings.connect_timeout,
                reconnect_max: settings.reconnect_max,
                heartbeat: settings.heartbeat,
                tls,
                handle: runtime.clone(),
                alive,
            },
            generation: 0,
            said: None,
        };
        runtime.spawn(async move {
            supervisor.run(remains).await;
            drop(runs);
        });
        Arc::new(Self { shared, running })
    }
}

impl Broker for RabbitMq {
    fn publications_waiting(&self) {
        self.shared.doorbell.ring();
    }

    fn resume(&self, generation: Generation, count: usize) {
        self.shared.credit.add(generation, count);
    }

    fn change_bindings(&self, generation: Generation, changes: Vec<(Arc<str>, BindingChange)>) {
        if let Some((current, sender)) = &*self.shared.bindings.lock()
            && *current == generation
        {
            // If the binder has ended, so has the generation.
            let _ = sender.send(changes);
        }
    }

    fn close(&self, timeout: Duration) -> BrokerFuture {
        self.shared.closing.begin(timeout);
        let mut running = self.running.clone();
        Box::pin(async move { while running.changed().await.is_ok() {} })
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shared.closing.begin(Duration::ZERO);
    }
}

/// Makes sessions, one after the other.
struct Supervisor {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    /// For each endpoint, how often in a row the broker hung up during the login.
    hung_up: Vec<u32>,
    /// The endpoint that is tried first, and of its addresses the one: those that worked last.
    first: usize,
    address: Option<SocketAddr>,
    topology: Topology,
    options: connect::Options,
    generation: Generation,
    /// What the layer was told last.
    said: Option<BrokerState>,
}

/// How a session ended.
enum End {
    Lost(String),
    Closed,
}

impl Supervisor {
    async fn run(mut self, mut remains: mpsc::Receiver<std::convert::Infallible>) {
        let shared = Arc::clone(&self.shared);
        let mut backoff = Backoff::new(self.options.reconnect_max);
        loop {
            let attempt = {
                let attempt = pin!(self.attempt());
                match select(pin!(shared.closing.begun()), attempt).await {
                    Either::Left(_) => break,
                    Either::Right((attempt, _)) => attempt,
                }
            };
            let (mut was_good, mut is_refused) = (false, false);
            match attempt {
                Ok(session) => {
                    self.say(BrokerState::Ready(session.generation));
                    let begin = Instant::now();
                    match session.run(&shared, &self.endpoint_name()).await {
                        End::Closed => break,
                        End::Lost(reason) => self.say(BrokerState::Disconnected(reason)),
                    }
                    was_good = begin.elapsed() >= GOOD_SESSION;
                }
                Err(state) => {
                    is_refused = matches!(state, BrokerState::Refused(_));
                    *shared.bindings.lock() = None;
                    self.say(state);
                }
            }
            if shared.host.strong_count() == 0 {
                break;
            }
            if was_good {
                backoff.reset();
            } else {
                let wait = pin!(sleep(backoff.next(is_refused, fastrand::f64())));
                if let Either::Left(_) = select(pin!(shared.closing.begun()), wait).await {
                    break;
                }
            }
        }
        *shared.bindings.lock() = None;
        // All connections are dropped and so cut: what is left ends by itself.
        drop(self);
        let _ = timeout(REMAINS, remains.recv()).await;
    }

    fn endpoint_name(&self) -> String {
        self.endpoints
            .get(self.first)
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Tells the layer how it is, and the log what is new.
    fn say(&mut self, state: BrokerState) {
        let news = self.said.as_ref() != Some(&state);
        if let Some(host) = self.shared.host.upgrade() {
            let (id, message) = match &state {
                BrokerState::Ready(generation) => (
                    RecordId::Connected,
                    format!(
                        "connected to {} (connection {generation} of queue '{}')",
                        self.endpoint_name(),
                        self.topology.queue
                    ),
                ),
                BrokerState::Disconnected(reason) => {
                    let id = match self.said {
                        Some(BrokerState::Ready(_)) => RecordId::ConnectionLost,
                        _ => RecordId::ConnectionFailed,
                    };
                    (id, format!("not connected, trying on: {reason}"))
                }
                BrokerState::Refused(reason) => (
                    RecordId::Refused,
                    format!("refused by every host, trying on: {reason}"),
                ),
            };
            if news {
                host.log(id, message);
            }
            // Always: an attempt that failed may have begun a generation.
            host.state_changed(state.clone());
        }
        self.said = Some(state);
    }

    /// Tries each endpoint once. Returns the state to report if none works.
    async fn attempt(&mut self) -> Result<Session, BrokerState> {
        let count = self.endpoints.len();
        let network = TcpNetwork::new(&self.endpoints, self.address, &self.options);
        let first = self.first;
        let order = (0..count).map(move |offset| (first + offset) % count);
        let mut race = Race::new(network, order.clone());
        // Of several failures of a host the one that says most.
        let mut failures: Vec<Option<Failure>> = vec![None; count];
        while let Some(Arrival { host, connected }) = race.next().await {
            let Some(endpoint) = self.endpoints.get(host).cloned() else {
                continue;
            };
            let attempt = match connected {
                Ok((address, stream)) => {
                    let session = self.try_address(&endpoint, address, stream).await;
                    session.map(|session| (address, session))
                }
                Err(failure) => Err(failure),
            };
            match attempt {
                Ok((address, session)) => {
                    (self.first, self.address) = (host, Some(address));
                    self.hung_up.fill(0);
                    return Ok(session);
                }
                Err(failure) => {
                    if let Some(worst) = failures.get_mut(host)
                        && worst.as_ref().is_none_or(|worst| worst.kind < failure.kind)
                    {
                        *worst = Some(failure);
                    }
                }
            }
        }
        let mut reasons = Vec::with_capacity(count);
        let mut all_refused = true;
        for host in order {
            let failure = failures.get_mut(host).and_then(Option::take);
            let failure = failure.unwrap_or_else(|| Failure::passing("the host has no address"));
            all_refused &= self.is_refusal(host, failure.kind);
            if let Some(endpoint) = self.endpoints.get(host) {
                reasons.push(format!("{endpoint}: {}", failure.why));
            }
        }
        let reason = reasons.join("; ");
        if all_refused {
            Err(BrokerState::Refused(reason))
        } else {
            Err(BrokerState::Disconnected(reason))
        }
    }

    fn is_refusal(&mut self, index: usize, kind: Kind) -> bool {
        let Some(hung_up) = self.hung_up.get_mut(index) else {
            return false;
        };
        if kind != Kind::HungUp {
            *hung_up = 0;
            return kind == Kind::Refused;
        }
        *hung_up += 1;
        *hung_up > 1
    }

    /// Makes a session: the consuming connection with all bindings, then the publishing one.
    async fn try_address(
        &mut self,
        endpoint: &Endpoint,
        address: SocketAddr,
        stream: TcpStream,
    ) -> Result<Session, Failure> {
        let name = format!("channel-layer {} consume", self.topology.queue);
        let consuming = Link::open(endpoint, address, stream, name, &self.options).await?;
        let connection = consuming.connection()?;
        let channel = self.topology.declare(connection).await?;
        consuming.keep(channel.clone());
        self_check::bind(&self.topology, &channel).await?;

        let name = format!("channel-layer {} publish", self.topology.queue);
        let stream = connect::tcp(address, &self.options).await?;
        let publishing = Link::open(endpoint, address, stream, name, &self.options).await?;
        let publishing = Arc::new(publishing);
        let events = publishing.connection()?.events_listener();
        let publisher = open_publisher(&self.topology, &publishing).await?;
        let envelope = Envelope::new(&self.topology.exchange, self.topology.expiry)?;
        let heartbeat = self.options.heartbeat;
        let delivered = Arc::default();
        let check = SelfCheck::open(
            &self.topology,
            &consuming,
            &publishing,
            heartbeat,
            Arc::clone(&delivered),
            self.shared.host.clone(),
        )
        .await?;

        // From here on the layer is told of outcomes: both connections stand.
        self.generation += 1;
        let generation = self.generation;
        let (sender, changes) = mpsc::unbounded_channel();
        self.shared.credit.begin(generation);
        // Before the layer is asked, so that no change gets lost in between.
        *self.shared.bindings.lock() = Some((generation, sender));
        let groups = self.host()?.begin_generation(generation);
        let (binder, bound) = self.topology.bind_all(connection, &groups).await?;
        consuming.keep(binder.channels().to_vec());
        let deliveries = self.topology.consume(&channel).await?;
        consuming.keep(deliveries.clone());
        if !bound.is_empty() {
            self.host()?.bindings_changed(generation, bound);
        }

        let (stop, stopped) = watch::channel(Stop::No);
        let mut tasks = Workers {
            tasks: JoinSet::new(),
            options: self.options.clone(),
            stopped,
        };
        let consumer = Consumer::new(
            Arc::clone(&self.shared),
            generation,
            channel,
            deliveries,
            self.topology.prefetch,
            delivered,
        );
        tasks.spawn(io_thread::run(consuming.io_thread(), consumer));
        let host = self.shared.host.clone();
        let binding = Binding::new(binder, generation, changes, host);
        tasks.spawn(io_thread::run(consuming.io_thread(), binding));
        let (refused, asked) = inquiry::channel();
        tasks.spawn_to_the_end(publisher::run(
            Arc::clone(&self.shared),
            Outlet {
                io_thread: publishing.io_thread(),
                channel: publisher,
                events,
                open: {
                    let (topology, link) = (self.topology.clone(), Arc::downgrade(&publishing));
                    move || reopen_publisher(topology.clone(), link.clone())
                },
            },
            envelope,
            refused,
            tasks.stopped.clone(),
        ));
        let inquiry = Inquiry::new(
            Arc::clone(&self.shared),
            self.topology.clone(),
            Arc::downgrade(&publishing),
            asked,
        );
        tasks.spawn(writes_frames(vec![publishing.io_thread()], inquiry.run()));
        let threads = vec![consuming.io_thread(), publishing.io_thread()];
        tasks.spawn(writes_frames(threads, check.run()));
        Ok(Session {
            generation,
            consuming,
            publishing,
            tasks: tasks.tasks,
            stop,
        })
    }

    fn host(&self) -> Result<Arc<dyn Host>, Failure> {
        self.shared
            .host
            .upgrade()
            .ok_or_else(|| Failure::passing("the layer is gone"))
    }
}

/// Opens the AMQP channel that publishes.
async fn open_publisher(topology: &Topology, link: &Link) -> Result<lapin::Channel, Failure> {
    let channel = topology.publish(link.connection()?).await?;
    link.keep_publisher(channel.clone());
    Ok(channel)
}

/// The same in place of one that the broker has closed, while the connection stands. On one that is
/// blocked there is no answer: it is waited for.
async fn reopen_publisher(topology: Topology, link: Weak<Link>) -> Result<lapin::Channel, Failure> {
    loop {
        let link = link
            .upgrade()
            .ok_or_else(|| Failure::passing("the connection has ended"))?;
        if link.is_blocked() {
            drop(link);
            sleep(WHILE_BLOCKED).await;
            continue;
        }
        if !link.spend_number(|_| 0) {
            return Err(Failure::passing(
                "the broker has closed so many AMQP channels that this connection has none left",
            ));
        }
        let thread = link.io_thread();
        let opened = writes_frames(vec![thread], open_publisher(&topology, &link)).await;
        if opened.is_ok() || !link.is_blocked() {
            return opened;
        }
    }
}

/// Starts the tasks of a session.
struct Workers {
    tasks: JoinSet<String>,
    options: connect::Options,
    stopped: watch::Receiver<Stop>,
}

impl Workers {
    /// Starts a task that ends with its session.
    fn spawn(&mut self, task: impl Future<Output = String> + Send + 'static) {
        let mut told = self.stopped.clone();
        self.spawn_to_the_end(async move {
            match select(pin!(task), pin!(stopped(&mut told))).await {
                Either::Left((reason, _)) => reason,
                Either::Right(_) => String::new(),
            }
        });
    }

    /// Starts a task that ends by itself.
    fn spawn_to_the_end(&mut self, task: impl Future<Output = String> + Send + 'static) {
        let alive: Alive = self.options.alive.clone();
        let task = async move {
            // Also where the task is ended before its end: what it holds goes first.
            let _alive = alive;
            task.await
        };
        self.tasks.spawn_on(task, &self.options.handle);
    }
}

/// Two connections and the tasks that use them.
struct Session {
    generation: Generation,
    consuming: Link,
    publishing: Arc<Link>,
    tasks: JoinSet<String>,
    stop: watch::Sender<Stop>,
}

impl Session {
    /// Watches the session until it ends, and ends all of it.
    async fn run(mut self, shared: &Shared, endpoint: &str) -> End {
        let end = self.watch(shared).await;
        *shared.bindings.lock() = None;
        shared.credit.begin(0);
        match &end {
            End::Closed => {
                self.stop.send_replace(Stop::Finish);
                self.join().await;
                let goodbye = pin!(join(self.consuming.close(), self.publishing.close()));
                select(goodbye, pin!(shared.closing.passed(0.9))).await;
            }
            End::Lost(reason) => {
                self.publishing.cut();
                let reason = format!("{endpoint}: {reason}");
                self.stop.send_replace(Stop::Now(reason.clone()));
                self.join().await;
                // The broker deletes the queue before it answers: so the next attempt finds its
                // name free.
                let _ = timeout(LAST_WORDS, self.consuming.close()).await;
                return End::Lost(reason);
            }
        }
        end
    }

    /// Waits for what ends the session.
    async fn watch(&mut self, shared: &Shared) -> End {
        let mut closing = pin!(shared.closing.begun());
        let consuming = pin!(self.consuming.ended());
        let publishing = pin!(self.publishing.ended());
        let mut dead = select(consuming, publishing);
        let tasks = &mut self.tasks;
        let end = poll_fn(|cx| {
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(End::Closed));
            }
            if let Poll::Ready(reason) = tasks.poll_join_next(cx) {
                return Poll::Ready(Some(End::Lost(reason_of(reason))));
            }
            dead.poll_unpin(cx).map(|_| None)
        })
        .await;
        match end {
            Some(end) => end,
            // A task is about to hear why.
            None => match timeout(LAST_WORDS, self.tasks.join_next()).await {
                Ok(reason) => End::Lost(reason_of(reason)),
                Err(_) => End::Lost("the connection has ended".to_owned()),
            },
        }
    }

    async fn join(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Why a task ended.
fn reason_of(task: Option<Result<String, tokio::task::JoinError>>) -> String {
    match task {
        Some(Ok(reason)) => reason,
        Some(Err(error)) => format!("a task of the layer failed: {error}"),
        None => "the connection has ended".to_owned(),
    }
}

#[cfg(test)]
mod tests;
