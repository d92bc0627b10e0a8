//! The callbacks that the program hands in. Each holds the library to the rules of its kind, and
//! then does what its script says.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use crate::ffi::callback::{layer_isolation_t, layer_log_level_t, layer_state_t};
use crate::ffi::message::layer_message_t;
use crate::ffi::status::{layer_error_t, layer_status_t as Status};
use crate::log::RecordId;

use super::model::{Held, Kind, SECRET, Taken, Token, lock};

/// # Safety
/// `userdata` is that of a token whose world is not over.
unsafe fn token<'a>(userdata: *mut c_void) -> &'a Token {
    // SAFETY: the world keeps its tokens; by this function's own contract.
    unsafe { &*userdata.cast_const().cast::<Token>() }
}

/// A call of a callback: what holds for all kinds.
fn enter(token: &Token, kind: Kind) {
    let wrong = |what: &str| token.world.wrong(format!("{} {what}", token.name()));
    if token.kind != kind {
        wrong(&format!("was called as {kind:?}"));
    }
    token.calls.fetch_add(1, SeqCst);
    token.running.fetch_add(1, SeqCst);
    if token.destroys.load(SeqCst) > 0 {
        wrong("was called after its destroy");
    }
    if token.ended.load(SeqCst) {
        wrong("was called after its last call");
    }
    if *lock(&token.taken) == Taken::No {
        wrong("was refused and is called");
    }
}

fn leave(token: &Token) {
    token.running.fetch_sub(1, SeqCst);
    token.world.callback_ended();
}

pub(super) unsafe extern "C" fn on_destroy(userdata: *mut c_void) {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    let wrong = |what: &str| token.world.wrong(format!("{} {what}", token.name()));
    if token.running.load(SeqCst) > 0 {
        wrong("was destroyed while it runs");
    }
    if token.destroys.fetch_add(1, SeqCst) > 0 {
        wrong("was destroyed twice");
    }
    if *lock(&token.taken) == Taken::No {
        wrong("was refused and is destroyed");
    }
    if token.kind == Kind::Done && token.calls.load(SeqCst) != 1 {
        wrong("was destroyed before it was called");
    }
    // Not `running`: it is destroyed already.
    token.world.inside_callback(|| {
        if let Some(script) = token.script.get(4..) {
            token.world.obey_script(script);
        }
    });
    token.world.callback_ended();
}

pub(super) unsafe extern "C" fn on_done(
    userdata: *mut c_void,
    status: Status,
    error: *const layer_error_t,
) {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    let world = &token.world;
    let wrong = |what: String| world.wrong(format!("{} {what}", token.name()));
    enter(token, Kind::Done);
    if *lock(&token.giver) == Some(thread::current().id()) {
        wrong("was called inside the call that hands it in".to_owned());
    }
    if token.calls.load(SeqCst) > 1 {
        wrong("was called twice".to_owned());
    }
    match (status, error.is_null()) {
        (Status::LAYER_OK, false) => wrong("was told LAYER_OK with an error".to_owned()),
        (Status::LAYER_OK, true) => {}
        (_, true) => wrong(format!("was told {status:?} without an error")),
        (_, false) => drop(world.read_error("done", status, error)),
    }
    const DOCUMENTED: &[Status] = &[
        Status::LAYER_OK,
        Status::LAYER_FULL,
        Status::LAYER_NO_CHANNEL,
        Status::LAYER_DISCONNECTED,
        Status::LAYER_TIMEOUT,
        Status::LAYER_UNCONFIRMED,
        Status::LAYER_CLOSED,
    ];
    if !DOCUMENTED.contains(&status) {
        wrong(format!("was told {status:?}"));
    }
    if let Some(message) = token.message {
        world.outcome(message, status);
    }
    world.inside_callback(|| world.obey_script(&token.script));
    leave(token);
}

pub(super) unsafe extern "C" fn on_receive(
    userdata: *mut c_void,
    status: Status,
    message: *const layer_message_t,
) -> i32 {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    let world = &token.world;
    let wrong = |what: String| world.wrong(format!("{} {what}", token.name()));
    enter(token, Kind::Receive);
    if token.running.load(SeqCst) > 1 {
        wrong("was called twice at once".to_owned());
    }
    let flow = world.inside_callback(|| match (status, message.is_null()) {
        (Status::LAYER_OK, false) => {
            let seen = world.look_at(message);
            let how = token.script.first().copied().unwrap_or(0);
            if how & 1 == 1 {
                // What is lent is not freed by this.
                // SAFETY: the header allows it for a message that is lent.
                unsafe { (world.api.message_free)(message.cast_mut()) };
            }
            if how & 2 == 2
                && let Some((_, channel)) = &seen
            {
                keep(token, message, channel);
            }
            if let Some(script) = token.script.get(1..) {
                world.obey_script(script);
            }
            let turn = token.calls.load(SeqCst) + usize::from(how >> 2);
            let flow = match turn % 16 {
                13 => 1,
                14 => 2,
                15 => i32::from(how) - 100,
                _ => 0,
            };
            if flow != 0 {
                token.ended.store(true, SeqCst);
            }
            if flow != 2
                && let Some(seen) = seen
            {
                world.takes(seen);
            }
            flow
        }
        (Status::LAYER_CANCELLED | Status::LAYER_CLOSED, true) => {
            token.ended.store(true, SeqCst);
            world.obey_script(&token.script);
            0
        }
        (status, no_message) => {
            wrong(format!(
                "was called with {status:?}, message: {}",
                !no_message
            ));
            1
        }
    });
    leave(token);
    flow
}

/// Keeps a message beyond the callback.
fn keep(token: &Token, message: *const layer_message_t, channel: &str) {
    let world = &token.world;
    let mut length = 0;
    // SAFETY: the message is lent to this callback.
    let (pointer, data) = unsafe {
        let data = (world.api.message_data)(message, &raw mut length);
        let data = std::slice::from_raw_parts(data, length).to_vec();
        ((world.api.message_ref)(message), data)
    };
    if pointer.is_null() {
        world.wrong("layer_message_ref gave NULL for a message".to_owned());
        return;
    }
    lock(&world.messages).push(Held {
        pointer,
        data,
        channel: std::ffi::CString::new(channel).unwrap_or_default(),
    });
}

pub(super) unsafe extern "C" fn on_log(
    userdata: *mut c_void,
    level: layer_log_level_t,
    id: *const c_char,
    target: *const c_char,
    message: *const c_char,
) {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    enter(token, Kind::Log);
    if id.is_null() || target.is_null() || message.is_null() {
        token
            .world
            .wrong(format!("a log record of {level:?} without words"));
    } else {
        // SAFETY: all are strings that are borrowed until we return.
        let (id, target, message) = unsafe {
            (
                CStr::from_ptr(id),
                CStr::from_ptr(target),
                CStr::from_ptr(message),
            )
        };
        let known = RecordId::ALL
            .iter()
            .any(|known| id.to_str() == Ok(known.as_str()));
        if !known {
            token.world.wrong(format!("a log record of id {id:?}"));
        }
        let said = message.to_string_lossy();
        if target.to_str().is_err() || message.to_str().is_err() || said.contains(SECRET) {
            token
                .world
                .wrong(format!("a log record {target:?}: {said}"));
        }
        if said.contains("panic") || said.contains("a bug") {
            token.world.wrong(format!("the log tells of a bug: {said}"));
        }
    }
    token
        .world
        .inside_callback(|| token.world.obey_script(&token.script));
    leave(token);
}

pub(super) unsafe extern "C" fn on_state(
    userdata: *mut c_void,
    _state: layer_state_t,
    generation: u64,
) {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    enter(token, Kind::State);
    if generation > 1 {
        // In memory nothing is ever lost.
        token
            .world
            .wrong(format!("a state of generation {generation}"));
    }
    token
        .world
        .inside_callback(|| token.world.obey_script(&token.script));
    leave(token);
}

pub(super) unsafe extern "C" fn on_isolation(
    userdata: *mut c_void,
    event: layer_isolation_t,
    channel: *const c_char,
    count: u64,
) {
    // SAFETY: the library gives back what it was given.
    let token = unsafe { token(userdata) };
    enter(token, Kind::Isolation);
    let lost = event == layer_isolation_t::LAYER_ISOLATION_LOST;
    if (!lost && !channel.is_null()) || (lost && count == 0) {
        token
            .world
            .wrong(format!("{event:?} of channel {channel:?} with {count}"));
    }
    if !channel.is_null() {
        // SAFETY: a string that is borrowed until we return.
        let channel = unsafe { CStr::from_ptr(channel) };
        if !channel.to_bytes().contains(&b'!') {
            token.world.wrong(format!("{channel:?} has lost {count}"));
        }
    }
    token
        .world
        .inside_callback(|| token.world.obey_script(&token.script));
    leave(token);
}
