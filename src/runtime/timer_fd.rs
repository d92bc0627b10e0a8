//! A descriptor that becomes readable at a time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// A timer that a thread waits for along with other descriptors.
///
/// To set a timer of the system costs 5 to 10 µs in a virtual machine: a `poll` with a timeout sets one
/// each time, this only where it is armed.
#[derive(Debug)]
pub(crate) struct TimerFd(OwnedFd);

impl TimerFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed, and a descriptor that comes back is ours alone.
        unsafe {
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            let descriptor = libc::timerfd_create(libc::CLOCK_MONOTONIC, flags);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(descriptor)))
        }
    }

    /// Becomes readable after `time`, instead of what it was armed for before.
    pub(crate) fn arm(&self, time: Duration) {
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // No time at all would disarm it.
        let time = time.max(Duration::from_nanos(1));
        let spec = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                // Below a thousand million, which any `long` holds.
                tv_nsec: time.subsec_nanos() as libc::c_long,
            },
        };
        // SAFETY: a valid specification, and the former one is not asked for. There is no failure with
        // a valid time and a descriptor of ours.
        unsafe { libc::timerfd_settime(self.raw(), 0, &raw const spec, ptr::null_mut()) };
    }

    /// Not readable any more, until it is armed again.
    pub(crate) fn lower(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has room for the eight bytes that are read. The only failure is a timer
        // that is not over.
        unsafe { libc::read(self.raw(), count.as_mut_ptr().cast(), count.len()) };
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for `fd` at most so long; whether it became readable.
    fn readable(fd: &TimerFd, milliseconds: libc::c_int) -> bool {
        let mut poll = libc::pollfd {
            fd: fd.raw(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 }
    }

    #[test]
    fn a_timer_is_over_after_its_time_and_once() {
        let timer = TimerFd::new().unwrap();
        assert!(!readable(&timer, 0));
        timer.arm(Duration::from_secs(3600));
        assert!(!readable(&timer, 0));
        timer.arm(Duration::ZERO);
        assert!(readable(&timer, 10_000));
        timer.lower();
        assert!(!readable(&timer, 0));
    }
}
