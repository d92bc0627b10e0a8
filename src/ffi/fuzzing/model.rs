//! What the program knows: which handles are alive, what was handed in, what was sent and what has
//! come; and what it has found wrong.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::ffi::config::layer_config_t;
use crate::ffi::layer::layer_t;
use crate::ffi::message::layer_message_t;
use crate::ffi::status::layer_error_t;
pub(super) use crate::ffi::status::layer_status_t as Status;

use super::api::Api;

/// A word that is in some options, and that no error and no log may ever show.
pub(super) const SECRET: &str = "S3CR3T";

/// What an error variable holds before a call: an address that is no error.
const UNTOUCHED: *mut layer_error_t = ptr::without_provenance_mut(8);

/// How many cases are under way.
static CASES: AtomicUsize = AtomicUsize::new(0);

pub(super) fn busy() -> bool {
    CASES.load(SeqCst) > 0
}

/// A lock that a panic does not spoil: the panic is told of where it happened.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes as a row of decisions; zeros when there are no more.
pub(super) struct Dice<'a> {
    bytes: &'a [u8],
}

impl<'a> Dice<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(most.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// What is known of one layer.
pub(super) struct Facts {
    pub(super) polled: bool,
    /// `max_message_size` is so small that any message may be too large.
    pub(super) small: bool,
    pub(super) queue: OnceLock<String>,
    /// A close or free has begun.
    pub(super) closing: AtomicBool,
    /// A close has returned.
    pub(super) closed: AtomicBool,
    pub(super) receivers: Mutex<HashSet<u64>>,
    /// Numbers that were cancelled, perhaps before we knew whose they are.
    pub(super) cancelled: Mutex<HashSet<u64>>,
    /// Some of its channels.
    pub(super) channels: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub(super) struct Handle {
    pub(super) pointer: *mut layer_t,
    pub(super) facts: Arc<Facts>,
}

// SAFETY: the header allows a layer on any thread.
unsafe impl Send for Handle {}

#[derive(Default)]
struct SlotState {
    handle: Option<Handle>,
    /// Calls that may not have begun yet: a free must wait for them.
    beginning: usize,
}

/// A place for a layer.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

/// A config, for one thread at a time, and what layers of it will be.
pub(super) struct Config {
    pub(super) pointer: *mut layer_config_t,
    pub(super) polled: bool,
    pub(super) small: bool,
}

// SAFETY: used under its lock alone.
unsafe impl Send for Config {}

/// A message that is ours, and what it said when it came.
pub(super) struct Held {
    pub(super) pointer: *mut layer_message_t,
    pub(super) data: Vec<u8>,
    pub(super) channel: CString,
}

// SAFETY: the header allows a message on any thread.
unsafe impl Send for Held {}

/// An error that is kept for a while, and what it said.
struct Kept {
    pointer: *mut layer_error_t,
    status: Status,
    text: CString,
}

// SAFETY: the header allows an error on any thread.
unsafe impl Send for Kept {}

/// Where a message went.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum To {
    Channel(String),
    Group(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Done,
    Receive,
    Log,
    State,
    Isolation,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Taken {
    /// The call that hands it in has not returned.
    Perhaps,
    Yes,
    No,
}

/// A callback that was handed in: its userdata.
pub(super) struct Token {
    pub(super) world: Arc<World>,
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) has_destroy: bool,
    /// What its calls do.
    pub(super) script: Vec<u8>,
    /// The message whose outcome it is told.
    pub(super) message: Option<u64>,
    pub(super) taken: Mutex<Taken>,
    /// The thread inside the call that hands it in.
    pub(super) giver: Mutex<Option<ThreadId>>,
    pub(super) running: AtomicUsize,
    pub(super) calls: AtomicUsize,
    pub(super) destroys: AtomicUsize,
    /// No further call may come.
    pub(super) ended: AtomicBool,
    /// A cancel has returned.
    pub(super) cancelled: AtomicBool,
}

impl Token {
    pub(super) fn userdata(self: &Arc<Self>) -> *mut c_void {
        Arc::as_ptr(self).cast_mut().cast()
    }

    /// Its end, for an error.
    pub(super) fn name(&self) -> String {
        format!("{:?} callback {}", self.kind, self.number)
    }

    /// Whether nothing more comes of it.
    fn over(&self) -> bool {
        if self.running.load(SeqCst) > 0 {
            return false;
        }
        if *lock(&self.taken) != Taken::Yes {
            return true;
        }
        let calls = self.calls.load(SeqCst);
        match self.kind {
            Kind::Done if calls == 0 => false,
            _ if self.has_destroy => self.destroys.load(SeqCst) > 0,
            Kind::Receive => self.ended.load(SeqCst) || self.cancelled.load(SeqCst),
            _ => true,
        }
    }
}

/// A receiver: its layer, its number there, its callback.
pub(super) type Receiver = (Arc<Facts>, u64, Arc<Token>);

/// How a run went.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) wrong: Vec<String>,
    /// How often each status came back from a call, by its number.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests"))]
    pub(super) statuses: Vec<u64>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests"))]
    pub(super) callbacks: u64,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests"))]
    pub(super) received: usize,
}

pub(super) struct World {
    pub(super) api: Api,
    act: fn(&Arc<World>, &mut Dice<'_>),
    patience: Duration,
    /// The name of the broker.
    pub(super) host: String,
    pub(super) polled: bool,
    slots: [Slot; 3],
    pub(super) configs: [Mutex<Option<Config>>; 2],
    pub(super) messages: Mutex<Vec<Held>>,
    kept: Mutex<VecDeque<Kept>>,
    tokens: Mutex<Vec<Arc<Token>>>,
    pub(super) receivers: Mutex<Vec<Receiver>>,
    pub(super) channels: Mutex<Vec<String>>,
    sent: Mutex<HashMap<u64, To>>,
    /// Messages of which the sender was told that they are certainly not sent.
    unsent: Mutex<HashMap<u64, Status>>,
    /// Messages that were taken, each with the channel that it came on.
    taken: Mutex<HashSet<(u64, String)>>,
    wrong: Mutex<Vec<String>>,
    acts_left: AtomicUsize,
    /// How many acts are under way.
    acting: AtomicUsize,
    pub(super) ending: AtomicBool,
    statuses: [AtomicU64; 15],
    callbacks: AtomicU64,
    /// Told whenever a callback ends.
    quiet: (Mutex<()>, Condvar),
}

/// A call on this thread that uses a layer.
struct Use {
    world: *const World,
    slot: usize,
    /// It has begun beyond doubt, so that a free may begin.
    begun: Cell<bool>,
}

thread_local! {
    static USES: RefCell<Vec<Use>> = const { RefCell::new(Vec::new()) };
    static CALLBACKS: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread is inside a callback.
pub(super) fn in_callback() -> bool {
    CALLBACKS.get() > 0
}

impl World {
    pub(super) fn new(
        api: Api,
        act: fn(&Arc<World>, &mut Dice<'_>),
        patience: Duration,
        acts: usize,
        polled: bool,
    ) -> Arc<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        CASES.fetch_add(1, SeqCst);
        Arc::new(Self {
            api,
            act,
            patience,
            host: format!("memory://fuzz-{}", NUMBER.fetch_add(1, SeqCst)),
            polled,
            slots: Default::default(),
            configs: Default::default(),
            messages: Mutex::default(),
            kept: Mutex::default(),
            tokens: Mutex::default(),
            receivers: Mutex::default(),
            channels: Mutex::default(),
            sent: Mutex::default(),
            unsent: Mutex::default(),
            taken: Mutex::default(),
            wrong: Mutex::default(),
            acts_left: AtomicUsize::new(acts),
            acting: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            statuses: Default::default(),
            callbacks: AtomicU64::new(0),
            quiet: Default::default(),
        })
    }

    /// Notes what the library has done wrong.
    pub(super) fn wrong(&self, what: String) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }

    /// Does one more act; `false` if there shall be none.
    pub(super) fn act(self: &Arc<Self>, dice: &mut Dice<'_>) -> bool {
        // Counted before the look, so that the end either sees the act or prevents it.
        self.acting.fetch_add(1, SeqCst);
        let left = |left: usize| left.checked_sub(1);
        let may =
            !self.ending.load(SeqCst) && self.acts_left.fetch_update(SeqCst, SeqCst, left).is_ok();
        if may {
            (self.act)(self, dice);
        }
        self.acting.fetch_sub(1, SeqCst);
        self.callback_ended();
        may
    }

    /// From here on no act begins. Frees all there is, until no act is under way: one inside a
    /// callback of a layer that is ending may still open another.
    pub(super) fn no_more_acts(&self, free_all: impl Fn()) {
        self.ending.store(true, SeqCst);
        let deadline = Instant::now() + self.patience;
        while self.acting.load(SeqCst) > 0 {
            free_all();
            if Instant::now() > deadline {
                self.wrong("a call inside a callback does not return".to_owned());
                return;
            }
            thread::yield_now();
        }
        free_all();
    }

    // --- Calls --------------------------------------------------------------------------------

    /// Makes a call that can fail, and holds its end against what is promised of all of them.
    pub(super) fn call(
        &self,
        name: &str,
        want_error: bool,
        documented: &[Status],
        call: impl FnOnce(*mut *mut layer_error_t) -> Status,
    ) -> Status {
        let mut error = UNTOUCHED;
        let began = Instant::now();
        let status = call(if want_error {
            &raw mut error
        } else {
            ptr::null_mut()
        });
        let took = began.elapsed();
        self.statuses[status as usize].fetch_add(1, SeqCst);
        if took > self.patience {
            self.wrong(format!("{name} took {took:?}"));
        }
        let text = if want_error {
            self.check_error(name, status, error)
        } else {
            String::new()
        };
        if !documented.contains(&status) {
            self.wrong(format!(
                "{name} gave {status:?}, which is not documented: {text}"
            ));
        }
        if status == Status::LAYER_WOULD_DEADLOCK && !in_callback() {
            self.wrong(format!("{name} gave {status:?} outside of a callback"));
        }
        status
    }

    fn check_error(&self, name: &str, status: Status, error: *mut layer_error_t) -> String {
        if status == Status::LAYER_OK {
            if error != UNTOUCHED {
                self.wrong(format!("{name} succeeded and wrote an error"));
            }
            return String::new();
        }
        if error == UNTOUCHED || error.is_null() {
            self.wrong(format!("{name} gave {status:?} and no error object"));
            return String::new();
        }
        let text = self.read_error(name, status, error);
        let mut kept = lock(&self.kept);
        kept.push_back(Kept {
            pointer: error,
            status,
            text: text.clone(),
        });
        // Some live on, to be looked at when their layer is gone.
        let old = if kept.len() > 8 {
            kept.pop_front()
        } else {
            None
        };
        drop(kept);
        if let Some(old) = old {
            self.drop_error(old);
        }
        text.to_string_lossy().into_owned()
    }

    /// Reads an error that must be of this status.
    pub(super) fn read_error(
        &self,
        name: &str,
        status: Status,
        error: *const layer_error_t,
    ) -> CString {
        // SAFETY: the library gave this error and it is not freed.
        let (of_error, text) = unsafe {
            let text = (self.api.error_message)(error);
            if text.is_null() {
                self.wrong(format!("{name}: an error without a text"));
                return CString::default();
            }
            (
                (self.api.error_status)(error),
                CStr::from_ptr(text).to_owned(),
            )
        };
        if of_error != status {
            self.wrong(format!(
                "{name} gave {status:?} and an error of {of_error:?}"
            ));
        }
        match text.to_str() {
            Ok("") => self.wrong(format!("{name}: an error of no words")),
            Ok(said) if said.contains(SECRET) => {
                self.wrong(format!("{name}: an error shows a password: {said}"));
            }
            Ok(_) => {}
            Err(_) => self.wrong(format!("{name}: an error that is not UTF-8: {text:?}")),
        }
        if text.count_bytes() > 1 << 20 {
            self.wrong(format!("{name}: an error of {} bytes", text.count_bytes()));
        }
        text
    }

    fn drop_error(&self, kept: Kept) {
        let again = self.read_error("an error that was kept", kept.status, kept.pointer);
        if again != kept.text {
            self.wrong(format!(
                "an error changed from {:?} to {again:?}",
                kept.text
            ));
        }
        // SAFETY: it is ours, and forgotten here.
        unsafe { (self.api.error_free)(kept.pointer) };
    }

    /// What must hold of a call on a layer, beyond its list of statuses.
    pub(super) fn expect(
        &self,
        name: &str,
        status: Status,
        handle: Option<&Handle>,
        was_closed: bool,
        arguments: Arguments,
    ) {
        use Status::{LAYER_CLOSED as CLOSED, LAYER_INVALID as INVALID};
        let Some(handle) = handle else {
            if status != INVALID {
                self.wrong(format!("{name} of no layer gave {status:?}"));
            }
            return;
        };
        let facts = &handle.facts;
        if status == CLOSED && !facts.closing.load(SeqCst) {
            self.wrong(format!("{name} gave {status:?}, and nobody has closed"));
        }
        if status == Status::LAYER_TOO_LARGE && !facts.small {
            self.wrong(format!("{name} gave {status:?} for a small message"));
        }
        match arguments {
            Arguments::Good => {
                if status == INVALID {
                    self.wrong(format!("{name} refused good arguments"));
                }
                if was_closed && status != CLOSED {
                    self.wrong(format!("{name} of a closed layer gave {status:?}"));
                }
            }
            Arguments::Bad => {
                let other = [
                    CLOSED,
                    Status::LAYER_TOO_LARGE,
                    Status::LAYER_WOULD_DEADLOCK,
                ];
                if status != INVALID && !other.contains(&status) {
                    self.wrong(format!("{name} of wrong arguments gave {status:?}"));
                }
            }
            Arguments::Unknown => {}
        }
    }

    // --- Layers -------------------------------------------------------------------------------

    /// Runs a call on the layer of a slot, or on none: its free does not begin meanwhile, unless
    /// the call has begun beyond doubt.
    pub(super) fn with_layer<R>(
        self: &Arc<Self>,
        slot: usize,
        call: impl FnOnce(*const layer_t, Option<&Handle>, bool) -> R,
    ) -> R {
        let Some(place) = self.slots.get(slot) else {
            return call(ptr::null(), None, false);
        };
        let mut state = lock(&place.state);
        let Some(handle) = state.handle.clone() else {
            drop(state);
            return call(ptr::null(), None, false);
        };
        state.beginning += 1;
        drop(state);
        USES.with_borrow_mut(|uses| {
            uses.push(Use {
                world: Arc::as_ptr(self),
                slot,
                begun: Cell::new(false),
            });
        });
        let was_closed = handle.facts.closed.load(SeqCst);
        let result = call(handle.pointer, Some(&handle), was_closed);
        let begun = USES.with_borrow_mut(|uses| uses.pop().is_some_and(|it| it.begun.get()));
        if !begun {
            self.has_begun(slot);
        }
        result
    }

    fn has_begun(&self, slot: usize) {
        lock(&self.slots[slot].state).beginning -= 1;
        self.slots[slot].changed.notify_all();
    }

    /// Puts a layer into a slot that has none; gives it back otherwise.
    pub(super) fn put_layer(&self, slot: usize, handle: Handle) -> Option<Handle> {
        let mut state = lock(&self.slots[slot].state);
        if state.handle.is_some() {
            return Some(handle);
        }
        state.handle = Some(handle);
        None
    }

    /// What is known of the layer of a slot, if there is one.
    pub(super) fn facts(&self, slot: usize) -> Option<Arc<Facts>> {
        let state = lock(&self.slots.get(slot)?.state);
        state
            .handle
            .as_ref()
            .map(|handle| Arc::clone(&handle.facts))
    }

    /// Takes a layer out of its slot, to be freed: no call on it begins any more. Inside a callback
    /// it does not wait, so that it can fail.
    pub(super) fn take_layer(&self, slot: usize) -> Option<Handle> {
        let place = &self.slots[slot];
        let mut state = lock(&place.state);
        if in_callback() && state.beginning > 0 {
            return None;
        }
        let handle = state.handle.take()?;
        let deadline = Instant::now() + self.patience * 2;
        while state.beginning > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.wrong("a call does not return, so that its layer cannot be freed".to_owned());
                std::mem::forget(handle);
                return None;
            }
            state = place
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some(handle)
    }

    pub(super) fn free_layer(&self, handle: Handle) {
        handle.facts.closing.store(true, SeqCst);
        let began = Instant::now();
        // SAFETY: it was taken out of its slot, where all calls find it that begin.
        unsafe { (self.api.free)(handle.pointer) };
        if began.elapsed() > self.patience {
            self.wrong(format!("layer_free took {:?}", began.elapsed()));
        }
    }

    // --- Messages -----------------------------------------------------------------------------

    /// A number for a message that is about to be sent.
    pub(super) fn sends(&self, to: To) -> u64 {
        let mut sent = lock(&self.sent);
        // Always four bytes, in MessagePack and from JSON.
        let number = (1 << 24) + sent.len() as u64;
        sent.insert(number, to);
        number
    }

    /// What became of a message, where that is certain.
    pub(super) fn outcome(&self, message: u64, status: Status) {
        use Status::*;
        let to_group = matches!(lock(&self.sent).get(&message), Some(To::Group(_)));
        let unsent = match status {
            // The other members have it.
            LAYER_FULL => !to_group,
            LAYER_OK | LAYER_TIMEOUT | LAYER_UNCONFIRMED => false,
            _ => true,
        };
        if unsent {
            lock(&self.unsent).insert(message, status);
        }
    }

    /// Looks at a message that has come. Returns its number if it is one of ours.
    pub(super) fn look_at(&self, message: *const layer_message_t) -> Option<(u64, String)> {
        let api = &self.api;
        let mut length = usize::MAX;
        // SAFETY: the message is alive, and so is what belongs to it.
        let (data, channel, group, kind) = unsafe {
            let data = (api.message_data)(message, &raw mut length);
            if data.is_null() || length > 1 << 30 {
                self.wrong(format!("a message without data, of length {length}"));
                return None;
            }
            (
                std::slice::from_raw_parts(data, length),
                text_of((api.message_channel)(message)),
                text_of((api.message_group)(message)),
                text_of((api.message_type)(message)),
            )
        };
        let Some(channel) = channel else {
            self.wrong("a message without a channel".to_owned());
            return None;
        };
        let mut json = ptr::null();
        let status = self.call(
            "layer_message_json",
            true,
            &[Status::LAYER_OK, Status::LAYER_INVALID],
            // SAFETY: as above.
            |error| unsafe { (api.message_json)(message, &raw mut json, error) },
        );
        // SAFETY: what the library wrote on success is a string of the message.
        let json = unsafe { text_of(json) };
        if (status == Status::LAYER_OK) != json.is_some() {
            self.wrong(format!("layer_message_json gave {status:?} and {json:?}"));
        }
        const OURS: &[u8] = b"\xa4type\xa1t\xa1n\xce";
        let rest = data.get(1..)?.strip_prefix(OURS)?;
        let number = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        let number = u64::from(number);
        if kind.as_deref() != Some("t") {
            self.wrong(format!("a message of type {kind:?} instead of t"));
        }
        let to = match group {
            None => To::Channel(channel.clone()),
            Some(group) => To::Group(group),
        };
        let sent = lock(&self.sent).get(&number).cloned();
        if sent.as_ref() != Some(&to) {
            self.wrong(format!("message {number} for {sent:?} came to {to:?}"));
        }
        Some((number, channel))
    }

    /// A message was taken, which it may be once.
    pub(super) fn takes(&self, (number, channel): (u64, String)) {
        if !lock(&self.taken).insert((number, channel.clone())) {
            self.wrong(format!("message {number} came twice on {channel}"));
        }
    }

    // --- Callbacks ----------------------------------------------------------------------------

    /// A callback to hand in.
    pub(super) fn token(
        self: &Arc<Self>,
        kind: Kind,
        has_destroy: bool,
        script: &[u8],
        message: Option<u64>,
    ) -> Arc<Token> {
        let mut tokens = lock(&self.tokens);
        let token = Arc::new(Token {
            world: Arc::clone(self),
            number: tokens.len(),
            kind,
            has_destroy,
            script: script.to_vec(),
            message,
            taken: Mutex::new(Taken::Perhaps),
            giver: Mutex::new(Some(thread::current().id())),
            running: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            destroys: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        });
        tokens.push(Arc::clone(&token));
        token
    }

    /// The call that handed it in has returned.
    pub(super) fn handed_in(&self, token: &Token, status: Status) {
        *lock(&token.giver) = None;
        let taken = match status {
            Status::LAYER_OK => Taken::Yes,
            _ => Taken::No,
        };
        *lock(&token.taken) = taken;
        let ran = token.calls.load(SeqCst) + token.destroys.load(SeqCst);
        if taken == Taken::No && ran > 0 {
            self.wrong(format!("{} was refused and has run", token.name()));
        }
    }

    /// Runs what a callback does. Marks the calls that this thread is inside as begun.
    pub(super) fn inside_callback<R>(self: &Arc<Self>, run: impl FnOnce() -> R) -> R {
        self.callbacks.fetch_add(1, SeqCst);
        USES.with_borrow(|uses| {
            for it in uses {
                if it.world == Arc::as_ptr(self) && !it.begun.replace(true) {
                    self.has_begun(it.slot);
                }
            }
        });
        CALLBACKS.set(CALLBACKS.get() + 1);
        let result = run();
        CALLBACKS.set(CALLBACKS.get() - 1);
        result
    }

    /// Does what a script says, from inside a callback.
    pub(super) fn obey_script(self: &Arc<Self>, script: &[u8]) {
        let mut dice = Dice::new(script);
        for _ in 0..2 {
            // Deep nesting would only be our own.
            if dice.is_empty() || CALLBACKS.get() > 3 || !self.act(&mut dice) {
                return;
            }
        }
    }

    pub(super) fn callback_ended(&self) {
        drop(lock(&self.quiet.0));
        self.quiet.1.notify_all();
    }

    // --- The end ------------------------------------------------------------------------------

    /// When all layers and configs are freed: what is left must end by itself.
    pub(super) fn wait_until_over(&self) {
        let deadline = Instant::now() + self.patience;
        let mut quiet = lock(&self.quiet.0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let tokens = lock(&self.tokens).clone();
            if left.is_zero() || tokens.iter().all(|token| token.over()) {
                break;
            }
            quiet = self
                .quiet
                .1
                .wait_timeout(quiet, left.min(Duration::from_millis(100)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(quiet);
        for token in lock(&self.tokens).iter() {
            let (calls, destroys) = (token.calls.load(SeqCst), token.destroys.load(SeqCst));
            let taken = *lock(&token.taken);
            match taken {
                Taken::Yes => {
                    if token.has_destroy && destroys != 1 {
                        self.wrong(format!("{} was destroyed {destroys} times", token.name()));
                    }
                    if token.kind == Kind::Done && calls != 1 {
                        self.wrong(format!("{} was called {calls} times", token.name()));
                    }
                    if !token.over() {
                        self.wrong(format!("{} has not ended", token.name()));
                    }
                }
                Taken::No => {
                    if calls + destroys > 0 {
                        self.wrong(format!("{} was refused and has run", token.name()));
                    }
                }
                Taken::Perhaps => self.wrong(format!("{} was never decided", token.name())),
            }
        }
        let taken = lock(&self.taken);
        for (message, status) in lock(&self.unsent).iter() {
            if taken.iter().any(|(number, _)| number == message) {
                self.wrong(format!(
                    "message {message} came, and its sender heard {status:?}"
                ));
            }
        }
        drop(taken);
        for kept in std::mem::take(&mut *lock(&self.kept)) {
            self.drop_error(kept);
        }
    }

    pub(super) fn report(self: &Arc<Self>) -> Report {
        let report = Report {
            wrong: lock(&self.wrong).clone(),
            statuses: self.statuses.iter().map(|it| it.load(SeqCst)).collect(),
            callbacks: self.callbacks.load(SeqCst),
            received: lock(&self.taken).len(),
        };
        // Where something is wrong a callback may still come, and finds what it needs. Where all
        // is well one may be on its way out of our code, so that a few cases are kept.
        static KEPT: Mutex<VecDeque<Vec<Arc<Token>>>> = Mutex::new(VecDeque::new());
        if report.wrong.is_empty() {
            lock(&self.receivers).clear();
            let mut kept = lock(&KEPT);
            kept.push_back(std::mem::take(&mut *lock(&self.tokens)));
            if kept.len() > 8 {
                kept.pop_front();
            }
        } else {
            std::mem::forget(Arc::clone(self));
        }
        CASES.fetch_sub(1, SeqCst);
        report
    }
}

/// What is known of the arguments of a call, the layer apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arguments {
    Good,
    Bad,
    /// Bytes of which nothing is known.
    Unknown,
}

impl Arguments {
    pub(super) fn of(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }

    pub(super) fn and(self, good: bool) -> Self {
        if good { self } else { Self::Bad }
    }
}

/// # Safety
/// `text` is NULL or a string that is alive.
unsafe fn text_of(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by this function's own contract.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
