//! The habits of lapin that the shared connection relies on. None of them is promised by its
//! documentation: where one of these tests fails with a new release of lapin, [`super`] or
//! [`crate::amqp`] has to follow before that release is taken.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use async_rs::Runtime;
use lapin::options::BasicPublishOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Connection, ConnectionProperties, ErrorKind};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::super::kit::{Kit, Tasks};
use super::control_stream::{self, ControlEnd};
use super::*;
use crate::amqp::{HEAD_LEN, Head};

/// How long is waited for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

const MILLISECOND: Duration = Duration::from_millis(1);

/// What lapin is told.
const CHANNEL_MAX: u16 = 5;
const FRAME_MAX: u32 = 8192;

/// The broker at the other end of the stream in memory.
struct Broker {
    end: ControlEnd,
    received: Vec<u8>,
    /// lapin has closed its side.
    is_closed: bool,
    /// How often lapin has asked for a connection.
    connects: Arc<AtomicUsize>,
    /// Those of lapin, which end with this.
    tasks: Tasks,
}

impl Broker {
    fn send(&self, frame: &AMQPFrame) {
        let context = gen_frame(frame)(WriteContext::from(Vec::new())).unwrap();
        self.end.give(&context.into_inner().0);
    }

    fn send_of_connection(&self, method: connection::AMQPMethod) {
        self.send(&AMQPFrame::Method(0, AMQPClass::Connection(method)));
    }

    fn look(&mut self) {
        self.is_closed |= self.end.take(&mut self.received);
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        wait_until("bytes of lapin", || {
            self.look();
            self.received.len() >= count
        })
        .await;
        self.received.drain(..count).collect()
    }

    /// The next frame, which lapin may have written.
    async fn receive(&mut self) -> AMQPFrame {
        let mut bytes = self.bytes(HEAD_LEN).await;
        let head = Head::parse(&bytes, FRAME_MAX as usize).unwrap().unwrap();
        assert!(head.channel <= CHANNEL_MAX, "{head:?}");
        bytes.extend(self.bytes(head.frame_len() - HEAD_LEN).await);
        let (rest, frame) = parse_frame(bytes.as_slice()).unwrap();
        assert!(rest.is_empty());
        frame
    }

    /// The next that is no heartbeat.
    async fn receive_method(&mut self) -> AMQPClass {
        loop {
            match self.receive().await {
                AMQPFrame::Heartbeat => {}
                AMQPFrame::Method(_, class) => return class,
                other => panic!("no method: {other:?}"),
            }
        }
    }

    async fn receive_of_connection(&mut self) -> connection::AMQPMethod {
        match self.receive_method().await {
            AMQPClass::Connection(method) => method,
            other => panic!("no method of a connection: {other:?}"),
        }
    }

    async fn start(&mut self) {
        assert_eq!(self.bytes(8).await, b"AMQP\0\0\x09\x01");
        self.send_of_connection(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: capabilities(),
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        }));
        let start_ok = self.receive_of_connection().await;
        assert!(
            matches!(start_ok, connection::AMQPMethod::StartOk(_)),
            "{start_ok:?}"
        );
    }

    async fn tune(&mut self, heartbeat: u16) {
        let tune = connection::Tune {
            channel_max: CHANNEL_MAX,
            frame_max: FRAME_MAX,
            heartbeat,
        };
        self.send_of_connection(connection::AMQPMethod::Tune(tune));
        let tune_ok = self.receive_of_connection().await;
        let connection::AMQPMethod::TuneOk(tune_ok) = tune_ok else {
            panic!("{tune_ok:?}");
        };
        // It asks for no more than it is told, so that what we tell the broker is true of it.
        assert_eq!(
            (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat),
            (CHANNEL_MAX, FRAME_MAX, heartbeat)
        );
    }

    async fn open(&mut self) {
        let open = self.receive_of_connection().await;
        assert!(matches!(open, connection::AMQPMethod::Open(_)), "{open:?}");
        self.send_of_connection(connection::AMQPMethod::OpenOk(connection::OpenOk {}));
    }

    /// Lets lapin open a channel.
    async fn open_channel(&mut self, connection: &Connection) -> lapin::Channel {
        let answer = async {
            let bytes = self.receive().await;
            let AMQPFrame::Method(number, AMQPClass::Channel(channel::AMQPMethod::Open(_))) = bytes
            else {
                panic!("{bytes:?}");
            };
            let open_ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
            self.send(&AMQPFrame::Method(number, AMQPClass::Channel(open_ok)));
        };
        let (opened, ()) = tokio::join!(connection.create_channel(), answer);
        opened.unwrap()
    }

    /// Waits until lapin has closed its side, and holds that against how often it has connected.
    async fn sees_the_end(&mut self) {
        wait_until("the end of lapin's side", || {
            self.look();
            self.is_closed
        })
        .await;
        assert_eq!(self.connects.load(Ordering::SeqCst), 1);
    }
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(MILLISECOND).await;
    }
}

/// What RabbitMQ can do, as far as lapin asks.
fn capabilities() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in ["connection.blocked", "publisher_confirms", "basic.nack"] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}

/// lapin begins to connect to a broker that has said nothing yet.
fn connect(heartbeat: u16) -> (Broker, impl Future<Output = lapin::Result<Connection>>) {
    let (lapin, end) = control_stream::pair(Arc::new(Wakeup::new().unwrap()));
    let connects = Arc::new(AtomicUsize::new(0));
    let kit = Kit::new(Handle::current());
    let broker = Broker {
        end,
        received: Vec::new(),
        is_closed: false,
        connects: Arc::clone(&connects),
        tasks: kit.tasks(),
    };
    let stream = Mutex::new(Some(AsyncTcpStream::Plain(lapin)));
    // As the library does it.
    let connect = async move |_: AMQPUri, _: Runtime<Kit>| {
        connects.fetch_add(1, Ordering::SeqCst);
        let stream = stream.lock().take();
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    let uri = format!("amqp://guest:guest@localhost/%2f?heartbeat={heartbeat}");
    let runtime = Runtime::new(kit);
    let properties = ConnectionProperties::default();
    let connected = Connection::connector(uri.parse().unwrap(), runtime, connect, properties);
    (broker, connected)
}

/// A connection that stands.
async fn connected(heartbeat: u16) -> (Broker, Connection) {
    let (mut broker, connected) = connect(heartbeat);
    let handshake = async {
        broker.start().await;
        broker.tune(heartbeat).await;
        broker.open().await;
    };
    let (connection, ()) = tokio::join!(connected, handshake);
    (broker, connection.unwrap())
}

#[tokio::test]
async fn lapin_takes_channels_below_its_limit_and_no_other() {
    let (mut broker, connection) = connected(60).await;
    let mut channels = Vec::new();
    for number in 1..=CHANNEL_MAX {
        let channel = broker.open_channel(&connection).await;
        assert_eq!(channel.id(), number);
        channels.push(channel);
    }
    let error = connection.create_channel().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ChannelsLimitReached),
        "{error}"
    );
    // It said nothing of that one to the broker: the next is of another.
    let last = channels.last().unwrap();
    let publish = last.basic_publish(
        ShortString::default(),
        "queue".into(),
        BasicPublishOptions::default(),
        &[1; 3 * FRAME_MAX as usize],
        BasicProperties::default(),
    );
    let _confirm = publish.await.unwrap();
    let published = broker.receive_method().await;
    assert!(
        matches!(published, AMQPClass::Basic(basic::AMQPMethod::Publish(_))),
        "{published:?}"
    );
    let header = broker.receive().await;
    assert!(
        matches!(header, AMQPFrame::Header(CHANNEL_MAX, _)),
        "{header:?}"
    );
    // `receive` holds against the limit how long each frame is.
    let mut left = 3 * FRAME_MAX as usize;
    while left > 0 {
        let AMQPFrame::Body(CHANNEL_MAX, part) = broker.receive().await else {
            panic!("no body");
        };
        left -= part.len();
    }
}

#[tokio::test]
async fn lapin_closes_its_stream_when_the_broker_has_answered_its_close() {
    let (mut broker, connection) = connected(60).await;
    let answer = async {
        let close = broker.receive_of_connection().await;
        assert!(
            matches!(close, connection::AMQPMethod::Close(_)),
            "{close:?}"
        );
        broker.look();
        assert!(!broker.is_closed, "it does not wait for the answer");
        broker.send_of_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
        broker.sees_the_end().await;
    };
    let (closed, ()) = tokio::join!(connection.close(200, "bye".into()), answer);
    closed.unwrap();
    assert!(broker.received.is_empty());
}

/// It may or may not answer: the order of two of its threads decides whether `close-ok` is written
/// before it ends.
#[tokio::test]
async fn lapin_closes_its_stream_when_the_broker_closes() {
    let (mut broker, connection) = connected(60).await;
    broker.send_of_connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: 320,
        reply_text: "CONNECTION_FORCED".into(),
        class_id: 0,
        method_id: 0,
    }));
    broker.sees_the_end().await;
    wait_until("it knows", || !connection.status().connected()).await;
    if !broker.received.is_empty() {
        let answer = broker.receive_of_connection().await;
        assert!(
            matches!(answer, connection::AMQPMethod::CloseOk(_)),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn lapin_does_not_connect_again_when_a_connection_is_lost() {
    for error in [None, Some(io::ErrorKind::ConnectionReset.into())] {
        let (mut broker, connection) = connected(60).await;
        broker.end.end(error);
        broker.sees_the_end().await;
        wait_until("it knows", || !connection.status().connected()).await;
    }
}

/// Here it may ask again, and is told that there is no other stream.
///
/// Behind the `tune` it does not always return: what it queues then it may queue too late for its own
/// thread. So an attempt to connect needs a deadline.
#[tokio::test]
async fn lapin_gives_up_when_a_connection_is_lost_during_the_login() {
    for stage in 0..3 {
        let (mut broker, connected) = connect(60);
        let lose = async {
            if stage > 0 {
                broker.start().await;
            }
            if stage > 1 {
                broker.tune(60).await;
            }
            broker.end.end(None);
        };
        let deadline = match stage {
            2 => Duration::from_millis(200),
            _ => PATIENCE,
        };
        let (connected, ()) = tokio::join!(timeout(deadline, connected), lose);
        match connected {
            Ok(connected) => {
                let error = connected.unwrap_err();
                assert!(error.is_io_error(), "{stage}: {error}");
            }
            Err(_) => assert_eq!(stage, 2, "it does not give up"),
        }
        wait_until("the end of lapin's side", || {
            broker.look();
            broker.is_closed
        })
        .await;
        broker.tasks.end(PATIENCE).await;
    }
}

#[tokio::test]
async fn lapin_writes_nothing_while_the_broker_blocks() {
    let (mut broker, connection) = connected(60).await;
    let channel = broker.open_channel(&connection).await;
    let blocked = connection::Blocked {
        reason: "low on memory".into(),
    };
    broker.send_of_connection(connection::AMQPMethod::Blocked(blocked));
    wait_until("it knows", || connection.status().blocked()).await;
    let publish = channel.basic_publish(
        ShortString::default(),
        "queue".into(),
        BasicPublishOptions::default(),
        b"",
        BasicProperties::default(),
    );
    let mut publish = pin!(publish);
    // Long enough that it would have.
    let published = timeout(100 * MILLISECOND, publish.as_mut()).await;
    assert!(published.is_err(), "it does not wait until it is written");
    broker.look();
    assert!(broker.received.is_empty());
    broker.send_of_connection(connection::AMQPMethod::Unblocked(connection::Unblocked {}));
    let published = broker.receive_method().await;
    assert!(
        matches!(published, AMQPClass::Basic(basic::AMQPMethod::Publish(_))),
        "{published:?}"
    );
    publish.await.unwrap();
}

#[tokio::test]
async fn lapin_takes_the_broker_for_alive_by_what_it_reads() {
    let (mut broker, connection) = connected(1).await;
    let start = Instant::now();
    // Longer than the two heartbeats after which it would give up.
    while start.elapsed() < Duration::from_millis(2600) {
        broker.send(&AMQPFrame::Heartbeat);
        sleep(50 * MILLISECOND).await;
        assert!(connection.status().connected());
    }
    // Its own heartbeats are written, for the broker.
    assert_eq!(broker.receive().await, AMQPFrame::Heartbeat);
    let silence = Instant::now();
    broker.sees_the_end().await;
    wait_until("it knows", || !connection.status().connected()).await;
    assert!(silence.elapsed() > Duration::from_millis(1800));
}
