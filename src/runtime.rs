//! What the process shares and what the OS is asked for: one tokio runtime, threads with their
//! names and signal masks, a clock, and a wait for a socket; forks, event fds and other copies of the
//! library have a file each.

#![allow(
    unsafe_code,
    reason = "signal masks, fork handlers, eventfd, poll and the loader have no safe form in std"
)]

mod cancellation;
pub(crate) mod copies;
mod event_fd;
mod forks;
mod timer_fd;

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub(crate) use self::cancellation::NotCancelled;
pub(crate) use self::event_fd::{EventFd, WatchedFd};
#[cfg(test)]
pub(crate) use self::forks::in_forked_child;
pub(crate) use self::forks::{ProcessLocal, process_generation};
pub(crate) use self::timer_fd::TimerFd;
use crate::error::{Error, ErrorKind};
use crate::sync::{Condvar, Mutex};

/// How long the end of the last layer waits for the runtime's threads.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// A clock for what is asked at every message: it costs a fraction of `Instant::now`, since it only
/// reads what the system's tick has written, and so it is off by up to one tick (1 to 10 ms).
#[derive(Debug)]
pub(crate) struct TickClock {
    start: Instant,
    start_tick: Duration,
    /// The last tick that was read, and its time.
    last_tick: Duration,
    last: Instant,
}

impl TickClock {
    pub(crate) fn new() -> Self {
        let (start, start_tick) = (Instant::now(), last_tick());
        Self {
            start,
            start_tick,
            last_tick: start_tick,
            last: start,
        }
    }

    /// The time at the last tick.
    pub(crate) fn now(&mut self) -> Instant {
        let tick = last_tick();
        if tick != self.last_tick {
            self.last_tick = tick;
            self.last = self.start + tick.saturating_sub(self.start_tick);
        }
        self.last
    }
}

fn last_tick() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` is writable and all zeros is a timespec, which it stays where the call fails.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr());
        time.assume_init()
    };
    // The system gives neither a negative time nor a second of nanoseconds.
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// The tokio runtime of this process, alive as long as a layer holds it: one thread, which sleeps
/// in the system's poll.
///
/// Its tasks only hand batches over. A second worker was measured to cost a third more processor
/// time and ten times the worst latencies: whenever one has something to do, it wakes the other to
/// see whether there is more.
#[derive(Debug)]
pub(crate) struct Runtime {
    handle: tokio::runtime::Handle,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<Infallible>>,
    stage: Arc<StageOfThread>,
    thread: Option<JoinHandle<()>>,
}

/// How far the thread of a runtime has come. No channel of std: that would leave a record of the
/// host's thread behind, which leak checkers find.
#[derive(Debug, Default)]
struct StageOfThread {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Starting,
    /// It runs, or could not; `None` once somebody has heard of it.
    Begun(Option<io::Result<tokio::runtime::Handle>>),
    /// It is in its last lines.
    Ended,
}

impl StageOfThread {
    fn set(&self, stage: Stage) {
        *self.stage.lock() = stage;
        self.changed.notify_all();
    }

    /// Waits until it runs.
    fn begun(&self) -> io::Result<tokio::runtime::Handle> {
        let mut stage = self.stage.lock();
        loop {
            match &mut *stage {
                Stage::Starting => self.changed.wait(&mut stage),
                Stage::Begun(handle) => {
                    return handle
                        .take()
                        .unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
                }
                Stage::Ended => return Err(io::ErrorKind::Other.into()),
            }
        }
    }

    /// Waits until it has ended, and says whether it has by `deadline`.
    fn ended(&self, deadline: Instant) -> bool {
        let mut stage = self.stage.lock();
        while !matches!(*stage, Stage::Ended) {
            if self.changed.wait_until(&mut stage, deadline).timed_out() {
                break;
            }
        }
        matches!(*stage, Stage::Ended)
    }
}

static SHARED: ProcessLocal<Mutex<Weak<Runtime>>> = ProcessLocal::new();

impl Runtime {
    /// The runtime of this process, started if there is none.
    pub(crate) fn acquire() -> Result<Arc<Self>, Error> {
        SHARED.with(|shared| {
            let mut shared = shared.lock();
            if let Some(runtime) = shared.upgrade() {
                return Ok(runtime);
            }
            let runtime = Arc::new(Self::start().map_err(|error| {
                Error::new(
                    ErrorKind::Internal,
                    "the system gives no thread for the runtime",
                )
                .caused_by(error)
            })?);
            *shared = Arc::downgrade(&runtime);
            Ok(runtime)
        })
    }

    fn start() -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let stage = Arc::new(StageOfThread::default());
        let its_stage = Arc::clone(&stage);
        let thread = spawn_thread("layer-runtime".to_owned(), move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                // A thread of the blocking pool is started by whoever needs it first.
                .on_thread_start(block_signals_for_good)
                .thread_name("layer-blocking")
                .enable_io()
                .enable_time()
                .build();
            match tokio {
                Ok(tokio) => {
                    its_stage.set(Stage::Begun(Some(Ok(tokio.handle().clone()))));
                    // Nothing is ever sent: it ends when the sender is gone.
                    let _: Result<Infallible, _> = tokio.block_on(stopped);
                    tokio.shutdown_timeout(SHUTDOWN);
                    its_stage.set(Stage::Ended);
                }
                Err(error) => its_stage.set(Stage::Begun(Some(Err(error)))),
            }
        })?;
        Ok(Self {
            handle: stage.begun()?,
            stop: Some(stop),
            stage,
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread of the runtime cannot wait for itself.
        if tokio::runtime::Handle::try_current().is_ok() {
            return;
        }
        if self.stage.ended(Instant::now() + SHUTDOWN * 2)
            && let Some(thread) = self.thread.take()
        {
            // A task that panicked has told its own waiter.
            let _ = thread.join();
        }
    }
}

/// Starts a thread that no signal of the host is delivered to.
pub(crate) fn spawn_thread<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let _quiet = SignalsBlocked::new();
    Builder::new().name(name).spawn(body)
}

/// Blocks signals of the calling thread while it lives, for a thread inherits the mask of the one
/// that starts it: so there is no moment at which the new thread could take one.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> Self {
        Self {
            before: set_mask(&host_signals()),
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        set_mask(&self.before);
    }
}

fn block_signals_for_good() {
    set_mask(&host_signals());
}

/// All signals but those that a fault of the thread itself raises, and the profiler's.
fn host_signals() -> libc::sigset_t {
    const OURS: [libc::c_int; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGPROF,
    ];
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` fills the whole set, and `sigdelset` takes valid signal numbers.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in OURS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Sets the mask of this thread and returns the one before.
fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: both pointers lead to signal sets; a set of zeros is a valid, empty one.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, before.as_mut_ptr());
        before.assume_init()
    }
}

/// Reads at most `most` bytes behind what is in `buffer`, into room that it has already.
pub(crate) fn receive_into(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    most: usize,
) -> io::Result<usize> {
    let len = buffer.len();
    let room = buffer.spare_capacity_mut();
    let most = most.min(room.len());
    // SAFETY: the descriptor is a socket's, and the room has as many bytes as may be written.
    let count = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), most, 0) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: so many bytes behind the former ones were written, within the capacity.
    unsafe { buffer.set_len(len + count) };
    Ok(count)
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// It has data, or its end or an error, which a read returns.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// Sleeps until `socket` is ready for reads or writes, as far as these are waited for, or `alarm` was
/// raised, or `timer` is over, or a signal came.
pub(crate) fn wait_for_socket(
    socket: BorrowedFd<'_>,
    (reads, writes): (bool, bool),
    alarm: &EventFd,
    timer: &TimerFd,
) -> Ready {
    let watch = |fd, events| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let readable = if reads { libc::POLLIN } else { 0 };
    let writable = if writes { libc::POLLOUT } else { 0 };
    let mut watched = [
        watch(socket.as_raw_fd(), readable | writable),
        watch(alarm.raw(), libc::POLLIN),
        watch(timer.raw(), libc::POLLIN),
    ];
    // SAFETY: three valid pollfds. The only failures are a signal and a lack of memory: both are
    // answered by looking again.
    let count = unsafe { libc::poll(watched.as_mut_ptr(), 3, -1) };
    if count <= 0 {
        return Ready::default();
    }
    let [socket, alarm_rang, time_is_over] = watched.map(|watched| watched.revents);
    if alarm_rang != 0 {
        alarm.lower();
    }
    if time_is_over != 0 {
        timer.lower();
    }
    // An error or a hang-up is reported whether it was asked for or not.
    Ready {
        readable: socket & !libc::POLLOUT != 0,
        writable: socket & libc::POLLOUT != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_goes_behind_what_is_there_and_into_its_room_alone() {
        use std::io::Write;
        use std::os::fd::AsFd;
        use std::os::unix::net::UnixStream;

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"0123456789").unwrap();
        let mut buffer = Vec::with_capacity(8);
        buffer.extend_from_slice(b"ab");
        let receive = |buffer: &mut Vec<u8>, most| receive_into(ours.as_fd(), buffer, most);
        assert_eq!(receive(&mut buffer, 4).unwrap(), 4);
        let room = buffer.capacity() - buffer.len();
        assert_eq!(receive(&mut buffer, 100).unwrap(), room.min(6));
        assert!(b"ab0123456789".starts_with(&buffer));
        drop(theirs);
        buffer.clear();
        while receive(&mut buffer, 1).unwrap() > 0 {}
        ours.set_nonblocking(true).unwrap();
        drop(ours);
    }

    #[test]
    fn a_wait_ends_for_the_socket_the_alarm_and_the_timer() {
        use std::io::Write;
        use std::os::fd::AsFd;
        use std::os::unix::net::UnixStream;

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (alarm, timer) = (EventFd::new().unwrap(), TimerFd::new().unwrap());
        let wait = |reads, writes| wait_for_socket(ours.as_fd(), (reads, writes), &alarm, &timer);
        let ready = |readable, writable| Ready { readable, writable };
        assert_eq!(wait(true, true), ready(false, true));
        // Each is over by itself, and lowered again: the next wait is for the timer alone.
        alarm.raise();
        assert_eq!(wait(true, false), ready(false, false));
        timer.arm(Duration::from_millis(1));
        assert_eq!(wait(true, false), ready(false, false));
        theirs.write_all(b"x").unwrap();
        assert_eq!(wait(true, false), ready(true, false));
        assert_eq!(wait(true, true), ready(true, true));
        timer.arm(Duration::from_millis(1));
        assert_eq!(wait(false, false), ready(false, false));
        drop(theirs);
        assert!(wait(false, false).readable, "an end is told in any case");
    }

    #[test]
    fn the_clock_of_ticks_is_off_by_ticks_alone() {
        let mut clock = TickClock::new();
        // A tick may come between the two readings, so they are taken until none has.
        let close = (0..1000).any(|_| {
            let now = clock.now();
            let exact = Instant::now();
            assert!(now <= exact + Duration::from_millis(10));
            exact.saturating_duration_since(now) <= Duration::from_millis(20)
        });
        assert!(close);
    }

    #[test]
    fn our_threads_take_no_signal_of_the_host_and_the_callers_mask_stays() {
        let mask = || {
            let mut set = MaybeUninit::zeroed();
            // SAFETY: as in `set_mask`; a NULL new set only reads.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), set.as_mut_ptr());
                set.assume_init()
            }
        };
        // SAFETY: a valid set and valid numbers.
        let has = |set: &libc::sigset_t, signal| unsafe { libc::sigismember(set, signal) == 1 };

        let before = mask();
        let inside = spawn_thread("test".to_owned(), mask)
            .unwrap()
            .join()
            .unwrap();
        let after = mask();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGPIPE, libc::SIGUSR1] {
            assert!(has(&inside, signal), "signal {signal} reaches our thread");
            assert_eq!(has(&before, signal), has(&after, signal));
        }
        assert!(!has(&inside, libc::SIGPROF));
        assert!(!has(&inside, libc::SIGSEGV));
    }

    #[test]
    fn a_process_shares_one_runtime_while_it_is_used() {
        let first = Runtime::acquire().unwrap();
        let second = Runtime::acquire().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }
}
