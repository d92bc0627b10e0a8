//! What the layer knows of its connections, and who waits for them.

use std::time::Instant;

use crate::broker::{BrokerState, Generation};
use crate::error::{Error, ErrorKind};
use crate::sync::{Condvar, Mutex};

use super::callbacks::State;

#[derive(Debug)]
struct Inner {
    state: BrokerState,
    generation: Generation,
    closed: bool,
}

/// The state of a layer.
#[derive(Debug)]
pub(super) struct Link {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: BrokerState::Disconnected("no connection has been made yet".to_owned()),
                generation: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.inner.lock().state()
    }

    pub(super) fn generation(&self) -> Generation {
        self.inner.lock().generation
    }

    /// Whether each host refuses us.
    pub(super) fn refused(&self) -> bool {
        matches!(self.inner.lock().state, BrokerState::Refused(_))
    }

    /// A consuming connection begins.
    pub(super) fn begin(&self, generation: Generation) {
        self.inner.lock().generation = generation;
    }

    /// Sets the state, and has `tell` say what users see of it if that has changed: under the lock,
    /// so that states are told in their order, and before whoever waits for this one goes on.
    pub(super) fn set(&self, state: BrokerState, tell: impl FnOnce(State, Generation)) {
        let mut inner = self.inner.lock();
        // A new generation is news even where the state is the same word.
        // After the end there is no other state, and so no change.
        let before = (inner.state(), inner.ready_generation());
        inner.state = state;
        if before != (inner.state(), inner.ready_generation()) {
            tell(inner.state(), inner.generation);
        }
        self.changed.notify_all();
    }

    /// Sets the state for good.
    pub(super) fn close(&self, tell: impl FnOnce(State, Generation)) {
        let mut inner = self.inner.lock();
        if !std::mem::replace(&mut inner.closed, true) {
            tell(State::Closed, inner.generation);
        }
        self.changed.notify_all();
    }

    /// Waits until it is ready.
    pub(super) fn wait_ready(&self, deadline: Instant) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        loop {
            if inner.closed {
                return Err(Error::closed());
            }
            let reason = match &inner.state {
                BrokerState::Ready(_) => return Ok(()),
                BrokerState::Refused(reason) => {
                    return Err(Error::new(ErrorKind::Refused, reason.clone()));
                }
                BrokerState::Disconnected(reason) => reason.clone(),
            };
            if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("the layer is not ready: {reason}"),
                ));
            }
            self.changed.wait_until(&mut inner, deadline);
        }
    }

    /// Why a call that needs the broker has no answer in time, or gets none.
    pub(super) fn why_no_answer(&self, what: &str) -> Error {
        match &self.inner.lock().state {
            BrokerState::Ready(_) => Error::new(
                ErrorKind::Timeout,
                format!("the broker has not {what} in time (option 'timeout')"),
            ),
            BrokerState::Disconnected(reason) => Error::new(
                ErrorKind::Disconnected,
                format!("the broker has not {what} in time: {reason}"),
            ),
            BrokerState::Refused(reason) => Error::new(ErrorKind::Refused, reason.clone()),
        }
    }
}

impl Inner {
    fn state(&self) -> State {
        match self.state {
            _ if self.closed => State::Closed,
            BrokerState::Ready(_) => State::Ready,
            BrokerState::Disconnected(_) => State::Connecting,
            BrokerState::Refused(_) => State::Refused,
        }
    }

    fn ready_generation(&self) -> Option<Generation> {
        match self.state {
            BrokerState::Ready(generation) if !self.closed => Some(generation),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once_and_none_after_the_end() {
        let link = Link::new();
        let told = Mutex::new(Vec::new());
        let tell = |state, generation| told.lock().push((state, generation));
        link.set(BrokerState::Disconnected("again".to_owned()), tell);
        link.begin(1);
        link.set(BrokerState::Ready(1), tell);
        link.set(BrokerState::Ready(1), tell);
        link.begin(2);
        link.set(BrokerState::Ready(2), tell);
        link.close(tell);
        link.close(tell);
        link.set(BrokerState::Ready(3), tell);
        assert_eq!(
            *told.lock(),
            [(State::Ready, 1), (State::Ready, 2), (State::Closed, 2)]
        );
        assert!(link.wait_ready(Instant::now()).is_err());
    }
}
