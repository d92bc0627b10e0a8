//! The log and the changes of state on their way to the user: bounded, and one at a time.

use std::collections::VecDeque;

use crate::log::Record;
use crate::sync::Mutex;

use super::callbacks::{Hooks, Isolation, State};

/// The most events that wait. The header states it.
const CAPACITY: usize = 1024;

enum Event {
    Log(Record),
    State(State, u64),
    Isolation(Isolation),
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// The dispatcher has been told, and has not found it empty since.
    due: bool,
}

impl Waiting {
    fn push(&mut self, event: Event) -> Pushed {
        if self.events.len() >= CAPACITY {
            return Pushed::Dropped;
        }
        self.events.push_back(event);
        if std::mem::replace(&mut self.due, true) {
            Pushed::Waits
        } else {
            Pushed::Due
        }
    }
}

/// What waits to be told to the user.
pub(super) struct Events {
    hooks: Hooks,
    waiting: Mutex<Waiting>,
}

/// Where an event went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and the dispatcher knows.
    Waits,
    /// It waits, and the dispatcher is to be told.
    Due,
    /// Too many wait.
    Dropped,
    /// Nobody wants it.
    Unwanted,
}

impl Events {
    pub(super) fn new(hooks: Hooks) -> Self {
        Self {
            hooks,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn log(&self, record: Record) -> Pushed {
        if self.hooks.on_log.is_none() {
            return Pushed::Unwanted;
        }
        self.waiting.lock().push(Event::Log(record))
    }

    pub(super) fn state(&self, state: State, generation: u64) -> Pushed {
        if self.hooks.on_state.is_none() {
            return Pushed::Unwanted;
        }
        self.waiting.lock().push(Event::State(state, generation))
    }

    pub(super) fn isolation(&self, event: Isolation) -> Pushed {
        if self.hooks.on_isolation.is_none() {
            return Pushed::Unwanted;
        }
        self.waiting.lock().push(Event::Isolation(event))
    }

    /// Whether so much waits that what can be told later should be.
    pub(super) fn are_many(&self) -> bool {
        self.waiting.lock().events.len() > CAPACITY / 2
    }

    /// Tells the user at most `budget` events, each by way of `guard`, which contains a panic; says
    /// how many, and whether more wait.
    pub(super) fn run(&self, budget: usize, guard: impl Fn(&mut dyn FnMut())) -> (usize, bool) {
        let mut ran = 0;
        while ran < budget {
            let event = {
                let mut waiting = self.waiting.lock();
                let event = waiting.events.pop_front();
                waiting.due = event.is_some();
                event
            };
            match event {
                None => return (ran, false),
                Some(Event::Log(record)) => {
                    if let Some(hook) = &self.hooks.on_log {
                        guard(&mut || hook.log(&record));
                    }
                }
                Some(Event::State(state, generation)) => {
                    if let Some(hook) = &self.hooks.on_state {
                        guard(&mut || hook.state(state, generation));
                    }
                }
                Some(Event::Isolation(event)) => {
                    if let Some(hook) = &self.hooks.on_isolation {
                        guard(&mut || hook.isolation(&event));
                    }
                }
            }
            ran += 1;
        }
        let mut waiting = self.waiting.lock();
        waiting.due = !waiting.events.is_empty();
        (ran, waiting.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RecordId;
    use std::sync::Arc;

    use super::super::callbacks::{OnIsolation, OnLog, OnState};

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl OnLog for Heard {
        fn log(&self, record: &Record) {
            self.0.lock().push(record.message.clone());
        }
    }

    impl OnState for Heard {
        fn state(&self, state: State, generation: u64) {
            self.0.lock().push(format!("{state:?} {generation}"));
        }
    }

    impl OnIsolation for Heard {
        fn isolation(&self, event: &Isolation) {
            self.0.lock().push(format!("{event:?}"));
        }
    }

    fn record(message: &str) -> Record {
        Record {
            id: RecordId::Connected,
            message: message.to_owned(),
        }
    }

    #[test]
    fn events_are_many_above_half_of_what_may_wait() {
        let heard = Arc::new(Heard::default());
        let events = Events::new(Hooks {
            on_log: Some(heard),
            ..Hooks::default()
        });
        for _ in 0..CAPACITY / 2 {
            assert!(!events.are_many());
            events.log(record("one"));
        }
        assert!(!events.are_many());
        events.log(record("one more"));
        assert!(events.are_many());
    }

    #[test]
    fn events_come_in_order_and_the_dispatcher_is_told_once() {
        let heard = Arc::new(Heard::default());
        let events = Events::new(Hooks {
            on_log: Some(heard.clone()),
            on_state: Some(heard.clone()),
            on_isolation: Some(heard.clone()),
        });
        assert_eq!(events.log(record("one")), Pushed::Due);
        assert_eq!(events.state(State::Ready, 1), Pushed::Waits);
        assert_eq!(events.run(1, |call| call()), (1, true));
        assert_eq!(events.log(record("two")), Pushed::Waits);
        assert_eq!(
            events.isolation(Isolation::Ended { lost: 5 }),
            Pushed::Waits
        );
        assert_eq!(events.run(8, |call| call()), (3, false));
        assert_eq!(events.log(record("three")), Pushed::Due);
        assert_eq!(events.run(8, |call| call()), (1, false));
        assert_eq!(
            *heard.0.lock(),
            ["one", "Ready 1", "two", "Ended { lost: 5 }", "three"]
        );
    }

    #[test]
    fn too_many_events_are_dropped_and_unwanted_ones_are_not_kept() {
        let events = Events::new(Hooks {
            on_log: Some(Arc::new(Heard::default())),
            ..Hooks::default()
        });
        for _ in 0..CAPACITY {
            assert_ne!(events.log(record("x")), Pushed::Dropped);
        }
        assert_eq!(events.log(record("x")), Pushed::Dropped);
        assert_eq!(events.state(State::Ready, 1), Pushed::Unwanted);
        let began = Isolation::Began { waiting: 1 };
        assert_eq!(events.isolation(began), Pushed::Unwanted);
        assert_eq!(events.run(usize::MAX, |call| call()), (CAPACITY, false));
    }
}
