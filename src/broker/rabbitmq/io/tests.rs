//! The I/O thread on a real socket, with lapin's side of the stream in memory and a broker's side of
//! the socket made by hand.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic, channel, connection};
use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt};
use socket2::SockRef;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::super::failure::CUT;
use super::*;
use crate::amqp::{HEAD_LEN, Head};

/// How long is waited for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first AMQP channel that is ours where a broker grants 2047.
const FIRST_OWN: u16 = 1984;

fn bytes_of(frame: &AMQPFrame) -> Vec<u8> {
    let context = gen_frame(frame)(WriteContext::from(Vec::new())).unwrap();
    context.into_inner().0
}

fn frame_of(bytes: &[u8]) -> AMQPFrame {
    let (rest, frame) = parse_frame(bytes).unwrap();
    assert!(rest.is_empty());
    frame
}

fn of_connection(method: connection::AMQPMethod) -> AMQPFrame {
    AMQPFrame::Method(0, AMQPClass::Connection(method))
}

fn ack(channel: u16, delivery_tag: u64) -> AMQPFrame {
    let ack = basic::Ack {
        delivery_tag,
        multiple: false,
    };
    AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)))
}

fn header(channel: u16, body_size: u64) -> AMQPFrame {
    let header = AMQPContentHeader {
        class_id: 60,
        body_size,
        properties: BasicProperties::default(),
    };
    AMQPFrame::Header(channel, header)
}

fn close() -> AMQPFrame {
    of_connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: 320,
        reply_text: "CONNECTION_FORCED".into(),
        class_id: 0,
        method_id: 0,
    }))
}

/// The broker's side of the socket.
struct Peer(TcpStream);

impl Peer {
    fn send(&mut self, frame: &AMQPFrame) {
        self.0.write_all(&bytes_of(frame)).unwrap();
    }

    fn receive(&mut self) -> AMQPFrame {
        let mut bytes = vec![0; HEAD_LEN];
        self.0.read_exact(&mut bytes).unwrap();
        let head = Head::parse(&bytes, usize::MAX).unwrap().unwrap();
        bytes.resize(head.frame_len(), 0);
        self.0.read_exact(&mut bytes[HEAD_LEN..]).unwrap();
        frame_of(&bytes)
    }

    fn is_at_the_end(&mut self) -> bool {
        self.0.read(&mut [0]).unwrap() == 0
    }
}

/// What `future` comes to, which must be soon.
fn within<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    runtime
        .block_on(async { timeout(PATIENCE, future).await })
        .expect("it is done in time")
}

/// lapin's side of the stream in memory.
struct Lapin {
    stream: ControlStream,
    runtime: Runtime,
}

impl Lapin {
    fn send(&mut self, bytes: &[u8]) {
        let Self { stream, runtime } = self;
        within(runtime, stream.write_all(bytes)).unwrap();
    }

    /// 0 is the end of the stream.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { stream, runtime } = self;
        within(runtime, stream.read(buffer))
    }

    fn receive_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let Self { stream, runtime } = self;
        within(runtime, stream.read_exact(&mut bytes)).unwrap();
        bytes
    }

    fn receive(&mut self) -> AMQPFrame {
        let mut bytes = self.receive_bytes(HEAD_LEN);
        let head = Head::parse(&bytes, usize::MAX).unwrap().unwrap();
        bytes.extend(self.receive_bytes(head.frame_len() - HEAD_LEN));
        frame_of(&bytes)
    }

    fn has_nothing_to_read(&mut self) -> bool {
        self.stream.read(&mut [0]).now_or_never().is_none()
    }
}

struct Rig {
    io: Arc<IoThread>,
    lapin: Lapin,
    peer: Peer,
    thread: JoinHandle<()>,
}

impl Rig {
    /// A connection on which nothing was said.
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_nodelay(true).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        // So that back-pressure does not take megabytes.
        for socket in [&socket, &peer] {
            let socket = SockRef::from(socket);
            socket.set_send_buffer_size(16 << 10).unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
        }
        let other = socket.try_clone().unwrap();
        let transport = Transport::plain(socket);
        let started = IoThread::start(transport, other, Progress::default()).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            io: started.io,
            lapin: Lapin {
                stream: started.lapin,
                runtime: runtime.enable_time().build().unwrap(),
            },
            peer: Peer(peer),
            thread: started.thread,
        }
    }

    /// One on which both sides have agreed.
    fn tuned(heartbeat: u16) -> Self {
        let mut rig = Self::new();
        let tune = connection::Tune {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat,
        };
        rig.peer
            .send(&of_connection(connection::AMQPMethod::Tune(tune)));
        let told = rig.lapin.receive();
        let AMQPFrame::Method(
            0,
            AMQPClass::Connection(connection::AMQPMethod::Tune(connection::Tune {
                channel_max,
                frame_max,
                heartbeat,
            })),
        ) = told
        else {
            panic!("{told:?}");
        };
        let tune_ok = connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat,
        };
        let tune_ok = of_connection(connection::AMQPMethod::TuneOk(tune_ok));
        rig.lapin.send(&bytes_of(&tune_ok));
        rig.peer.receive();
        rig
    }

    fn begin(
        &self,
        turn: impl FnMut(&mut Io<'_>) -> Result<Turn, End> + Send + 'static,
    ) -> (Task, Events) {
        let (tells, events) = mpsc::channel();
        let turn = Box::new(turn);
        let task = self.io.begin(Scripted { tells, turn });
        (task, Events(events))
    }

    /// A handler that opens one channel, which has the number that is returned, and then listens.
    fn begin_with_channel(&self) -> (u16, Task, Events) {
        let (tells, number) = mpsc::channel();
        let mut has_one = false;
        let (task, events) = self.begin(move |io| {
            if !std::mem::replace(&mut has_one, true) {
                tells.send(io.take_channel().unwrap()).unwrap();
            }
            Ok(Turn::default())
        });
        (number.recv_timeout(PATIENCE).unwrap(), task, events)
    }

    fn ended(&self, task: &mut Task) -> End {
        within(&self.lapin.runtime, task.ended())
    }

    /// Waits until the thread has ended by itself.
    fn join(self) {
        wait_until("the end of the thread", || self.thread.is_finished());
        self.thread.join().expect("a thread that has not panicked");
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(1));
    }
}

/// What a handler was told.
#[derive(Debug, PartialEq)]
enum Event {
    Acked(u16, u64),
    Method(u16),
    Header(u16, u64),
    Body(u16, Vec<u8>),
    Ended(End),
}

struct Events(mpsc::Receiver<Event>);

impl Events {
    fn next(&self) -> Event {
        self.0.recv_timeout(PATIENCE).expect("an event")
    }

    /// The reason of the end, which must come next and once.
    fn end(self) -> End {
        let Event::Ended(end) = self.next() else {
            panic!("it has not ended");
        };
        // It is dropped with the handler.
        assert_eq!(
            self.0.recv_timeout(PATIENCE),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
        end
    }
}

type Turns = dyn FnMut(&mut Io<'_>) -> Result<Turn, End> + Send;

/// A handler that tells what it is told. A delivery tag of 0 is its end.
struct Scripted {
    tells: mpsc::Sender<Event>,
    turn: Box<Turns>,
}

impl Scripted {
    fn tell(&self, event: Event) {
        // Not every test listens to its end.
        let _ = self.tells.send(event);
    }
}

impl Handler for Scripted {
    fn method(&mut self, channel: u16, method: &Incoming<'_>, _: &mut Io<'_>) -> Result<(), End> {
        match method {
            Incoming::Ack(confirm) if confirm.delivery_tag == 0 => Err("no such tag".into()),
            Incoming::Ack(confirm) => {
                self.tell(Event::Acked(channel, confirm.delivery_tag));
                Ok(())
            }
            _ => {
                self.tell(Event::Method(channel));
                Ok(())
            }
        }
    }

    fn header(&mut self, channel: u16, header: &Header<'_>, _: &mut Io<'_>) -> Result<(), End> {
        self.tell(Event::Header(channel, header.body_size));
        Ok(())
    }

    fn body(&mut self, channel: u16, part: &[u8], _: &mut Io<'_>) -> Result<(), End> {
        self.tell(Event::Body(channel, part.to_vec()));
        Ok(())
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, End> {
        (self.turn)(io)
    }

    fn end(&mut self, end: &End) {
        self.tell(Event::Ended(end.clone()));
    }
}

#[test]
fn what_both_sides_agree_on_is_shared_out() {
    let mut rig = Rig::new();
    let start = b"AMQP\0\0\x09\x01";
    rig.lapin.send(start);
    let mut bytes = [0; 8];
    rig.peer.0.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, start);
    assert_eq!(rig.io.most_channels(), 0);
    let tune = |channel_max, frame_max| connection::Tune {
        channel_max,
        frame_max,
        heartbeat: 60,
    };
    let method = connection::AMQPMethod::Tune;
    rig.peer.send(&of_connection(method(tune(2047, 131_072))));
    let told = rig.lapin.receive();
    assert_eq!(told, of_connection(method(tune(FIRST_OWN - 1, 8192))));
    let tune_ok = |channel_max, frame_max| {
        of_connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat: 10,
        }))
    };
    rig.lapin.send(&bytes_of(&tune_ok(FIRST_OWN - 1, 8192)));
    assert_eq!(rig.peer.receive(), tune_ok(2047, 131_072));
    assert_eq!(rig.io.most_channels(), 64);

    let (tells, told) = mpsc::channel();
    let (_task, _events) = rig.begin(move |io| {
        let numbers = std::iter::from_fn(|| io.take_channel()).collect::<Vec<_>>();
        if !numbers.is_empty() {
            tells.send((numbers, io.frame_max)).unwrap();
        }
        Ok(Turn::default())
    });
    let (numbers, frame_max) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(numbers, (FIRST_OWN..=2047).collect::<Vec<_>>());
    assert_eq!(frame_max, 131_072);
}

#[test]
fn frames_of_lapin_and_of_handlers_are_never_interleaved() {
    let mut rig = Rig::tuned(0);
    let to_write = Arc::new(AtomicUsize::new(0));
    let its = Arc::clone(&to_write);
    let mut number = None;
    let (task, _events) = rig.begin(move |io| {
        let number = *number.get_or_insert_with(|| io.take_channel().unwrap());
        for _ in 0..its.swap(0, Ordering::SeqCst) {
            io.writer(number).ack(1, false);
        }
        Ok(Turn::default())
    });
    let of_lapin = AMQPFrame::Body(1, (0..40).collect());
    let bytes = bytes_of(&of_lapin);
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        rig.lapin.send(first);
        to_write.store(2, Ordering::SeqCst);
        task.wake();
        for _ in 0..2 {
            assert_eq!(rig.peer.receive(), ack(FIRST_OWN, 1));
        }
        rig.lapin.send(second);
        assert_eq!(rig.peer.receive(), of_lapin);
    }
}

#[test]
fn each_frame_comes_whole_to_whom_its_channel_belongs() {
    let mut rig = Rig::tuned(0);
    let (number, _task, events) = rig.begin_with_channel();
    assert_eq!(number, FIRST_OWN);
    let of_lapin = [
        AMQPFrame::Heartbeat,
        ack(1, 7),
        header(FIRST_OWN - 1, 9),
        AMQPFrame::Body(1, (0..200).collect()),
    ]
    .map(|frame| bytes_of(&frame));
    // On a channel of ours that nobody has, they are dropped.
    let dropped = bytes_of(&ack(FIRST_OWN + 5, 3));
    let body: Vec<u8> = (0..250).collect();
    let own = [
        ack(number, 5),
        header(number, 250),
        AMQPFrame::Body(number, body.clone()),
        ack(number, 6),
    ]
    .map(|frame| bytes_of(&frame));
    let stream: Vec<u8> = (of_lapin.iter().zip(&own))
        .flat_map(|(lapin, own)| [lapin.as_slice(), &dropped, own].concat())
        .collect();
    for size in [1, 3, 7, 8, 64, 300, stream.len()] {
        for part in stream.chunks(size) {
            rig.peer.0.write_all(part).unwrap();
        }
        let all = of_lapin.concat();
        assert_eq!(rig.lapin.receive_bytes(all.len()), all);
        assert_eq!(events.next(), Event::Acked(number, 5));
        assert_eq!(events.next(), Event::Header(number, 250));
        let mut parts = Vec::new();
        while parts.len() < body.len() {
            let Event::Body(channel, part) = events.next() else {
                panic!("no body");
            };
            assert_eq!(channel, number);
            parts.extend(part);
        }
        assert_eq!(parts, body);
        // The last of its body may have been the frame's end alone.
        let mut next = events.next();
        if next == Event::Body(number, Vec::new()) {
            next = events.next();
        }
        assert_eq!(next, Event::Acked(number, 6));
    }
    assert!(rig.lapin.has_nothing_to_read());
    assert_eq!(rig.io.of_bodies(), 7 * 250);
}

#[test]
fn a_handler_that_fails_ends_alone() {
    let mut rig = Rig::tuned(0);
    let (first, mut first_task, first_events) = rig.begin_with_channel();
    let (second, _second_task, second_events) = rig.begin_with_channel();
    rig.peer.send(&ack(first, 0));
    // Nobody hears of this.
    rig.peer.send(&ack(first, 1));
    rig.peer.send(&ack(second, 2));
    assert_eq!(second_events.next(), Event::Acked(second, 2));
    assert_eq!(rig.ended(&mut first_task), "no such tag".into());
    assert_eq!(first_events.end(), "no such tag".into());

    let (mut third_task, third_events) = rig.begin(|_| Err("a turn for the worse".into()));
    assert_eq!(rig.ended(&mut third_task), "a turn for the worse".into());
    assert_eq!(third_events.end(), "a turn for the worse".into());
    rig.peer.send(&ack(second, 3));
    assert_eq!(second_events.next(), Event::Acked(second, 3));
    rig.peer.send(&AMQPFrame::Heartbeat);
    assert_eq!(rig.lapin.receive(), AMQPFrame::Heartbeat);
}

#[test]
fn the_broker_closes_the_connection_and_lapin_answers() {
    let mut rig = Rig::tuned(0);
    let (number, mut task, events) = rig.begin_with_channel();
    let (_, _other, other_events) = rig.begin_with_channel();
    rig.peer.send(&close());
    // Too late for anyone.
    rig.peer.send(&ack(number, 1));
    let end = rig.ended(&mut task);
    assert_eq!(end.code, Some(320));
    assert!(end.why.contains("CONNECTION_FORCED"), "{end:?}");
    assert_eq!(events.end(), end);
    assert_eq!(other_events.end(), end);
    let (_late, late_events) = rig.begin(|_| panic!("it has ended"));
    assert_eq!(late_events.end(), end);

    assert_eq!(rig.lapin.receive(), close());
    let close_ok = of_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
    rig.lapin.send(&bytes_of(&close_ok));
    rig.lapin
        .runtime
        .block_on(rig.lapin.stream.close())
        .unwrap();
    assert_eq!(rig.peer.receive(), close_ok);
    assert!(rig.peer.is_at_the_end());
    rig.join();
}

/// How a connection is lost: what is done, what of the reason is told, and what lapin reads.
type Loss = (
    fn(Peer, &IoThread) -> Option<Peer>,
    &'static str,
    Option<io::ErrorKind>,
);

#[test]
fn a_connection_that_is_lost_ends_everything_once_and_says_why() {
    let losses: [Loss; 6] = [
        // The other side ends.
        (|_, _| None, CUT, None),
        (
            |peer, _| {
                SockRef::from(&peer.0)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                None
            },
            CUT,
            Some(io::ErrorKind::ConnectionReset),
        ),
        (
            |mut peer, _| {
                peer.0
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .unwrap();
                Some(peer)
            },
            "is not AMQP: Frame",
            Some(io::ErrorKind::InvalidData),
        ),
        (
            |mut peer, _| {
                peer.0.write_all(&[1, 0, 1, 0xff, 0, 0, 0]).unwrap();
                Some(peer)
            },
            "is not AMQP: TooLong",
            Some(io::ErrorKind::InvalidData),
        ),
        (
            |mut peer, _| {
                // A method of ours that ends too early.
                let own = FIRST_OWN.to_be_bytes();
                let frame = [1, own[0], own[1], 0, 0, 0, 4, 0, 60, 0, 80, 0xce];
                peer.0.write_all(&frame).unwrap();
                Some(peer)
            },
            "is not AMQP: Truncated",
            Some(io::ErrorKind::InvalidData),
        ),
        (
            |peer, io| {
                io.cut();
                Some(peer)
            },
            CUT,
            None,
        ),
    ];
    for (lose, why, kind) in losses {
        let mut rig = Rig::tuned(0);
        let (_, mut task, events) = rig.begin_with_channel();
        let (_, _other, other_events) = rig.begin_with_channel();
        rig.peer.send(&AMQPFrame::Heartbeat);
        // It has been read, so that a reset does not overtake it.
        assert_eq!(rig.lapin.receive(), AMQPFrame::Heartbeat);
        let Rig {
            io,
            mut lapin,
            peer,
            thread,
        } = rig;
        let peer = lose(peer, &io);
        let end = within(&lapin.runtime, task.ended());
        assert!(end.why.contains(why), "{end:?} does not say {why}");
        assert_eq!(end.code, None);
        assert_eq!(events.end(), end);
        assert_eq!(other_events.end(), end);
        let read = lapin.read(&mut [0]);
        assert_eq!(read.as_ref().err().map(io::Error::kind), kind, "{read:?}");
        assert_eq!(lapin.read(&mut [0]).unwrap(), 0);
        let (tells, late_events) = mpsc::channel();
        let late = io.begin(Scripted {
            tells,
            turn: Box::new(|_| panic!("it has ended")),
        });
        assert_eq!(Events(late_events).end(), end);
        drop(late);
        wait_until("the end of the thread", || thread.is_finished());
        thread.join().unwrap();
        if let Some(mut peer) = peer {
            assert!(peer.is_at_the_end());
        }
    }
}

#[test]
fn a_handler_that_panics_ends_the_connection_and_not_the_process() {
    let mut rig = Rig::tuned(0);
    let (_, mut task, events) = rig.begin_with_channel();
    let (mut bad_task, bad_events) = rig.begin(|_| panic!("this is part of the test"));
    for task in [&mut task, &mut bad_task] {
        assert!(rig.ended(task).why.contains("panicked"));
    }
    assert!(events.end().why.contains("panicked"));
    assert!(bad_events.end().why.contains("panicked"));
    assert_eq!(rig.lapin.read(&mut [0]).unwrap(), 0);
    assert!(rig.peer.is_at_the_end());
    rig.join();
}

#[test]
fn a_handler_is_ended_with_its_task_and_once() {
    let rig = Rig::tuned(0);
    let (_, task, events) = rig.begin_with_channel();
    task.end(&"it was enough".into());
    assert_eq!(events.end(), "it was enough".into());
    let (_, task, events) = rig.begin_with_channel();
    drop(task);
    assert!(events.end().why.contains("given up"));
    // One that has ended by itself is not ended again.
    let (mut task, events) = rig.begin(|_| Err("by itself".into()));
    assert_eq!(rig.ended(&mut task), "by itself".into());
    task.end(&"again".into());
    assert_eq!(events.end(), "by itself".into());
    // The connection goes on.
    let (_, _task, _events) = rig.begin_with_channel();
}

#[test]
fn lapin_that_has_gone_ends_the_connection_once_all_is_sent() {
    let mut rig = Rig::tuned(0);
    let (_, mut task, events) = rig.begin_with_channel();
    rig.lapin.send(&bytes_of(&AMQPFrame::Heartbeat));
    drop(rig.lapin.stream);
    assert_eq!(within(&rig.lapin.runtime, task.ended()), ENDED.into());
    assert_eq!(events.end(), ENDED.into());
    assert_eq!(rig.peer.receive(), AMQPFrame::Heartbeat);
    assert!(rig.peer.is_at_the_end());
    wait_until("the end of the thread", || rig.thread.is_finished());
}

#[test]
fn a_handler_has_its_turn_when_something_is_due() {
    let rig = Rig::tuned(0);
    let (tells, told) = mpsc::channel();
    let mut due = None;
    let (_task, _events) = rig.begin(move |io| {
        let due = *due.get_or_insert(io.now + Duration::from_millis(30));
        if io.now >= due {
            let _ = tells.send(io.now - due);
            return Ok(Turn::default());
        }
        Ok(Turn {
            due: Some(due),
            ..Turn::default()
        })
    });
    told.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_handler_hears_that_the_broker_blocks_and_takes_messages_again() {
    let mut rig = Rig::tuned(0);
    let (tells, told) = mpsc::channel();
    let mut last = None;
    let (_task, _events) = rig.begin(move |io| {
        if last.replace(io.is_blocked) != Some(io.is_blocked) {
            tells.send(io.is_blocked).unwrap();
        }
        Ok(Turn::default())
    });
    let blocked = connection::Blocked {
        reason: "low on memory".into(),
    };
    let blocked = of_connection(connection::AMQPMethod::Blocked(blocked));
    let unblocked = of_connection(connection::AMQPMethod::Unblocked(connection::Unblocked {}));
    assert!(!told.recv_timeout(PATIENCE).unwrap());
    for (frame, is_blocked) in [(blocked, true), (unblocked, false)] {
        rig.peer.send(&frame);
        assert_eq!(told.recv_timeout(PATIENCE), Ok(is_blocked));
        assert_eq!(rig.lapin.receive(), frame);
    }
}

/// A handler that writes as much as there is room for, up to `most` bytes of bodies in all, and tells
/// each time how much waits to be sent, and whether there is room for more.
fn flood(rig: &Rig, most: usize) -> (Task, mpsc::Receiver<(usize, bool)>) {
    const PART: usize = 16 << 10;
    let (tells, told) = mpsc::channel();
    let (mut number, mut written) = (None, 0);
    let (task, _) = rig.begin(move |io| {
        let number = *number.get_or_insert_with(|| io.take_channel().unwrap());
        while io.has_room() && written < most {
            let frame_max = io.frame_max;
            io.writer(number).body(&[7; PART], frame_max);
            written += PART;
        }
        let _ = tells.send((io.out.len(), io.has_room()));
        Ok(Turn::default())
    });
    (task, told)
}

#[test]
fn a_broker_that_does_not_read_leaves_no_room_until_it_does() {
    let mut rig = Rig::tuned(0);
    let (_task, told) = flood(&rig, 4 << 20);
    let has_room = || told.recv_timeout(PATIENCE).unwrap().1;
    while has_room() {}
    let mut received = 0;
    while received < 4 << 20 {
        let AMQPFrame::Body(FIRST_OWN, part) = rig.peer.receive() else {
            panic!("no body");
        };
        assert!(part.iter().all(|byte| *byte == 7));
        received += part.len();
    }
    while !has_room() {}
}

#[test]
fn what_was_sent_is_not_kept_while_more_waits_to_be_sent() {
    const IN_ALL: usize = 16 << 20;
    let mut rig = Rig::tuned(0);
    let (_task, told) = flood(&rig, IN_ALL);
    let mut received = 0;
    while received < IN_ALL {
        let AMQPFrame::Body(_, part) = rig.peer.receive() else {
            panic!("no body");
        };
        received += part.len();
    }
    let most = told.try_iter().map(|(len, _)| len).max().unwrap();
    assert!(most < 4 * MOST_TO_SEND, "{most} bytes were kept");
}

/// Sends frames to lapin, which reads nothing, until they are not taken any more; how many bytes.
fn fill(peer: &mut Peer) -> (Vec<u8>, usize) {
    let frames = bytes_of(&AMQPFrame::Body(1, vec![1; 8000])).repeat(1000);
    // Long enough that somebody who reads has read.
    peer.0
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    while let Some(rest) = frames.get(sent..).filter(|rest| !rest.is_empty()) {
        match peer.0.write(rest) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    peer.0.set_write_timeout(None).unwrap();
    (frames, sent)
}

#[test]
fn lapin_that_does_not_read_stops_the_reading() {
    let mut rig = Rig::tuned(0);
    let (number, _task, events) = rig.begin_with_channel();
    let (frames, sent) = fill(&mut rig.peer);
    assert!(sent >= 1 << 20, "only {sent} bytes were read");
    assert!(sent < 4 << 20, "{sent} bytes were read");
    let mut peer = rig.peer;
    let rest = [&frames[sent..], &bytes_of(&ack(number, 9))].concat();
    let writer = std::thread::spawn(move || peer.0.write_all(&rest).map(|()| peer));
    assert_eq!(rig.lapin.receive_bytes(frames.len()), frames);
    assert_eq!(events.next(), Event::Acked(number, 9));
    writer.join().unwrap().unwrap();
}

#[test]
fn a_connection_is_cut_though_lapin_does_not_read() {
    let mut rig = Rig::tuned(0);
    let (_, mut task, _events) = rig.begin_with_channel();
    fill(&mut rig.peer);
    rig.io.cut();
    assert_eq!(rig.ended(&mut task), CUT.into());
    rig.join();
}

#[test]
fn lapin_hears_that_the_broker_is_alive_while_it_is_busy_with_us_alone() {
    let mut rig = Rig::tuned(1);
    let (number, _task, events) = rig.begin_with_channel();
    // What comes for it says so, and no more is needed.
    let both = [
        bytes_of(&AMQPFrame::Body(1, vec![1])),
        bytes_of(&ack(number, 1)),
    ];
    let both = both.concat();
    let mut start = Instant::now();
    for _ in 0..20 {
        start = Instant::now();
        rig.peer.0.write_all(&both).unwrap();
        assert_eq!(events.next(), Event::Acked(number, 1));
        assert_eq!(rig.lapin.receive(), AMQPFrame::Body(1, vec![1]));
        sleep(Duration::from_millis(20));
    }
    assert!(rig.lapin.has_nothing_to_read());

    while rig.lapin.has_nothing_to_read() {
        assert!(start.elapsed() < PATIENCE, "no heartbeat");
        rig.peer.send(&ack(number, 1));
        assert_eq!(events.next(), Event::Acked(number, 1));
        sleep(Duration::from_millis(5));
    }
    // An eighth of a second after it last heard something.
    assert!(start.elapsed() >= Duration::from_millis(125));
    // The byte that was looked at was its first.
    let rest = rig.lapin.receive_bytes(7);
    assert_eq!(
        frame_of(&[&[8], rest.as_slice()].concat()),
        AMQPFrame::Heartbeat
    );
}

#[test]
fn lapin_hears_of_no_life_where_there_is_none() {
    let mut rig = Rig::tuned(1);
    let (_, _task, _events) = rig.begin_with_channel();
    sleep(Duration::from_millis(400));
    rig.io.wake();
    assert!(rig.lapin.has_nothing_to_read());
}

#[test]
fn lapin_gets_no_heartbeats_where_none_were_agreed_upon() {
    let mut rig = Rig::tuned(0);
    let (number, _task, events) = rig.begin_with_channel();
    for _ in 0..20 {
        rig.peer.send(&ack(number, 1));
        assert_eq!(events.next(), Event::Acked(number, 1));
        sleep(Duration::from_millis(5));
    }
    assert!(rig.lapin.has_nothing_to_read());
    // Nor does a method that is not of ours end anything.
    let flow = channel::AMQPMethod::Flow(channel::Flow { active: true });
    rig.peer
        .send(&AMQPFrame::Method(number, AMQPClass::Channel(flow)));
    assert_eq!(events.next(), Event::Method(number));
}
