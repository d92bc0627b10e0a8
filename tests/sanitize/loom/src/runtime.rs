//! What `crate::runtime` is to the library: an event fd, made of loom's primitives.

use std::io;

use crate::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct EventFd {
    is_raised: Mutex<bool>,
    raised: Condvar,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            is_raised: Mutex::new(false),
            raised: Condvar::new(),
        })
    }

    pub(crate) fn raise(&self) {
        *self.is_raised.lock() = true;
        self.raised.notify_all();
    }

    /// Sleeps until it is raised, and lowers it.
    pub(crate) fn wait(&self) {
        let mut is_raised = self.is_raised.lock();
        while !*is_raised {
            self.raised.wait(&mut is_raised);
        }
        *is_raised = false;
    }
}
