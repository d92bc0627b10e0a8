//! Callbacks of C: a function, its userdata, and the `destroy` that runs exactly once.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use crate::dispatch;
use crate::error::{Error, ErrorKind};
use crate::layer::{Done, Ended, Flow, Isolation, OnIsolation, OnLog, OnState, Receive, State};
use crate::log::{Level, Record};
use crate::message::Message;

use super::message::layer_message_t;
use super::status::{layer_error_t, layer_status_t};

/// Releases `userdata`. Called exactly once, after the last call of the callback that it was given
/// with, on any thread. It counts as a callback.
pub type layer_destroy_cb = Option<unsafe extern "C" fn(userdata: *mut c_void)>;

/// Takes the outcome of an async call. Called exactly once.
///
/// `error`: NULL with `LAYER_OK`, else borrowed until the callback returns.
pub type layer_done_cb = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        status: layer_status_t,
        error: *const layer_error_t,
    ),
>;

/// Takes a message, or the news that the receiver has ended.
///
/// `status` is `LAYER_OK` with a message; or `LAYER_CANCELLED` (the channel was discarded) or
/// `LAYER_CLOSED` (the layer was closed) with a NULL message, and then it is the last call.
/// `message` is borrowed until the callback returns; `layer_message_ref` keeps it.
/// Returns `LAYER_CONTINUE`, `LAYER_STOP` or `LAYER_DECLINE` (see `layer_flow_t`); any other
/// number is taken as `LAYER_STOP`. The result is ignored where there is no message.
pub type layer_receive_cb = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        status: layer_status_t,
        message: *const layer_message_t,
    ) -> i32,
>;

/// Takes a log record. `id` says what it is about, in words that never change their meaning, as
/// "connection_lost"; docs/log-records.md lists them, with what to do about each. `target` is the
/// part of the library that says it, `message` what happened, for people. All three are borrowed
/// until the callback returns.
pub type layer_log_cb = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        level: layer_log_level_t,
        id: *const c_char,
        target: *const c_char,
        message: *const c_char,
    ),
>;

/// Takes a change of state. `generation` counts the consuming connections so far: where it grew,
/// messages may have been missed in between.
pub type layer_state_cb =
    Option<unsafe extern "C" fn(userdata: *mut c_void, state: layer_state_t, generation: u64)>;

/// Takes what isolation does (see `layer_isolation_t`).
///
/// `LAYER_ISOLATION_BEGAN`: `channel` is NULL, `count` the number of messages that wait in memory.
/// `LAYER_ISOLATION_LOST`: `channel` has lost `count` messages since that was last told, once a second
/// and when isolation ends; NULL for several channels that are not told apart. The counts of all such calls are what
/// was lost. `LAYER_ISOLATION_ENDED`: `channel` is NULL, `count` the number of messages that were lost
/// in all since it began. `channel` is borrowed until the callback returns.
pub type layer_isolation_cb = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        event: layer_isolation_t,
        channel: *const c_char,
        count: u64,
    ),
>;

/// What a `layer_receive_cb` returns.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    dead_code,
    reason = "callbacks return plain integers: the names are for C"
)]
pub enum layer_flow_t {
    /// The message was taken; go on.
    LAYER_CONTINUE = 0,
    /// The message was taken; the receiver ends.
    LAYER_STOP = 1,
    /// The message was not taken: it stays first in its channel. The receiver ends.
    LAYER_DECLINE = 2,
}

/// How grave a log record is.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum layer_log_level_t {
    /// Something does not work and needs a person.
    LAYER_LOG_ERROR = 1,
    /// Something was lost or is about to be.
    LAYER_LOG_WARN = 2,
    /// Something changed, as it should.
    LAYER_LOG_INFO = 3,
    /// What a maintainer wants to see.
    LAYER_LOG_DEBUG = 4,
}

impl From<Level> for layer_log_level_t {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::LAYER_LOG_ERROR,
            Level::Warn => Self::LAYER_LOG_WARN,
            Level::Info => Self::LAYER_LOG_INFO,
            Level::Debug => Self::LAYER_LOG_DEBUG,
        }
    }
}

/// The state of a layer.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum layer_state_t {
    /// Not connected, or not wholly: attempts go on for ever.
    LAYER_STATE_CONNECTING = 0,
    /// Both connections stand and every group is bound.
    LAYER_STATE_READY = 1,
    /// Each host refused its last attempt for credentials, vhost or TLS. Attempts go on.
    LAYER_STATE_REFUSED = 2,
    /// The layer is closed or closing.
    LAYER_STATE_CLOSED = 3,
}

impl From<State> for layer_state_t {
    fn from(state: State) -> Self {
        match state {
            State::Connecting => Self::LAYER_STATE_CONNECTING,
            State::Ready => Self::LAYER_STATE_READY,
            State::Refused => Self::LAYER_STATE_REFUSED,
            State::Closed => Self::LAYER_STATE_CLOSED,
        }
    }
}

/// What isolation does. Messages that channels have not taken keep the broker from sending any to the
/// others; once that has lasted for option `stall_after`, channels are isolated: none holds deliveries
/// back, and each keeps at most `channel_capacity` messages and loses its newest beyond, until what
/// waits is at most half of `local_capacity` and `prefetch_count`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum layer_isolation_t {
    /// Channels are isolated from now on.
    LAYER_ISOLATION_BEGAN = 1,
    /// A channel has lost its newest messages.
    LAYER_ISOLATION_LOST = 2,
    /// Channels are not isolated any more.
    LAYER_ISOLATION_ENDED = 3,
}

/// `userdata` and what releases it. Dropping it runs `destroy`, unless the call that brought it
/// failed: then it was never ours.
struct Userdata {
    pointer: *mut c_void,
    destroy: layer_destroy_cb,
}

// SAFETY: the header's convention is that a callback and its `destroy` may run on any thread, so
// what `pointer` leads to may be used from any thread.
unsafe impl Send for Userdata {}
// SAFETY: as above; two calls at once are made only for callbacks that the header says may be.
unsafe impl Sync for Userdata {}

impl Userdata {
    fn disown(&mut self) {
        self.destroy = None;
    }
}

impl Drop for Userdata {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy.take() {
            let _inside = dispatch::enter_callback();
            // SAFETY: the caller gave `destroy` for this userdata, and `take` makes this the only
            // call.
            unsafe { destroy(self.pointer) };
        }
    }
}

/// A callback that a failed call gives back: neither it nor its `destroy` runs.
pub(super) trait Disown {
    fn disown(&mut self);
}

macro_rules! c_callback {
    ($(#[$doc:meta])* $name:ident, $function:ty) => {
        $(#[$doc])*
        pub(super) struct $name {
            function: $function,
            userdata: Userdata,
        }

        impl $name {
            pub(super) fn new(
                function: Option<$function>,
                userdata: *mut c_void,
                destroy: layer_destroy_cb,
                argument: &str,
            ) -> Result<Self, Error> {
                let function = function.ok_or_else(|| {
                    Error::invalid(format!("argument '{argument}' is NULL: pass a function"))
                })?;
                Ok(Self {
                    function,
                    userdata: Userdata {
                        pointer: userdata,
                        destroy,
                    },
                })
            }
        }

        impl Disown for $name {
            fn disown(&mut self) {
                self.userdata.disown();
            }
        }
    };
}

c_callback!(
    /// A `layer_done_cb`.
    DoneCallback,
    unsafe extern "C" fn(*mut c_void, layer_status_t, *const layer_error_t)
);
c_callback!(
    /// A `layer_receive_cb`.
    ReceiveCallback,
    unsafe extern "C" fn(*mut c_void, layer_status_t, *const layer_message_t) -> i32
);
c_callback!(
    /// A `layer_log_cb`.
    LogCallback,
    unsafe extern "C" fn(
        *mut c_void,
        layer_log_level_t,
        *const c_char,
        *const c_char,
        *const c_char,
    )
);
c_callback!(
    /// A `layer_state_cb`.
    StateCallback,
    unsafe extern "C" fn(*mut c_void, layer_state_t, u64)
);

c_callback!(
    /// A `layer_isolation_cb`.
    IsolationCallback,
    unsafe extern "C" fn(*mut c_void, layer_isolation_t, *const c_char, u64)
);

impl Done for DoneCallback {
    fn done(self: Box<Self>, result: Result<(), Error>) {
        match result {
            // SAFETY: the caller gave this function for this userdata; it is called once.
            Ok(()) => unsafe {
                (self.function)(self.userdata.pointer, layer_status_t::LAYER_OK, ptr::null());
            },
            Err(error) => {
                let object = layer_error_t::new(&error);
                // SAFETY: as above; the error outlives the call.
                unsafe {
                    (self.function)(self.userdata.pointer, object.status(), &raw const object)
                };
            }
        }
    }
}

impl Receive for ReceiveCallback {
    fn receive(&mut self, message: &Message) -> Flow {
        let flow = layer_message_t::lend(message, |lent| {
            // SAFETY: the caller gave this function for this userdata; the message outlives the call.
            unsafe { (self.function)(self.userdata.pointer, layer_status_t::LAYER_OK, lent) }
        });
        const CONTINUE: i32 = layer_flow_t::LAYER_CONTINUE as i32;
        const DECLINE: i32 = layer_flow_t::LAYER_DECLINE as i32;
        match flow {
            CONTINUE => Flow::Continue,
            DECLINE => Flow::Decline,
            // LAYER_STOP, and what is none of the three: a callback that has lost its way.
            _ => Flow::Stop,
        }
    }

    fn ended(&mut self, why: Ended) {
        let status = layer_status_t::from(match why {
            Ended::Discarded => ErrorKind::Cancelled,
            Ended::Closed => ErrorKind::Closed,
        });
        // SAFETY: as in `receive`; the header says that there is no message here.
        unsafe { (self.function)(self.userdata.pointer, status, ptr::null()) };
    }
}

impl OnLog for LogCallback {
    fn log(&self, record: &Record) {
        let text = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.retain(|byte| *byte != 0);
            CString::new(bytes).unwrap_or_default()
        };
        let (id, target) = (text(record.id.as_str()), text(record.target()));
        let message = text(&record.message);
        // SAFETY: the caller gave this function for this userdata; the strings outlive the call.
        unsafe {
            (self.function)(
                self.userdata.pointer,
                record.level().into(),
                id.as_ptr(),
                target.as_ptr(),
                message.as_ptr(),
            );
        }
    }
}

impl OnIsolation for IsolationCallback {
    fn isolation(&self, event: &Isolation) {
        let (event, channel, count) = match event {
            Isolation::Began { waiting } => {
                (layer_isolation_t::LAYER_ISOLATION_BEGAN, None, *waiting)
            }
            Isolation::Lost { channel, count } => (
                layer_isolation_t::LAYER_ISOLATION_LOST,
                channel.as_deref(),
                *count,
            ),
            Isolation::Ended { lost } => (layer_isolation_t::LAYER_ISOLATION_ENDED, None, *lost),
        };
        let channel = channel.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: the caller gave this function for this userdata; the name outlives the call.
        unsafe { (self.function)(self.userdata.pointer, event, channel, count) };
    }
}

impl OnState for StateCallback {
    fn state(&self, state: State, generation: u64) {
        // SAFETY: the caller gave this function for this userdata.
        unsafe { (self.function)(self.userdata.pointer, state.into(), generation) };
    }
}
