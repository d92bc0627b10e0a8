//! The models: what each algorithm promises, with as few threads as can break it.

/// A model of an algorithm, or of a mutant of it.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) mutant: bool,
    pub(crate) run: fn(),
}

/// A file of the library and mutants of it, as `build.rs` puts them there, each with the model.
macro_rules! algorithm {
    ($models:ident, $name:ident, $($mutant:ident),*) => {
        algorithm!(@file $name);
        $(algorithm!(@file $mutant);)*
        pub(super) const MODELS: &[super::Model] = &[
            super::Model { name: stringify!($name), mutant: false, run: {
                $models!($name);
                run
            }},
            $(super::Model { name: stringify!($mutant), mutant: true, run: {
                $models!($mutant);
                run
            }},)*
        ];
    };
    (@file $name:ident) => {
        #[allow(dead_code, unused_imports, reason = "a model needs a part of it")]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

/// The publisher sees what was put down before each ring, and is woken for it.
mod doorbell {
    use std::future::poll_fn;
    use std::task::Poll;

    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::thread;

    macro_rules! models {
        ($doorbell:ident) => {
            fn run() {
                let bell = Arc::new($doorbell::Doorbell::default());
                let publisher = Arc::new(crate::task::AtomicWaker::default());
                // Relaxed: only the bell makes it known.
                let items = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
                let ringers = [(); 2].map(|()| {
                    let (bell, items) = (Arc::clone(&bell), Arc::clone(&items));
                    let publisher = Arc::clone(&publisher);
                    thread::spawn(move || {
                        items.fetch_add(1, super::Relaxed);
                        if bell.ring() {
                            publisher.wake();
                        }
                    })
                });
                let mut seen = 0;
                block_on(poll_fn(|cx| {
                    publisher.register(cx.waker());
                    while bell.answer() {
                        seen = items.load(super::Relaxed);
                    }
                    if seen == 2 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }));
                for ringer in ringers {
                    ringer.join().unwrap();
                }
            }
        };
    }

    algorithm!(models, doorbell, doorbell_relaxed, doorbell_looks_first);
}

/// A thread that is told to look sees what was done before, asleep or awake.
mod wakeup {
    use loom::sync::Arc;
    use loom::thread;

    macro_rules! models {
        ($wakeup:ident) => {
            fn run() {
                let wakeup = Arc::new($wakeup::Wakeup::new().unwrap());
                // Relaxed: only the wake-up makes it known.
                let items = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
                let tellers = [(); 2].map(|()| {
                    let (wakeup, items) = (Arc::clone(&wakeup), Arc::clone(&items));
                    thread::spawn(move || {
                        items.fetch_add(1, super::Relaxed);
                        wakeup.notify();
                    })
                });
                // loom reports where it sleeps and nobody is left to wake it.
                while items.load(super::Relaxed) < 2 {
                    if wakeup.may_sleep() {
                        wakeup.alarm().wait();
                    }
                    wakeup.awake();
                }
                for teller in tellers {
                    teller.join().unwrap();
                }
            }
        };
    }

    algorithm!(
        models,
        wakeup,
        wakeup_looks_first,
        wakeup_sleeps_though_told,
        wakeup_stores
    );
}

/// The consumer hears of a count that is urgent by what it said last, and no count is lost or taken
/// twice.
mod credit {
    use std::future::poll_fn;
    use std::task::Poll;

    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::thread;

    macro_rules! models {
        ($credit:ident) => {
            fn run() {
                let credit = Arc::new($credit::Credit::default());
                credit.begin(1);
                let adders = [1, 2].map(|count| {
                    let credit = Arc::clone(&credit);
                    thread::spawn(move || credit.add(1, count))
                });
                // It takes what has come so far in its first turn, so that the count begins anew.
                let mut taken = credit.take(1);
                block_on(poll_fn(|cx| {
                    credit.register(cx.waker());
                    credit.wake_at(u64::from(3 - taken).max(1));
                    if taken + credit.count() >= 3 {
                        taken += credit.take(1);
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }));
                assert_eq!(taken, 3);
                for adder in adders {
                    adder.join().unwrap();
                }
            }
        };
    }

    algorithm!(models, credit, credit_acquire_release);
}

/// What is let go for an earlier generation never counts for a later one.
mod generations {
    use loom::sync::Arc;
    use loom::thread;

    macro_rules! models {
        ($credit:ident) => {
            fn run() {
                let credit = Arc::new($credit::Credit::default());
                credit.begin(1);
                let late = Arc::clone(&credit);
                let adder = thread::spawn(move || late.add(1, 5));
                credit.begin(2);
                credit.add(2, 1);
                adder.join().unwrap();
                assert_eq!(credit.take(1), 0);
                assert_eq!(credit.take(2), 1);
            }
        };
    }

    algorithm!(models, credit_generations, credit_of_any_generation);
}

/// Once the end has waited for calls, none is under way and none begins.
mod closing {
    use std::time::{Duration, Instant};

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    macro_rules! models {
        ($closing:ident) => {
            fn run() {
                // loom reports where a call and the end, or two calls, are at their cell at once.
                let closing = Arc::new($closing::Closing::new());
                let cells = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
                let calls = [0, 1].map(|number| {
                    let (closing, cells) = (Arc::clone(&closing), Arc::clone(&cells));
                    thread::spawn(move || {
                        if let Some(call) = closing.enter() {
                            cells[number].with_mut(|_| ());
                            drop(call);
                        }
                    })
                });
                assert!(closing.begin());
                closing.wait_for_calls(Instant::now() + Duration::from_secs(60));
                for cell in &*cells {
                    cell.with_mut(|_| ());
                }
                for call in calls {
                    call.join().unwrap();
                }
                assert!(closing.enter().is_none());
            }
        };
    }

    algorithm!(
        models,
        closing,
        closing_looks_first,
        closing_tells_without_the_lock
    );
}

/// What is armed is ended though the task sleeps until a moment that is far.
mod timekeeper {
    use std::time::{Duration, Instant};

    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::thread;

    use crate::sync::Mutex;

    macro_rules! models {
        ($timekeeper:ident) => {
            fn run() {
                let keeper = std::sync::Arc::new($timekeeper::Timekeeper::new());
                let start = Instant::now();
                let (near, far) = (
                    start + Duration::from_secs(1),
                    start + Duration::from_secs(86400),
                );
                let due = Arc::new(Mutex::new(vec![far]));
                let armer = {
                    let (keeper, due) = (std::sync::Arc::clone(&keeper), Arc::clone(&due));
                    thread::spawn(move || {
                        due.lock().push(near);
                        keeper.arm(near);
                    })
                };
                block_on($timekeeper::Timekeeper::run(
                    keeper,
                    // Over once the near one is ended.
                    |_| (!due.lock().contains(&near)).then_some(()),
                    || Some(due.lock().iter().min().copied()),
                ));
                armer.join().unwrap();
            }
        };
    }

    algorithm!(models, timekeeper, timekeeper_is_not_told);
}

/// What is armed while the task ends an earlier thing is ended too, though it was not told: it was
/// awake.
mod timekeeper_again {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use loom::future::block_on;
    use loom::thread;

    use crate::sync::Mutex;

    macro_rules! models {
        ($timekeeper:ident) => {
            fn run() {
                let keeper = Arc::new($timekeeper::Timekeeper::new());
                let first = Instant::now() + Duration::from_secs(1);
                let second = first + Duration::from_secs(1);
                let due = loom::sync::Arc::new(Mutex::new(vec![first]));
                let armer = {
                    let (keeper, due) = (Arc::clone(&keeper), loom::sync::Arc::clone(&due));
                    thread::spawn(move || {
                        due.lock().push(second);
                        keeper.arm(second);
                    })
                };
                let turns = Cell::new(0);
                block_on($timekeeper::Timekeeper::run(
                    keeper,
                    |_| {
                        turns.set(turns.get() + 1);
                        // Nothing is due before it has slept.
                        if turns.get() == 1 {
                            return Some(());
                        }
                        let ended = std::mem::take(&mut *due.lock());
                        (!ended.contains(&second)).then_some(())
                    },
                    || Some(due.lock().iter().min().copied()),
                ));
                armer.join().unwrap();
            }
        };
    }

    algorithm!(models, timekeeper_again, timekeeper_unarms_late);
}

use std::sync::atomic::Ordering::Relaxed;

pub(crate) const ALL: &[&[Model]] = &[
    doorbell::MODELS,
    wakeup::MODELS,
    credit::MODELS,
    generations::MODELS,
    closing::MODELS,
    timekeeper::MODELS,
    timekeeper_again::MODELS,
];
