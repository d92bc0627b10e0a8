//! One connection: resolve, TCP, TLS, AMQP handshake, and its end.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_rs::Runtime;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties, ErrorKind};
use rustls::ClientConnection;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::failure::Failure;
use super::io::{IoThread, Started, Transport};
use super::kit::{Kit, Tasks};
use super::login::{Login, Progress, Stage};
use super::race::Network;
use super::tls::{Connector, Tls};
use crate::endpoint::{Endpoint, Scheme};
use crate::sync::Mutex;

/// Where the option leaves it to the broker: with its usual 60 s, three minutes would pass before a loss
/// is noticed.
const LONGEST_HEARTBEAT: u16 = 20;

/// How long the end of a connection may take once its socket is shut down. Nobody waits for a
/// peer any more by then.
const THREAD_END: Duration = Duration::from_secs(5);

/// Held by all that may still run for a broker. The receiving end closes when none of it is left.
pub(super) type Alive = mpsc::Sender<Infallible>;

/// What each connection is made with.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) timeout: Duration,
    /// In seconds; 0: as the broker wishes, at most [`LONGEST_HEARTBEAT`].
    pub(super) heartbeat: u16,
    /// `None` if no host is one of `amqps://`.
    pub(super) tls: Option<Tls>,
    pub(super) handle: Handle,
    pub(super) alive: Alive,
}

/// The addresses of `endpoint`.
pub(super) async fn resolve(
    endpoint: &Endpoint,
    options: &Options,
) -> Result<Vec<SocketAddr>, Failure> {
    let host = &endpoint.host;
    let lookup = tokio::net::lookup_host((host.as_str(), endpoint.port));
    let addresses: Vec<SocketAddr> = match timeout(options.timeout, lookup).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            return Err(Failure::passing(format!(
                "host '{host}' is not known: {error}"
            )));
        }
        Err(_) => {
            return Err(Failure::passing(format!(
                "no name server says in {:?} what the address of '{host}' is",
                options.timeout
            )));
        }
    };
    if addresses.is_empty() {
        return Err(Failure::passing(format!("host '{host}' has no address")));
    }
    Ok(addresses)
}

/// Connects to `address`.
pub(super) async fn tcp(address: SocketAddr, options: &Options) -> Result<TcpStream, Failure> {
    match timeout(options.timeout, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| Failure::of_tcp(&error)),
        Err(_) => Err(no_answer(address, options, Stage::Tcp)),
    }
}

fn no_answer(address: SocketAddr, options: &Options, stage: Stage) -> Failure {
    Failure::passing(format!(
        "no answer from {address} in {:?} (option connect_timeout): {}",
        options.timeout,
        stage.waits_for()
    ))
}

/// Finds and connects to the addresses of the endpoints.
#[derive(Clone)]
pub(super) struct TcpNetwork {
    endpoints: Arc<[Endpoint]>,
    /// Before the others of its host.
    preferred: Option<SocketAddr>,
    options: Options,
}

impl TcpNetwork {
    pub(super) fn new(
        endpoints: &[Endpoint],
        preferred: Option<SocketAddr>,
        options: &Options,
    ) -> Self {
        Self {
            endpoints: endpoints.into(),
            preferred,
            options: options.clone(),
        }
    }
}

impl Network<SocketAddr, TcpStream> for TcpNetwork {
    fn resolve(
        &self,
        host: usize,
    ) -> impl Future<Output = Result<Vec<SocketAddr>, Failure>> + Send + 'static {
        let endpoint = self.endpoints.get(host).cloned();
        let (preferred, options) = (self.preferred, self.options.clone());
        async move {
            let endpoint = endpoint.ok_or_else(|| Failure::passing("there is no such host"))?;
            let mut addresses = resolve(&endpoint, &options).await?;
            addresses.sort_by_key(|address| Some(*address) != preferred);
            Ok(addresses)
        }
    }

    fn connect(
        &self,
        _host: usize,
        address: SocketAddr,
    ) -> impl Future<Output = Result<TcpStream, Failure>> + Send + 'static {
        let options = self.options.clone();
        async move { tcp(address, &options).await }
    }
}

/// AMQP channels of lapin's on the publishing connection that are not closed by the broker.
const STANDING: usize = 1;

/// A connection. Dropping it shuts its socket down at once.
pub(super) struct Link {
    /// `None` only while the handshake lasts and in `drop`.
    connection: Option<Connection>,
    tasks: Option<Tasks>,
    io: Arc<IoThread>,
    /// `None` in `drop` alone.
    thread: Option<JoinHandle<()>>,
    /// AMQP channels and consumers. lapin closes one when its last handle is dropped, and where
    /// that meets the close of the connection, it fails the connection instead: the broker would
    /// see a dead client, and delete its queue only after we have gone on.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
    /// How many AMQP channels of lapin's were opened that the broker closes, or may close.
    spent_numbers: AtomicUsize,
    /// Closes when lapin's I/O thread ends.
    lapin_ends: watch::Receiver<()>,
    handle: Handle,
    alive: Alive,
}

impl Link {
    /// Logs in on `stream`, which is connected to `address`. `name` is what the broker shows to its
    /// operator.
    pub(super) async fn open(
        endpoint: &Endpoint,
        address: SocketAddr,
        stream: TcpStream,
        name: String,
        options: &Options,
    ) -> Result<Self, Failure> {
        let stage = Progress::default();
        let attempt = Self::attempt(endpoint, stream, name, options, stage.clone());
        match timeout(options.timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(address, options, stage.get())),
        }
    }

    async fn attempt(
        endpoint: &Endpoint,
        plain: TcpStream,
        name: String,
        options: &Options,
        stage: Progress,
    ) -> Result<Self, Failure> {
        let tls = match (endpoint.scheme, &options.tls) {
            (Scheme::Amqps, Some(tls)) => Some(read_tls(tls.clone(), &options.handle).await?),
            (Scheme::Amqps, None) => return Err(Failure::passing("TLS was not prepared")),
            (Scheme::Amqp, _) => None,
        };
        let (plain, session) = match &tls {
            None => (plain, None),
            Some(tls) => {
                stage.reach(Stage::Tls);
                let (plain, session) = tls.connect(endpoint, plain).await?;
                (plain, Some(session))
            }
        };
        let (transport, socket) =
            transport(plain, session).map_err(|error| Failure::of_tcp(&error))?;
        stage.reach(match tls {
            None => Stage::Greeting,
            Some(_) => Stage::GreetingInTls,
        });

        let Started { io, lapin, thread } = IoThread::start(transport, socket, stage.clone())
            .map_err(|error| {
                Failure::passing(format!("the system gives no descriptor or thread: {error}"))
            })?;
        let kit = Kit::new(options.handle.clone());
        let (thread_runs, lapin_ends) = watch::channel(());
        let mut link = Self {
            connection: None,
            kept: Mutex::default(),
            spent_numbers: AtomicUsize::new(0),
            tasks: Some(kit.tasks()),
            io,
            thread: Some(thread),
            lapin_ends,
            handle: options.handle.clone(),
            alive: options.alive.clone(),
        };
        let stream = Mutex::new(Some(AsyncTcpStream::Plain(lapin)));
        // lapin keeps the closure until its thread ends, and might call it again to reconnect.
        let connect = async move |_: AMQPUri, _: Runtime<Kit>| {
            let _ = &thread_runs;
            let stream = stream.lock().take();
            stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
        };
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_auth_provider(Login::new(
                &endpoint.user,
                &endpoint.password,
                stage.clone(),
            ));
        let uri = uri_of(endpoint, options.heartbeat);
        match Connection::connector(uri, Runtime::new(kit), connect, properties).await {
            Ok(connection) => {
                link.connection = Some(connection);
                Ok(link)
            }
            Err(error) => Err(match (tls, error.kind()) {
                (Some(tls), ErrorKind::IOError(error)) if stage.get() < Stage::Login => {
                    tls.explain(endpoint, error)
                }
                _ => Failure::of_login(endpoint, stage.reached(), &error),
            }),
        }
    }

    /// lapin's connection; `None` cannot happen once [`Link::open`] is done.
    pub(super) fn connection(&self) -> Result<&Connection, Failure> {
        self.connection
            .as_ref()
            .ok_or_else(|| Failure::passing("the connection has ended"))
    }

    /// The thread that reads and writes.
    pub(super) fn io(&self) -> &Arc<IoThread> {
        &self.io
    }

    /// How many AMQP channels lapin may have.
    pub(super) fn numbers(&self) -> usize {
        let most = self
            .connection
            .as_ref()
            .map_or(0, |connection| connection.configuration().channel_max());
        match usize::from(most) {
            0 => usize::from(u16::MAX),
            most => most,
        }
    }

    /// Whether less than half of the numbers were spent on AMQP channels that the broker closes.
    pub(super) fn has_numbers(&self) -> bool {
        self.spent_numbers.load(Ordering::Relaxed) < self.numbers() / 2
    }

    /// Whether the connection has not ended.
    pub(super) fn stands(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|it| it.status().connected()) && self.io.stands()
    }

    /// Keeps a handle of lapin's until the connection has ended.
    pub(super) fn keep(&self, handle: impl Any + Send) {
        self.kept.lock().push(Box::new(handle));
    }

    /// Whether one more AMQP channel may be opened that the broker may close: lapin does not use its
    /// number again. `reserve` says how many of all numbers are to be left.
    pub(super) fn spend_number(&self, reserve: impl FnOnce(usize) -> usize) -> bool {
        let numbers = self.numbers().saturating_sub(STANDING);
        let most = numbers - reserve(numbers);
        let spend = |spent: usize| (spent < most).then_some(spent + 1);
        self.spent_numbers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }

    /// Done when the connection has ended, however it did.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut thread = self.lapin_ends.clone();
        async move { while thread.changed().await.is_ok() {} }
    }

    /// Whether the broker blocks publishers on this connection.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.status().blocked())
    }

    /// Says goodbye and waits for the answer. On a connection that is blocked or has ended there
    /// is nobody to say it to.
    pub(super) async fn close(&self) {
        if let Some(connection) = &self.connection
            && !self.is_blocked()
        {
            // Whatever the answer is, the socket is shut down next.
            let _ = connection.close(200, "closed".into()).await;
        }
    }

    /// Shuts the socket down: reads end, writes fail, and so both threads end. It is the only way to
    /// end a connection that the broker blocks: on such a one lapin writes nothing, a close neither.
    pub(super) fn cut(&self) {
        self.io.cut();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        let ended = self.ended();
        let connection = self.connection.take();
        let tasks = self.tasks.take();
        let thread = self.thread.take();
        let alive = self.alive.clone();
        let handle = self.handle.clone();
        self.handle.spawn(async move {
            let has_ended = timeout(THREAD_END, ended).await.is_ok();
            if let Some(connection) = connection
                && has_ended
            {
                // The threads are in their last lines; this joins them.
                let join = move || {
                    drop(connection.run());
                    thread.map(JoinHandle::join)
                };
                let _ = handle.spawn_blocking(join).await;
            }
            if let Some(tasks) = tasks {
                // Without a thread that ends, the tasks never do.
                let patience = if has_ended {
                    THREAD_END
                } else {
                    Duration::ZERO
                };
                tasks.end(patience).await;
            }
            drop(alive);
        });
    }
}

/// Takes the socket from the reactor of the runtime; with a second handle of it.
fn transport(
    tcp: TcpStream,
    session: Option<ClientConnection>,
) -> io::Result<(Transport, StdTcpStream)> {
    tcp.set_nodelay(true)?;
    let socket = tcp.into_std()?;
    let other = socket.try_clone()?;
    let transport = match session {
        None => Transport::plain(socket),
        Some(session) => Transport::tls(socket, session),
    };
    Ok((transport, other))
}

fn uri_of(endpoint: &Endpoint, heartbeat: u16) -> AMQPUri {
    AMQPUri {
        scheme: match endpoint.scheme {
            Scheme::Amqp => AMQPScheme::AMQP,
            Scheme::Amqps => AMQPScheme::AMQPS,
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: endpoint.user.clone(),
                // [`Login`] has it.
                password: String::new(),
            },
            host: endpoint.host.clone(),
            port: endpoint.port,
        },
        vhost: endpoint.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(match heartbeat {
                0 => LONGEST_HEARTBEAT,
                seconds => seconds,
            }),
            ..AMQPQueryString::default()
        },
    }
}

async fn read_tls(tls: Tls, handle: &Handle) -> Result<Connector, Failure> {
    match handle.spawn_blocking(move || tls.read()).await {
        Ok(Ok(connector)) => Ok(connector),
        Ok(Err(error)) => Err(Failure::refused(error.to_string())),
        Err(error) => Err(Failure::passing(format!(
            "the TLS files were not read: {error}"
        ))),
    }
}
