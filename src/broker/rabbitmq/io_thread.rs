//! lapin's I/O thread, which waits for its socket itself and does our work in between.
//!
//! lapin reads and writes on a thread of its own, and waits there for the reactor of the runtime to
//! say that the socket is ready; what it has read, a task on the runtime's thread would take from
//! it. Each of these hops costs more than the work that it hands over. So where there is much to do,
//! the thread, once it has read all there is and comes to wait, does what has become due (it takes
//! publications, collects confirms, takes deliveries in) and then sleeps in the system's poll, on
//! its socket and on an alarm.
//!
//! After [`LINGER`] in which nothing happened the socket goes back to the reactor, and lapin waits in
//! its own way: then nothing wakes a process that has nothing to do, and whoever gives lapin
//! something to write, and does not say so here, has waited for that long at most.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::sleep;
use std::time::{Duration, Instant};

use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;

use super::attention::{Attention, FRAMES, Place, WORK};
use crate::runtime::{EventFd, Ready, wait_for_socket};
use crate::sync::Mutex;

/// How long the thread waits for its socket itself when nothing happens.
pub(super) const LINGER: Duration = Duration::from_millis(100);

/// So many messages at once are a crowd, if at least so many more may follow before somebody waits
/// for us: who waits for one of a few has nothing else to do.
const IN_CROWD: usize = 4;
const MANY: u64 = 64;

/// How long the thread lets messages gather, for each that came and for each that may follow, the
/// shorter of the two. So it is a fraction of what all that is under way takes, and long only where
/// many come. Without it, the broker's segments of three to five messages cost twice the processor
/// time, for the thread and those that it wakes sleep and wake for each (measured with 1000 in
/// flight; 50 µs, whatever came, brought half of what this does).
///
/// Never longer than [`LONGEST_GATHER`]: a heartbeat, a return or an ack on the same connection waits
/// as long, and with a large `prefetch_count` or `max_in_flight` a fraction is no longer short.
const GATHER_FOR_EACH_THAT_CAME: Duration = Duration::from_micros(50);
const GATHER_FOR_EACH_THAT_MAY_FOLLOW: Duration = Duration::from_micros(2);
const LONGEST_GATHER: Duration = Duration::from_millis(2);

/// How long to let messages gather where `came` have come at once and `may_follow` more may come
/// before somebody waits for us.
pub(super) fn time_to_gather(came: usize, may_follow: u64) -> Duration {
    if came < IN_CROWD || may_follow < MANY {
        return Duration::ZERO;
    }
    let times =
        |each: Duration, count: u64| each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    times(GATHER_FOR_EACH_THAT_CAME, came as u64)
        .min(times(GATHER_FOR_EACH_THAT_MAY_FOLLOW, may_follow))
        .min(LONGEST_GATHER)
}

/// What the thread does for us.
pub(super) trait Work: Send {
    /// Does all there is to do, and wakes `cx` when there is more. When there will be no more, the
    /// error says why.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, String>;
}

/// What one turn of work came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    /// lapin was given something to write.
    pub(super) has_written: bool,
    /// When there will be something to do even if nothing happens.
    pub(super) due: Option<Instant>,
    /// How long more had better be waited for; see [`time_to_gather`].
    pub(super) gather: Duration,
}

/// Work, without its type.
trait Turns: Send + Sync {
    fn turn(&self, cx: &mut Context<'_>) -> Turn;
    fn thread_is_gone(&self);
}

/// Why the thread stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stirred {
    /// The socket can be read.
    Readable,
    /// The socket can be written, which was waited for.
    Writable,
    /// lapin has something to write.
    Frames,
    /// Nothing has happened for long, or there is no work to be done here.
    Idle,
}

/// The I/O thread of one connection, for those who give it work.
pub(super) struct IoThread {
    attention: Attention,
    alarm: EventFd,
    /// Wakes the thread where it is parked.
    lapin: AtomicWaker,
    works: Mutex<Vec<Arc<dyn Turns>>>,
    /// How many bytes of the bodies of messages the socket has given.
    of_bodies: AtomicU64,
}

impl fmt::Debug for IoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThread")
            .field("attention", &self.attention)
            .finish_non_exhaustive()
    }
}

impl IoThread {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            attention: Attention::new(),
            alarm: EventFd::new()?,
            lapin: AtomicWaker::new(),
            works: Mutex::default(),
            of_bodies: AtomicU64::new(0),
        }))
    }

    pub(super) fn add_of_bodies(&self, bytes: usize) {
        self.of_bodies.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes of the bodies of messages have been read, of one that is not complete too.
    pub(super) fn of_bodies(&self) -> u64 {
        self.of_bodies.load(Ordering::Relaxed)
    }

    /// Has lapin write what somebody else than this thread has given it.
    pub(super) fn write_frames(&self) {
        self.tell(FRAMES);
    }

    fn tell(&self, what: u8) {
        match self.attention.tell(what) {
            Place::Busy => {}
            Place::Asleep => self.alarm.raise(),
            Place::Parked => self.lapin.wake(),
            Place::Gone => {
                for work in &*self.works.lock() {
                    work.thread_is_gone();
                }
            }
        }
    }

    /// Whether there is work to be done here. Without it, the thread waits as lapin does, and lapin
    /// wakes it for all that it is given to write: so what it was told meanwhile is void.
    pub(super) fn has_work(&self) -> bool {
        let works = self.works.lock();
        if works.is_empty() {
            // Under the lock: work that comes next tells of itself behind this.
            self.attention.take();
        }
        !works.is_empty()
    }

    /// On the thread itself: works, and waits for `socket` to become readable, or writable too if
    /// `wants_write`.
    pub(super) fn work_and_wait(
        self: &Arc<Self>,
        socket: BorrowedFd<'_>,
        wants_write: bool,
    ) -> io::Result<Stirred> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let mut due = None;
        let mut idle_at = None;
        // It may have been left with work to do, or come from elsewhere.
        let mut told = self.attention.take() | WORK;
        loop {
            if told & WORK != 0 {
                let Some(turn) = self.turn(&mut cx) else {
                    return Ok(Stirred::Idle);
                };
                due = turn.due;
                if turn.has_written {
                    return Ok(Stirred::Frames);
                }
                if !turn.gather.is_zero() && told & FRAMES == 0 {
                    sleep(turn.gather);
                    return Ok(Stirred::Readable);
                }
            }
            if told & FRAMES != 0 {
                return Ok(Stirred::Frames);
            }
            if self.attention.go(Place::Asleep) {
                let now = Instant::now();
                let idle_at = *idle_at.get_or_insert(now + LINGER);
                let timeout = due.unwrap_or(idle_at).saturating_duration_since(now);
                let ready = wait_for_socket(socket, wants_write, &self.alarm, timeout);
                self.attention.come_back();
                match ready? {
                    Ready::Readable => return Ok(Stirred::Readable),
                    Ready::Writable => return Ok(Stirred::Writable),
                    Ready::Nothing if due.is_none() => return Ok(Stirred::Idle),
                    Ready::Alarm | Ready::Nothing => {}
                }
            }
            told = self.attention.take();
            if due.is_some_and(|due| due <= Instant::now()) {
                told |= WORK;
            }
        }
    }

    /// A turn of all work; `None` where there is none.
    fn turn(&self, cx: &mut Context<'_>) -> Option<Turn> {
        let works = self.works.lock();
        let turns = works.iter().map(|work| work.turn(cx));
        turns.reduce(|one, other| Turn {
            has_written: one.has_written || other.has_written,
            due: one.due.into_iter().chain(other.due).min(),
            gather: one.gather.max(other.gather),
        })
    }

    /// On the thread itself: it is about to wait as lapin does, which `lapin` ends. `false` if it
    /// should look again instead.
    pub(super) fn park(&self, lapin: &Waker) -> bool {
        self.lapin.register(lapin);
        self.attention.go(Place::Parked)
    }

    /// On the thread itself: it has come back from where it was parked.
    pub(super) fn unpark(&self) {
        self.attention.come_back();
    }

    /// On the thread itself, at its end: its work is done elsewhere from now on.
    pub(super) fn leave(&self) {
        self.attention.leave();
        self.tell(WORK);
    }
}

/// `future`, after each poll of which the threads have lapin write what it was given.
pub(super) async fn writes_frames<F: Future>(threads: Vec<Arc<IoThread>>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let result = future.as_mut().poll(cx);
        threads.iter().for_each(|thread| thread.write_frames());
        result
    })
    .await
}

/// The waker of the work.
impl Wake for IoThread {
    fn wake(self: Arc<Self>) {
        self.tell(WORK);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.tell(WORK);
    }
}

/// Does `work` on `thread` as long as this runs. Returns why there is no more.
pub(super) async fn run(thread: Arc<IoThread>, work: impl Work + 'static) -> String {
    let task = Task::begin(thread, work);
    poll_fn(|cx| task.poll(cx)).await
}

/// Work on an I/O thread, for the task that has it. It is taken back with this.
pub(super) struct Task<W: Work + 'static>(Arc<OnIoThread<W>>);

impl<W: Work> Task<W> {
    pub(super) fn begin(thread: Arc<IoThread>, work: W) -> Self {
        let this = Arc::new(OnIoThread {
            thread,
            state: Mutex::new(State {
                work: Some(work),
                ended: None,
            }),
            task: AtomicWaker::new(),
        });
        let work = Arc::clone(&this) as Arc<dyn Turns>;
        this.thread.works.lock().push(work);
        this.thread.tell(WORK);
        Self(this)
    }

    /// Ready with the reason when the work has ended.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<String> {
        let this = &*self.0;
        this.task.register(cx.waker());
        // Behind the registration: a thread that goes later wakes the task again.
        let gone = this.thread.attention.is_gone();
        let mut state = this.state.lock();
        if let Some(reason) = &state.ended {
            return Poll::Ready(reason.clone());
        }
        match &mut state.work {
            Some(work) if gone => match work.turn(cx) {
                Ok(_) => Poll::Pending,
                Err(reason) => Poll::Ready(reason),
            },
            _ => Poll::Pending,
        }
    }

    /// Takes the work back: the thread does nothing for it any more, and where there is no other, it
    /// waits as lapin does.
    pub(super) fn take(&self) -> Option<W> {
        let this = &*self.0;
        let is_another = |work: &Arc<dyn Turns>| !std::ptr::addr_eq(Arc::as_ptr(work), this);
        // Where the thread is at it, this waits for the end of the turn.
        this.thread.works.lock().retain(is_another);
        this.thread.tell(WORK);
        this.state.lock().work.take()
    }
}

impl<W: Work> Drop for Task<W> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Work that is given to an I/O thread. When the thread is gone the task does it.
struct OnIoThread<W> {
    thread: Arc<IoThread>,
    state: Mutex<State<W>>,
    task: AtomicWaker,
}

struct State<W> {
    /// `None` once it was taken back.
    work: Option<W>,
    /// Why the work has ended.
    ended: Option<String>,
}

impl<W: Work> Turns for OnIoThread<W> {
    fn turn(&self, cx: &mut Context<'_>) -> Turn {
        let mut state = self.state.lock();
        let State { work, ended } = &mut *state;
        let (Some(work), None) = (work, &ended) else {
            return Turn::default();
        };
        // A panic would end lapin's thread in a state that lapin does not know.
        let turn = catch_unwind(AssertUnwindSafe(|| work.turn(cx)));
        let reason = match turn {
            Ok(Ok(turn)) => return turn,
            Ok(Err(reason)) => reason,
            Err(_) => "work on the I/O thread has panicked".to_owned(),
        };
        *ended = Some(reason);
        self.task.wake();
        Turn::default()
    }

    fn thread_is_gone(&self) {
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    type Step = Box<dyn FnMut() -> Result<Turn, String> + Send>;

    /// Counts its turns.
    struct Steps {
        step: Step,
        turns: mpsc::Sender<()>,
    }

    impl Work for Steps {
        fn turn(&mut self, _: &mut Context<'_>) -> Result<Turn, String> {
            let turn = (self.step)();
            let _ = self.turns.send(());
            turn
        }
    }

    /// A thread that waits for a socket until it is told to `stop`, and says why it woke.
    struct Running {
        thread: Arc<IoThread>,
        peer: UnixStream,
        stirred: mpsc::Receiver<Stirred>,
        go_on: mpsc::Sender<()>,
        handle: std::thread::JoinHandle<()>,
    }

    fn start(thread: &Arc<IoThread>) -> Running {
        let (socket, peer) = UnixStream::pair().unwrap();
        let (says, stirred) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let its = Arc::clone(thread);
        let handle = std::thread::spawn(move || {
            while let Ok(stirred) = its.work_and_wait(socket.as_fd(), false) {
                says.send(stirred).unwrap();
                if may_go_on.recv().is_err() {
                    break;
                }
            }
            its.leave();
        });
        Running {
            thread: Arc::clone(thread),
            peer,
            stirred,
            go_on,
            handle,
        }
    }

    impl Running {
        fn stirs(&self, expected: Stirred) {
            assert_eq!(self.stirred.recv(), Ok(expected));
        }

        fn goes_on(&self) {
            self.go_on.send(()).unwrap();
        }

        fn ends(self) {
            drop(self.go_on);
            self.thread.write_frames();
            self.handle.join().unwrap();
        }
    }

    fn begin(
        thread: &Arc<IoThread>,
        step: impl FnMut() -> Result<Turn, String> + Send + 'static,
    ) -> (Task<Steps>, mpsc::Receiver<()>) {
        let (turns, done) = mpsc::channel();
        let step = Box::new(step);
        let work = Task::begin(Arc::clone(thread), Steps { step, turns });
        (work, done)
    }

    #[test]
    fn the_thread_works_when_told_and_wakes_for_socket_and_frames() {
        let thread = IoThread::new().unwrap();
        let (_work, turns) = begin(&thread, || Ok(Turn::default()));
        let mut running = start(&thread);
        turns.recv().unwrap();
        Arc::clone(&thread).wake();
        turns.recv().unwrap();
        thread.write_frames();
        running.stirs(Stirred::Frames);
        running.goes_on();
        running.peer.write_all(b"x").unwrap();
        running.stirs(Stirred::Readable);
        running.ends();
    }

    #[test]
    fn what_is_due_is_done_without_anybody_saying_so() {
        let thread = IoThread::new().unwrap();
        let due = Instant::now() + Duration::from_millis(1);
        let (_work, turns) = begin(&thread, move || {
            let turn = Turn::default();
            Ok(if Instant::now() < due {
                Turn {
                    due: Some(due),
                    ..turn
                }
            } else {
                Turn {
                    has_written: true,
                    ..turn
                }
            })
        });
        let running = start(&thread);
        running.stirs(Stirred::Frames);
        assert!(Instant::now() >= due);
        assert!(turns.try_iter().count() >= 1);
        running.ends();
    }

    #[test]
    fn only_a_burst_gathers_for_a_fraction_of_its_time_and_never_longer_than_2_ms() {
        let micros = |came, may_follow| time_to_gather(came, may_follow).as_micros();
        assert_eq!(micros(IN_CROWD - 1, 10_000), 0);
        assert_eq!(micros(1000, MANY - 1), 0);
        assert_eq!(micros(IN_CROWD, MANY), 128);
        assert_eq!(micros(5, 1000), 250);
        assert_eq!(micros(256, 1000), 2000);
        assert_eq!(micros(256, 10_000), 2000);
        assert_eq!(micros(10_000_000, u64::MAX), 2000);
    }

    #[test]
    fn a_crowd_may_gather_and_is_read_then() {
        let thread = IoThread::new().unwrap();
        let gather = Duration::from_millis(1);
        let (_work, _turns) = begin(&thread, move || {
            Ok(Turn {
                gather,
                ..Turn::default()
            })
        });
        let before = Instant::now();
        let running = start(&thread);
        running.stirs(Stirred::Readable);
        assert!(before.elapsed() >= gather);
        running.ends();
    }

    #[test]
    fn after_a_while_without_anything_the_thread_is_idle_and_so_it_is_without_work() {
        let thread = IoThread::new().unwrap();
        let (work, _turns) = begin(&thread, || Ok(Turn::default()));
        let before = Instant::now();
        let running = start(&thread);
        running.stirs(Stirred::Idle);
        assert!(before.elapsed() >= LINGER);
        running.goes_on();
        assert!(work.take().is_some());
        assert!(!thread.has_work());
        running.stirs(Stirred::Idle);
        running.ends();
    }

    #[tokio::test]
    async fn work_that_ends_or_panics_tells_its_task() {
        for (reason, says) in [
            ("over", "over"),
            ("", "work on the I/O thread has panicked"),
        ] {
            let thread = IoThread::new().unwrap();
            let (work, _turns) = begin(&thread, move || {
                assert!(!reason.is_empty(), "a panic on purpose");
                Err(reason.to_owned())
            });
            let running = start(&thread);
            assert_eq!(poll_fn(|cx| work.poll(cx)).await, says);
            assert!(work.take().is_some());
            running.ends();
        }
    }

    #[tokio::test]
    async fn when_the_thread_has_gone_the_task_works() {
        let thread = IoThread::new().unwrap();
        let mut rounds = 0;
        let (work, _turns) = begin(&thread, move || {
            rounds += 1;
            if rounds < 3 {
                Ok(Turn::default())
            } else {
                Err("three".to_owned())
            }
        });
        let ends = tokio::spawn(async move { poll_fn(|cx| work.poll(cx)).await });
        thread.leave();
        // Woken for each from now on.
        while !ends.is_finished() {
            Arc::clone(&thread).wake();
            tokio::task::yield_now().await;
        }
        assert_eq!(ends.await.unwrap(), "three");
    }

    #[test]
    fn frames_that_are_told_of_in_a_crowd_are_written() {
        let thread = IoThread::new().unwrap();
        let mut turns = 0_u32;
        let (_work, _done) = begin(&thread, move || {
            turns += 1;
            Ok(Turn {
                gather: Duration::from_millis(u64::from(turns == 1)),
                ..Turn::default()
            })
        });
        thread.write_frames();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let stirred = thread.work_and_wait(socket.as_fd(), false).unwrap();
        assert_eq!(stirred, Stirred::Frames);
    }

    #[tokio::test]
    async fn work_that_has_ended_is_not_done_again() {
        let thread = IoThread::new().unwrap();
        let (work, turns) = begin(&thread, || Err("over".to_owned()));
        let (socket, _peer) = UnixStream::pair().unwrap();
        let its = Arc::clone(&thread);
        let other = std::thread::spawn(move || its.work_and_wait(socket.as_fd(), false));
        assert_eq!(poll_fn(|cx| work.poll(cx)).await, "over");
        // Its task has heard of it and not taken it back yet.
        Arc::clone(&thread).wake();
        other.join().unwrap().unwrap();
        assert_eq!(turns.try_iter().count(), 1);
    }

    #[tokio::test]
    async fn a_task_that_is_ended_takes_its_work_back() {
        let thread = IoThread::new().unwrap();
        let (turns, _done) = mpsc::channel();
        let step = Box::new(|| Ok(Turn::default()));
        let task = tokio::spawn(run(Arc::clone(&thread), Steps { step, turns }));
        while !thread.has_work() {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.is_err());
        assert!(!thread.has_work());
        assert_eq!(Arc::strong_count(&thread), 1);
    }
}
