//! Who runs callbacks: threads of ours, or whoever calls `poll`. It knows what is due only as jobs,
//! and never holds its lock while one runs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::runtime::{WatchedFd, process_generation, spawn_thread};
use crate::sync::{Condvar, Mutex};

thread_local! {
    /// How many callbacks this thread is inside of, and the process that this is said of: a child
    /// that a callback forks is inside none of its own.
    static CALLBACKS: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Marks this thread as inside a callback while it lives.
pub(crate) struct InCallback {
    outside: (u64, usize),
}

/// Call it around each call of user code.
pub(crate) fn enter_callback() -> InCallback {
    let here = process_generation();
    CALLBACKS.with(|callbacks| {
        let outside = callbacks.get();
        let depth = if outside.0 == here { outside.1 } else { 0 };
        callbacks.set((here, depth + 1));
        InCallback { outside }
    })
}

/// Whether this thread is inside a callback of any layer, so that it must not wait.
pub(crate) fn in_callback() -> bool {
    let (process, depth) = CALLBACKS.with(Cell::get);
    depth > 0 && process == process_generation()
}

impl Drop for InCallback {
    fn drop(&mut self) {
        CALLBACKS.with(|callbacks| callbacks.set(self.outside));
    }
}

/// What a dispatcher runs.
pub(crate) trait Runner: Send + Sync + 'static {
    /// Something that is due. It stands for any number of callbacks.
    type Job: Send + 'static;

    /// Runs the jobs of `turn` in order.
    fn run(&self, turn: &mut Turn<Self::Job>);
}

/// Callbacks that one job may run before the next job has its turn.
const TURN: usize = 32;

/// What one thread runs before it looks at the queue again.
pub(crate) struct Turn<J> {
    jobs: VecDeque<J>,
    /// What is due again.
    again: Vec<J>,
    /// Callbacks that may run, and how many have.
    budget: usize,
    ran: usize,
}

impl<J> Turn<J> {
    fn new(budget: usize) -> Self {
        Self {
            jobs: VecDeque::new(),
            again: Vec::new(),
            budget,
            ran: 0,
        }
    }

    /// The next job, and how many callbacks it may run. Never 0.
    pub(crate) fn next(&mut self) -> Option<(J, usize)> {
        let left = self.budget - self.ran;
        if left == 0 {
            return None;
        }
        Some((self.jobs.pop_front()?, left.min(TURN)))
    }

    /// How many callbacks have run so far.
    pub(crate) fn callbacks(&self) -> usize {
        self.ran
    }

    /// The last job has run so many callbacks. `again`: what is still due of it.
    pub(crate) fn ran(&mut self, count: usize, again: Option<J>) {
        self.ran += count;
        self.again.extend(again);
    }
}

/// The queue of what is due.
pub(crate) struct Dispatcher<J> {
    due: Mutex<Due<J>>,
    /// Something is due, or it is stopping: for whoever runs callbacks.
    changed: Condvar,
    /// Nothing is due or runs, or a thread has ended: for whoever waits for that. Apart, or the
    /// news of one job could go to a thread that does not run it.
    quiet: Condvar,
    event: Option<WatchedFd>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Due<J> {
    jobs: VecDeque<J>,
    /// Turns that run.
    running: usize,
    waiting: usize,
    stopping: bool,
    /// Jobs that will come after `stopping`, or that have come and have not run.
    promised: usize,
    threads_left: usize,
}

impl<J> Due<J> {
    /// Nothing comes any more, and nothing runs that another thread has taken.
    fn has_ended(&self) -> bool {
        self.stopping && self.promised == 0 && self.running == 0 && self.jobs.is_empty()
    }
}

impl<J: Send + 'static> Dispatcher<J> {
    /// For `poll` and its descriptor, or else for `start`.
    pub(crate) fn new(polled: bool) -> Result<Self, Error> {
        Ok(Self {
            due: Mutex::new(Due {
                jobs: VecDeque::new(),
                running: 0,
                waiting: 0,
                stopping: false,
                promised: 0,
                threads_left: 0,
            }),
            changed: Condvar::new(),
            quiet: Condvar::new(),
            event: polled.then(WatchedFd::new).transpose().map_err(|error| {
                Error::new(
                    ErrorKind::Internal,
                    "the system gives no descriptor for option 'dispatch=poll'",
                )
                .caused_by(error)
            })?,
            threads: Mutex::new(Vec::new()),
        })
    }

    /// Starts `count` threads that run what is due until `stop`.
    pub(crate) fn start<R: Runner<Job = J>>(
        self: &Arc<Self>,
        count: usize,
        runner: &Arc<R>,
    ) -> Result<(), Error> {
        for number in 1..=count {
            self.due.lock().threads_left += 1;
            let (dispatcher, runner) = (Arc::clone(self), Arc::clone(runner));
            match spawn_thread(format!("layer-call-{number}"), move || {
                dispatcher.run_until_stopped(&*runner, count == 1);
            }) {
                Ok(thread) => self.threads.lock().push(thread),
                Err(error) => {
                    self.due.lock().threads_left -= 1;
                    self.stop();
                    return Err(Error::new(
                        ErrorKind::Internal,
                        format!("the system gives no thread number {number} for callbacks"),
                    )
                    .caused_by(error));
                }
            }
        }
        Ok(())
    }

    /// The descriptor that is readable while something is due.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.event.as_ref().map(WatchedFd::raw)
    }

    /// A duplicate of it, which the caller owns.
    pub(crate) fn fd_duplicate(&self) -> Option<io::Result<OwnedFd>> {
        self.event.as_ref().map(WatchedFd::duplicate)
    }

    /// Where the descriptor is closed, or its number another file's: that number.
    pub(crate) fn lost_fd(&self) -> Option<RawFd> {
        let event = self.event.as_ref().filter(|event| !event.is_intact())?;
        Some(event.raw())
    }

    /// Closes the descriptor; the host program uses it no more.
    pub(crate) fn retire_fd(&self) {
        if let Some(event) = &self.event {
            event.retire();
        }
    }

    pub(crate) fn polled(&self) -> bool {
        self.event.is_some()
    }

    pub(crate) fn push(&self, job: J) {
        self.push_all(std::iter::once(job));
    }

    pub(crate) fn push_all(&self, jobs: impl IntoIterator<Item = J>) {
        let mut due = self.due.lock();
        let added = self.add(&mut due, jobs);
        let wake = added.min(due.waiting);
        drop(due);
        for _ in 0..wake {
            self.changed.notify_one();
        }
    }

    fn add(&self, due: &mut Due<J>, jobs: impl IntoIterator<Item = J>) -> usize {
        let before = due.jobs.len();
        due.jobs.extend(jobs);
        let added = due.jobs.len() - before;
        if before == 0
            && added > 0
            && let Some(event) = &self.event
        {
            event.raise();
        }
        added
    }

    /// Moves one job to an empty turn; whether there was one.
    fn take_one(&self, due: &mut Due<J>, turn: &mut Turn<J>) -> bool {
        let Some(job) = due.jobs.pop_front() else {
            return false;
        };
        if due.jobs.is_empty()
            && let Some(event) = &self.event
        {
            event.lower();
        }
        turn.jobs.push_back(job);
        due.running += 1;
        true
    }

    /// Moves all jobs to an empty turn; whether there were any.
    fn take_all(due: &mut Due<J>, turn: &mut Turn<J>) -> bool {
        std::mem::swap(&mut due.jobs, &mut turn.jobs);
        let any = !turn.jobs.is_empty();
        due.running += usize::from(any);
        any
    }

    /// Notes that a turn has run; says whether nothing is due or runs any more.
    fn finish(&self, due: &mut Due<J>, turn: &mut Turn<J>) -> bool {
        // In one step, or whoever waits for the end would see a moment without work.
        due.running -= 1;
        self.add(due, turn.again.drain(..));
        due.running == 0 && due.jobs.is_empty()
    }

    /// Runs the one job that was taken; says how many callbacks ran.
    fn run_one<R: Runner<Job = J>>(&self, runner: &R, mut turn: Turn<J>) -> usize {
        runner.run(&mut turn);
        let more = !turn.again.is_empty();
        let mut due = self.due.lock();
        let idle = self.finish(&mut due, &mut turn);
        let wake = more && due.waiting > 0;
        let ended = due.has_ended();
        drop(due);
        if idle {
            self.quiet.notify_all();
        }
        if ended {
            self.changed.notify_all();
        } else if wake && !idle {
            self.changed.notify_one();
        }
        turn.ran
    }

    /// What one of our threads does. `alone`: nobody else could run any of what it takes.
    fn run_until_stopped<R: Runner<Job = J>>(&self, runner: &R, alone: bool) {
        let mut turn = Turn::new(usize::MAX);
        let mut due = self.due.lock();
        loop {
            let any = if alone {
                Self::take_all(&mut due, &mut turn)
            } else {
                self.take_one(&mut due, &mut turn)
            };
            if any {
                drop(due);
                runner.run(&mut turn);
                turn.ran = 0;
                // The lock of the end is that of the next beginning. What is due again needs no
                // other thread woken: this one goes on.
                due = self.due.lock();
                if self.finish(&mut due, &mut turn) {
                    self.quiet.notify_all();
                }
            } else if due.stopping {
                break;
            } else {
                due.waiting += 1;
                self.changed.wait(&mut due);
                due.waiting -= 1;
            }
        }
        due.threads_left -= 1;
        drop(due);
        self.quiet.notify_all();
    }

    /// Runs what is due on this thread: at most `max` callbacks, or with 0 as many as are due when
    /// it begins. Waits up to `timeout` for the first.
    pub(crate) fn poll<R: Runner<Job = J>>(
        &self,
        runner: &R,
        max: usize,
        timeout: Duration,
    ) -> usize {
        let deadline = Instant::now().checked_add(timeout);
        let mut ran = 0;
        let mut jobs_left = None;
        loop {
            let mut due = self.due.lock();
            while due.jobs.is_empty() && ran == 0 && !due.has_ended() {
                due.waiting += 1;
                let timed_out = match deadline {
                    Some(deadline) => self.changed.wait_until(&mut due, deadline).timed_out(),
                    None => {
                        self.changed.wait(&mut due);
                        false
                    }
                };
                due.waiting -= 1;
                if timed_out {
                    break;
                }
            }
            let jobs_left = jobs_left.get_or_insert(due.jobs.len());
            // Not before one ran, or 0 would not say that nothing is due, and a loop that watches
            // edges would wait for one that does not come.
            if max == 0 && *jobs_left == 0 && ran > 0 {
                return ran;
            }
            *jobs_left = jobs_left.saturating_sub(1);
            let mut turn = Turn::new(if max == 0 { usize::MAX } else { max - ran });
            if !self.take_one(&mut due, &mut turn) {
                return ran;
            }
            drop(due);
            ran += self.run_one(runner, turn);
            if max != 0 && ran >= max {
                return ran;
            }
        }
    }

    /// Runs everything that is due and becomes due meanwhile, on this thread.
    pub(crate) fn drain<R: Runner<Job = J>>(&self, runner: &R, deadline: Instant) {
        loop {
            let mut turn = Turn::new(usize::MAX);
            if !self.take_one(&mut self.due.lock(), &mut turn) {
                return;
            }
            self.run_one(runner, turn);
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Waits until nothing is due and nothing runs; `false` if that was not so by `deadline`.
    pub(crate) fn wait_idle(&self, deadline: Instant) -> bool {
        let mut due = self.due.lock();
        while due.running > 0 || !due.jobs.is_empty() {
            if self.quiet.wait_until(&mut due, deadline).timed_out() {
                return due.running == 0 && due.jobs.is_empty();
            }
        }
        true
    }

    /// Whether something is due or runs.
    pub(crate) fn busy(&self) -> bool {
        let due = self.due.lock();
        due.running > 0 || !due.jobs.is_empty()
    }

    /// Lets the threads end once nothing is due, and wakes those who wait in `poll`, unless something
    /// was promised.
    pub(crate) fn stop(&self) {
        self.due.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Whether it was stopped and no promise is left: `poll` has nothing to wait for.
    pub(crate) fn has_ended(&self) -> bool {
        self.due.lock().has_ended()
    }

    /// A job will be pushed for certain, perhaps after `stop`: whoever polls goes on until
    /// [`Dispatcher::keep_promise`]. Not for jobs of our own threads, which end before.
    pub(crate) fn promise(&self) {
        self.due.lock().promised += 1;
    }

    /// A job that was promised has run, or will never come.
    pub(crate) fn keep_promise(&self) {
        self.due.lock().promised -= 1;
        self.changed.notify_all();
    }

    /// Whether a job that was promised has not run.
    pub(crate) fn has_promises(&self) -> bool {
        self.due.lock().promised > 0
    }

    /// Joins the threads; `false` if a callback kept one of them past `deadline`: it ends by
    /// itself, then.
    pub(crate) fn join(&self, deadline: Instant) -> bool {
        let mut due = self.due.lock();
        while due.threads_left > 0 {
            if self.quiet.wait_until(&mut due, deadline).timed_out() && due.threads_left > 0 {
                return false;
            }
        }
        drop(due);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // They have left their loop; a callback's panic was caught inside.
            if thread.join().is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A job is a number of callbacks that are due.
    #[derive(Default)]
    struct Count {
        ran: AtomicUsize,
    }

    impl Runner for Count {
        type Job = usize;

        fn run(&self, turn: &mut Turn<usize>) {
            while let Some((job, most)) = turn.next() {
                let ran = job.min(most);
                self.ran.fetch_add(ran, Ordering::SeqCst);
                turn.ran(ran, (job > ran).then(|| job - ran));
            }
        }
    }

    /// A job says which follow it, and runs no callback itself, as one whose receiver was cancelled.
    struct Follows;

    impl Runner for Follows {
        type Job = usize;

        fn run(&self, turn: &mut Turn<usize>) {
            while let Some((left, _)) = turn.next() {
                let runs = usize::from(left == 0);
                turn.ran(runs, (left > 0).then(|| left - 1));
            }
        }
    }

    #[test]
    fn a_poll_by_turns_that_ran_nothing_has_left_nothing() {
        let dispatcher = Dispatcher::new(true).unwrap();
        dispatcher.push_all([2, 2]);
        assert_eq!(dispatcher.poll(&Follows, 0, Duration::ZERO), 1);
        assert_eq!(dispatcher.poll(&Follows, 0, Duration::ZERO), 1);
        assert_eq!(dispatcher.poll(&Follows, 0, Duration::ZERO), 0);
        assert!(!dispatcher.busy());
    }

    #[test]
    fn threads_run_what_is_due_and_end_when_nothing_is() {
        for threads in [1, 2] {
            let dispatcher = Arc::new(Dispatcher::new(false).unwrap());
            let runner = Arc::new(Count::default());
            dispatcher.start(threads, &runner).unwrap();
            dispatcher.push_all([100, 1, 50]);
            dispatcher.stop();
            assert!(dispatcher.join(Instant::now() + Duration::from_secs(10)));
            assert_eq!(runner.ran.load(Ordering::SeqCst), 151);
            assert_eq!(dispatcher.fd(), None);
        }
    }

    #[test]
    fn poll_runs_at_most_max_and_zero_is_what_is_due() {
        let dispatcher = Dispatcher::new(true).unwrap();
        let runner = Count::default();
        dispatcher.push_all([3, 4]);
        assert_eq!(dispatcher.poll(&runner, 2, Duration::ZERO), 2);
        assert_eq!(dispatcher.poll(&runner, 0, Duration::ZERO), 5);
        assert_eq!(dispatcher.poll(&runner, 0, Duration::ZERO), 0);
        assert!(!dispatcher.busy());
    }

    #[test]
    fn poll_waits_for_the_first_callback() {
        let dispatcher = Arc::new(Dispatcher::new(true).unwrap());
        let runner = Arc::new(Count::default());
        let poller = {
            let (dispatcher, runner) = (Arc::clone(&dispatcher), Arc::clone(&runner));
            std::thread::spawn(move || dispatcher.poll(&*runner, 1, Duration::from_secs(60)))
        };
        dispatcher.push(1);
        assert_eq!(poller.join().unwrap(), 1);
    }

    #[test]
    fn stop_wakes_a_poll_that_waits() {
        let dispatcher = Arc::new(Dispatcher::<usize>::new(true).unwrap());
        let poller = {
            let dispatcher = Arc::clone(&dispatcher);
            std::thread::spawn(move || {
                dispatcher.poll(&Count::default(), 0, Duration::from_secs(60))
            })
        };
        dispatcher.stop();
        assert_eq!(poller.join().unwrap(), 0);
    }

    /// Its jobs end when they are told to.
    struct Held(
        std::sync::mpsc::Sender<()>,
        Mutex<std::sync::mpsc::Receiver<()>>,
    );

    impl Runner for Held {
        type Job = usize;

        fn run(&self, turn: &mut Turn<usize>) {
            while turn.next().is_some() {
                self.0.send(()).unwrap();
                self.1.lock().recv().unwrap();
                turn.ran(1, None);
            }
        }
    }

    #[test]
    fn nothing_has_ended_while_another_thread_runs_what_it_has_taken() {
        let dispatcher = Arc::new(Dispatcher::new(true).unwrap());
        let (taken, is_taken) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let runner = Arc::new(Held(taken, Mutex::new(goes_on)));
        let polls = |timeout| {
            let (dispatcher, runner) = (Arc::clone(&dispatcher), Arc::clone(&runner));
            std::thread::spawn(move || dispatcher.poll(&*runner, 0, timeout))
        };
        dispatcher.push(1);
        let other = polls(Duration::ZERO);
        is_taken.recv().unwrap();
        dispatcher.stop();
        assert_eq!(dispatcher.poll(&*runner, 0, Duration::ZERO), 0);
        assert!(!dispatcher.has_ended());
        let waits = polls(Duration::from_secs(60));
        go_on.send(()).unwrap();
        assert_eq!(other.join().unwrap(), 1);
        // It is woken by the end of the other.
        assert_eq!(waits.join().unwrap(), 0);
        assert!(dispatcher.has_ended());
    }

    #[test]
    fn a_poll_waits_beyond_the_stop_for_what_was_promised() {
        let dispatcher = Arc::new(Dispatcher::new(true).unwrap());
        let runner = Arc::new(Count::default());
        dispatcher.promise();
        dispatcher.stop();
        assert!(!dispatcher.has_ended());
        assert_eq!(dispatcher.poll(&*runner, 0, Duration::ZERO), 0);
        let poller = {
            let (dispatcher, runner) = (Arc::clone(&dispatcher), Arc::clone(&runner));
            std::thread::spawn(move || dispatcher.poll(&*runner, 0, Duration::from_secs(60)))
        };
        dispatcher.push(1);
        assert_eq!(poller.join().unwrap(), 1);
        // It ran, and its callback has not returned: another thread that polls waits for that.
        assert!(dispatcher.has_promises());
        let poller = {
            let dispatcher = Arc::clone(&dispatcher);
            std::thread::spawn(move || dispatcher.poll(&*runner, 0, Duration::from_secs(60)))
        };
        dispatcher.keep_promise();
        assert_eq!(poller.join().unwrap(), 0);
        assert!(dispatcher.has_ended());
    }

    #[test]
    fn a_thread_knows_that_it_is_inside_a_callback() {
        assert!(!in_callback());
        {
            let _outer = enter_callback();
            let _inner = enter_callback();
            assert!(in_callback());
            assert!(!std::thread::spawn(in_callback).join().unwrap());
        }
        assert!(!in_callback());
    }
}
