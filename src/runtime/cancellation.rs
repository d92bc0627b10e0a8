//! Threads that the host program cancels.

use std::ffi::c_int;
use std::ptr;

/// `PTHREAD_CANCEL_DISABLE` of glibc and musl.
const DISABLE: c_int = 1;

// The crate libc does not have it for Linux.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// While it lives, `pthread_cancel` does not end the calling thread: to wake a thread, to write to a socket and to
/// sleep are points where it would, with locks held and without what the caller waits for. A request that
/// comes meanwhile stays, and is followed at the next such point of the host.
#[derive(Debug)]
pub(crate) struct NotCancelled {
    before: c_int,
}

impl NotCancelled {
    pub(crate) fn new() -> Self {
        let mut before = DISABLE;
        // SAFETY: the place is that of a number. The only failure is a state that is none.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
        Self { before }
    }
}

impl Drop for NotCancelled {
    fn drop(&mut self) {
        // SAFETY: as above; the former state is not asked for, which glibc and musl allow.
        unsafe { pthread_setcancelstate(self.before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_thread_is_what_it_was_also_after_two_in_each_other() {
        let state = || {
            let now = NotCancelled::new();
            now.before
        };
        let enabled = state();
        assert_ne!(enabled, DISABLE);
        {
            let _outer = NotCancelled::new();
            assert_eq!(state(), DISABLE);
        }
        assert_eq!(state(), enabled);
    }
}
