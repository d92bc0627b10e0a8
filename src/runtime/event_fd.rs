//! The descriptors by which a thread, or the event loop of the host program, is woken.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// A descriptor that is readable between `raise` and `lower`.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed, and a descriptor that comes back is ours alone.
        unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(descriptor)))
        }
    }

    pub(crate) fn raise(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the buffer holds the eight bytes that are written. The only failure is a full
        // counter, and then the descriptor is readable already.
        unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn lower(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has room for the eight bytes that are read. The only failure is an
        // empty counter, and then the descriptor is not readable already.
        unsafe { libc::read(self.raw(), count.as_mut_ptr().cast(), count.len()) };
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An event fd that the host program watches.
///
/// It is given a duplicate, and may close it by mistake: event loops close what they were given. The
/// number may then be that of another file. So nothing is read, written or closed by that number
/// unless it still is the event fd.
#[derive(Debug)]
pub(crate) struct WatchedFd {
    /// Never handed out.
    event: EventFd,
    /// The number that the host program watches; -1 once it is retired.
    shown: AtomicI32,
}

impl WatchedFd {
    pub(crate) fn new() -> io::Result<Self> {
        let event = EventFd::new()?;
        let shown = event.0.try_clone()?;
        Ok(Self {
            event,
            shown: AtomicI32::new(shown.into_raw_fd()),
        })
    }

    pub(crate) fn raise(&self) {
        self.event.raise();
    }

    pub(crate) fn lower(&self) {
        self.event.lower();
    }

    /// The descriptor to be watched. The host program may use it, and not close it.
    pub(crate) fn raw(&self) -> RawFd {
        self.shown.load(Ordering::Relaxed)
    }

    /// Another descriptor for the same, which the caller owns.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.event.0.try_clone()
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
        let own = self.event.raw();
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

impl Drop for WatchedFd {
    fn drop(&mut self) {
        self.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let fd = WatchedFd::new().unwrap();
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
    fn replace(fd: &WatchedFd, file: &impl AsRawFd) {
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
        let fd = WatchedFd::new().unwrap();
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
        let (fd, other) = (WatchedFd::new().unwrap(), WatchedFd::new().unwrap());
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
}
