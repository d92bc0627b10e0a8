//! What the process shares and what the OS is asked for: one tokio runtime, threads with their
//! names and signal masks, fork detection, the descriptor that an event loop watches, and a wait for
//! a socket.

#![allow(
    unsafe_code,
    reason = "signal masks, fork handlers, eventfd and poll have no safe form in std"
)]

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::sync::{Condvar, Mutex};

/// How long the end of the last layer waits for the runtime's threads.
const SHUTDOWN: Duration = Duration::from_secs(1);

static FORKS: AtomicU64 = AtomicU64::new(0);

/// Forks are counted from here on.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Has the loader call [`watch_forks`]: before the host can have a thread that uses the library
/// while another forks.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = watch_forks;

/// How many forks are under way, and how many calls that none may come into.
static FORKING: AtomicU64 = AtomicU64::new(0);
static SHIELDED: AtomicU64 = AtomicU64::new(0);

/// How long a fork waits for such a call, each of which takes microseconds.
const FORK_WAITS: u32 = 100;
const A_MOMENT: Duration = Duration::from_millis(1);

/// Calls `body` while this process does not fork: in the child, a lock of the system's that another
/// thread held at that moment would stay locked for ever.
pub(crate) fn without_forks<R>(body: impl FnOnce() -> R) -> R {
    watch_forks();
    loop {
        SHIELDED.fetch_add(1, Ordering::SeqCst);
        if FORKING.load(Ordering::SeqCst) == 0 {
            break;
        }
        SHIELDED.fetch_sub(1, Ordering::SeqCst);
        std::thread::sleep(A_MOMENT);
    }
    let result = body();
    SHIELDED.fetch_sub(1, Ordering::SeqCst);
    result
}

extern "C" fn watch_forks() {
    extern "C" fn before() {
        FORKING.fetch_add(1, Ordering::SeqCst);
        // Not for ever: the thread that forks may itself hold what such a call waits for, as in a
        // constructor that the loader runs.
        for _ in 0..FORK_WAITS {
            if SHIELDED.load(Ordering::SeqCst) == 0 {
                break;
            }
            std::thread::sleep(A_MOMENT);
        }
    }
    extern "C" fn in_parent() {
        FORKING.fetch_sub(1, Ordering::SeqCst);
    }
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // Other threads, and what they were about, are not here.
        FORKING.store(0, Ordering::SeqCst);
        SHIELDED.store(0, Ordering::SeqCst);
    }
    if !WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handlers only change atomics and sleep, which is allowed in a forked child
        // too, and the library is linked so that it is never unloaded.
        let refused =
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        debug_assert_eq!(refused, 0, "pthread_atfork fails only without memory");
        WATCHED.store(true, Ordering::Release);
    }
}

/// How many forks lie between the first process that used the library and this one. A number that
/// has changed says that what was made before belongs to a parent. Costs no system call.
pub(crate) fn process_generation() -> u64 {
    // For a program whose linker has left `AT_LOAD` out of the static library. No once-cell: a
    // child that is forked while another thread fills it would wait for ever. Two threads may both
    // come by here, and a fork then counts twice, which is a change as well.
    watch_forks();
    FORKS.load(Ordering::Relaxed)
}

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

/// A value of the process that a forked child sees fresh.
///
/// The parent's value may be in any state when it forks, its locks held by threads that the child
/// does not have. So the child never touches it, and leaks it.
pub(crate) struct ProcessLocal<T>(AtomicPtr<Slot<T>>);

struct Slot<T> {
    generation: u64,
    value: T,
}

impl<T: Default + Send + Sync> ProcessLocal<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Calls `body` with this process's value.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let generation = process_generation();
        let mut current = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: the pointer is NULL or came from `Box::into_raw` below and is never freed.
            match unsafe { current.as_ref() } {
                Some(slot) if slot.generation == generation => return body(&slot.value),
                _ => {}
            }
            let fresh = Box::into_raw(Box::new(Slot {
                generation,
                value: T::default(),
            }));
            match self
                .0
                .compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => current = fresh,
                Err(winner) => {
                    // SAFETY: `fresh` came from `Box::into_raw` and nobody else has seen it.
                    drop(unsafe { Box::from_raw(fresh) });
                    current = winner;
                }
            }
        }
    }
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

/// A descriptor that is readable between `raise` and `lower`.
///
/// The host program gets a duplicate, and may close it by mistake: event loops close what they were
/// given. The number may then be that of another file. So nothing is read, written or closed by that
/// number unless it still is the event fd.
#[derive(Debug)]
pub(crate) struct EventFd {
    /// Never handed out.
    own: OwnedFd,
    /// The number that the host program watches; -1 once it is retired.
    shown: AtomicI32,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed, and a descriptor that comes back is ours alone.
        let descriptor = unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        let shown = descriptor.try_clone()?;
        Ok(Self {
            own: descriptor,
            shown: AtomicI32::new(shown.into_raw_fd()),
        })
    }

    pub(crate) fn raise(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the buffer holds the eight bytes that are written. The only failure is a full
        // counter, and then the descriptor is readable already.
        unsafe { libc::write(self.own.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn lower(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has room for the eight bytes that are read. The only failure is an
        // empty counter, and then the descriptor is not readable already.
        unsafe { libc::read(self.own.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The descriptor to be watched. The host program may use it, and not close it.
    pub(crate) fn raw(&self) -> RawFd {
        self.shown.load(Ordering::Relaxed)
    }

    /// Another descriptor for the same, which the caller owns.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.own.try_clone()
    }

    /// Whether `raw` still is this event fd, and not closed or another file.
    ///
    /// All event fds share one inode, and `kcmp` and `/proc` are not everywhere. But duplicates
    /// share their status flags, so that a flag that is set on one is seen on the other. `O_APPEND`
    /// means nothing to an event fd. Twice, in case another layer tries its own at the same time.
    pub(crate) fn is_intact(&self) -> bool {
        let shown = self.raw();
        // SAFETY: no pointer is passed, and to read the flags of any number changes nothing.
        let flags = |descriptor| unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
        let own = self.own.as_raw_fd();
        let before = flags(own);
        let follows = |wanted: libc::c_int| {
            // SAFETY: no pointer is passed, and the descriptor is ours.
            let set = unsafe { libc::fcntl(own, libc::F_SETFL, wanted) };
            let seen = flags(shown);
            set == 0 && seen >= 0 && (seen ^ wanted) & libc::O_APPEND == 0
        };
        if before < 0 {
            return false;
        }
        let with_flag = before | libc::O_APPEND;
        let mut intact = true;
        // All of them, so that the flags are in the end what they were.
        for wanted in [with_flag, before, with_flag, before] {
            intact &= follows(wanted);
        }
        intact
    }

    /// Closes `raw`, unless that is another file by now.
    pub(crate) fn retire(&self) {
        let intact = self.is_intact();
        let shown = self.shown.swap(-1, Ordering::Relaxed);
        if intact && shown >= 0 {
            // SAFETY: it is our duplicate, and nobody will take it from `shown` any more.
            drop(unsafe { OwnedFd::from_raw_fd(shown) });
        }
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        self.retire();
    }
}

/// What a wait for a socket ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The socket has data, or its end or an error, which a read returns.
    Readable,
    Writable,
    /// The alarm was raised, and is lowered again; or a signal came.
    Alarm,
    /// The time is over.
    Nothing,
}

/// Waits until `socket` is readable, or writable too if `wants_write`, or `alarm` is raised, for
/// `timeout` at the longest.
pub(crate) fn wait_for_socket(
    socket: BorrowedFd<'_>,
    wants_write: bool,
    alarm: &EventFd,
    timeout: Duration,
) -> io::Result<Ready> {
    let watch = |fd, events| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let writable = if wants_write { libc::POLLOUT } else { 0 };
    let mut watched = [
        watch(socket.as_raw_fd(), libc::POLLIN | writable),
        watch(alarm.raw(), libc::POLLIN),
    ];
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        // Below a thousand million, which any `long` holds.
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: two valid pollfds, a valid time, and no signal mask.
    let ready = unsafe { libc::ppoll(watched.as_mut_ptr(), 2, &raw const timeout, ptr::null()) };
    if ready < 0 {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(Ready::Alarm),
            error => Err(error),
        };
    }
    let [socket, alarm_rang] = watched.map(|watched| watched.revents);
    if alarm_rang != 0 {
        alarm.lower();
    }
    // An error or a hang-up is reported whether it was asked for or not.
    Ok(if socket & !libc::POLLOUT != 0 {
        Ready::Readable
    } else if socket != 0 {
        Ready::Writable
    } else if alarm_rang != 0 {
        Ready::Alarm
    } else {
        Ready::Nothing
    })
}

/// Runs `body` in a forked child, as the only thread of it; whether it returned `true` there.
#[cfg(test)]
pub(crate) fn in_forked_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `body` and ends, without the destructors of its parent.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that hangs is ended by the signal.
        unsafe { libc::alarm(20) };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends this process.
        unsafe { libc::_exit(i32::from(!matches!(outcome, Ok(true)))) };
    }
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    (ended, status) == (child, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_waited_for_with_its_alarm() {
        use std::io::Write;
        use std::os::fd::AsFd;
        use std::os::unix::net::UnixStream;

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let alarm = EventFd::new().unwrap();
        let minute = Duration::from_secs(60);
        let wait = |wants_write, timeout| {
            wait_for_socket(ours.as_fd(), wants_write, &alarm, timeout).unwrap()
        };
        assert_eq!(wait(false, Duration::ZERO), Ready::Nothing);
        assert_eq!(wait(true, minute), Ready::Writable);
        alarm.raise();
        assert_eq!(wait(false, minute), Ready::Alarm);
        assert_eq!(wait(false, Duration::ZERO), Ready::Nothing);
        theirs.write_all(b"x").unwrap();
        alarm.raise();
        assert_eq!(wait(true, minute), Ready::Readable);
        drop(theirs);
        assert_eq!(wait(false, minute), Ready::Readable);
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

    fn readable(fd: &EventFd) -> bool {
        let mut poll = libc::pollfd {
            fd: fd.raw(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn event_fd_is_readable_between_raise_and_lower() {
        let fd = EventFd::new().unwrap();
        assert!(!readable(&fd));
        fd.raise();
        fd.raise();
        assert!(readable(&fd));
        fd.lower();
        assert!(!readable(&fd));
        fd.lower();
        assert!(!readable(&fd));
    }

    #[test]
    fn a_duplicate_outlives_the_event_fd() {
        let fd = EventFd::new().unwrap();
        let duplicate = fd.duplicate().unwrap();
        fd.raise();
        drop(fd);
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has room for the eight bytes that are read.
        let read = unsafe {
            libc::read(
                duplicate.as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
        assert_eq!((read, u64::from_ne_bytes(count)), (8, 1));
    }

    /// Puts another file in the place of what `fd` shows, in one step.
    fn replace(fd: &EventFd, file: &impl AsRawFd) {
        // SAFETY: no pointer is passed; both descriptors are open.
        let replaced = unsafe { libc::dup3(file.as_raw_fd(), fd.raw(), libc::O_CLOEXEC) };
        assert_eq!(replaced, fd.raw());
    }

    fn is_open(descriptor: RawFd) -> bool {
        // SAFETY: no pointer is passed.
        unsafe { libc::fcntl(descriptor, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn a_file_that_took_the_number_of_the_event_fd_is_neither_written_nor_closed() {
        use std::io::Read;
        let fd = EventFd::new().unwrap();
        assert!(fd.is_intact());
        let (mut reader, writer) = io::pipe().unwrap();
        replace(&fd, &writer);
        drop(writer);
        assert!(!fd.is_intact());
        fd.raise();
        fd.lower();
        let number = fd.raw();
        fd.retire();
        assert_eq!(fd.raw(), -1);
        assert!(is_open(number));
        // SAFETY: `replace` made it, and nothing else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        let mut written = Vec::new();
        assert_eq!(reader.read_to_end(&mut written).unwrap(), 0);
    }

    #[test]
    fn another_event_fd_with_the_number_is_not_taken_for_it() {
        let (fd, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let duplicate = other.duplicate().unwrap();
        replace(&fd, &duplicate);
        assert!(!fd.is_intact());
        let number = fd.raw();
        drop(fd);
        assert!(is_open(number));
        // SAFETY: `replace` made it, and nothing else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        assert!(other.is_intact());
    }

    #[test]
    fn our_threads_take_no_signal_of_the_host_and_the_callers_mask_stays() {
        let mask = || {
            let mut set = MaybeUninit::zeroed();
            // SAFETY: as in `set_mask`; a NULL new set only reads.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr());
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
    fn forks_are_watched_from_the_time_of_loading() {
        // Each test has its process with nextest; else another may have been here before.
        assert!(WATCHED.load(Ordering::Acquire));
        assert!(in_forked_child(|| FORKS.load(Ordering::Relaxed) == 1));
        assert!(!in_forked_child(|| FORKS.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_process_shares_one_runtime_while_it_is_used() {
        let first = Runtime::acquire().unwrap();
        let second = Runtime::acquire().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_process_local_value_is_made_once() {
        static VALUE: ProcessLocal<AtomicU64> = ProcessLocal::new();
        VALUE.with(|value| value.fetch_add(1, Ordering::Relaxed));
        assert_eq!(VALUE.with(|value| value.load(Ordering::Relaxed)), 1);
    }
}
