//! The program reaches what it is for, and sees a library that breaks its promises.

use std::collections::HashSet;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use fastrand::Rng;

use crate::ffi::callback::{layer_destroy_cb, layer_done_cb, layer_receive_cb};
use crate::ffi::layer::layer_t;
use crate::ffi::message::layer_message_t;
use crate::ffi::status::{layer_error_t, layer_status_t as Status};

use super::api::Api;
use super::callbacks::on_receive;
use super::{PATIENCE, run};

/// A program of random acts.
fn random_program(rng: &mut Rng) -> Vec<u8> {
    let mut input = vec![0; rng.usize(40..600)];
    rng.fill(&mut input);
    input
}

#[test]
fn the_program_reaches_what_it_is_for() {
    let mut rng = Rng::with_seed(1);
    let mut statuses = [0; 15];
    let (mut callbacks, mut received) = (0, 0);
    for _ in 0..400 {
        let report = run(Api::LIBRARY, PATIENCE, &random_program(&mut rng));
        assert!(report.wrong.is_empty(), "{:?}", report.wrong);
        for (sum, one) in statuses.iter_mut().zip(report.statuses) {
            *sum += one;
        }
        callbacks += report.callbacks;
        received += report.received;
    }
    println!("statuses {statuses:?}, {callbacks} callbacks, {received} messages taken");
    for status in [
        Status::LAYER_OK,
        Status::LAYER_INVALID,
        Status::LAYER_FULL,
        Status::LAYER_NO_CHANNEL,
        Status::LAYER_TOO_LARGE,
        Status::LAYER_BUSY,
        Status::LAYER_TIMEOUT,
        Status::LAYER_CLOSED,
        Status::LAYER_WOULD_DEADLOCK,
    ] {
        assert!(statuses[status as usize] > 0, "{status:?} does not occur");
    }
    assert!(callbacks > 1000 && received > 200);
}

/// Runs programs on a broken library until one says what is wrong with it.
fn seen(what: &str, with: &str, api: Api) {
    seen_within(PATIENCE, what, with, api);
}

fn seen_within(patience: Duration, what: &str, with: &str, api: Api) {
    let mut rng = Rng::with_seed(2);
    let mut others = HashSet::new();
    for _ in 0..400 {
        let report = run(api, patience, &random_program(&mut rng));
        if report.wrong.iter().any(|wrong| wrong.contains(with)) {
            return;
        }
        others.extend(report.wrong);
    }
    panic!("{what}: no program says {with:?}; they say {others:?}");
}

type Error = *mut *mut layer_error_t;

unsafe extern "C" fn destroys_what_it_refuses(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        let status = (Api::LIBRARY.send_async)(
            layer, channel, message, length, done, userdata, destroy, error,
        );
        if let (true, Some(destroy)) = (status != Status::LAYER_OK, destroy) {
            destroy(userdata);
        }
        status
    }
}

unsafe extern "C" fn never_done(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: Error,
) -> Status {
    if !layer.is_null() && !channel.is_null() && done.is_some() && length > 0 {
        return Status::LAYER_OK;
    }
    // SAFETY: as the library's own.
    unsafe {
        (Api::LIBRARY.send_async)(
            layer, channel, message, length, done, userdata, destroy, error,
        )
    }
}

unsafe extern "C" fn done_inside(
    layer: *const layer_t,
    group: *const c_char,
    channel: *const c_char,
    done: layer_done_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        let status = (Api::LIBRARY.group_discard)(layer, group, channel, error);
        if let (Status::LAYER_OK, Some(done), Some(destroy)) = (status, done, destroy) {
            done(userdata, Status::LAYER_OK, ptr::null());
            destroy(userdata);
        }
        status
    }
}

unsafe extern "C" fn twice(
    userdata: *mut c_void,
    status: Status,
    message: *const layer_message_t,
) -> i32 {
    // SAFETY: the userdata is that of a receiver.
    unsafe {
        on_receive(userdata, status, message);
        on_receive(userdata, status, message)
    }
}

unsafe extern "C" fn receives_twice(
    layer: *const layer_t,
    channel: *const c_char,
    callback: layer_receive_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    receiver: *mut u64,
    error: Error,
) -> Status {
    let callback = callback.map(|_| twice as _);
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.receive)(layer, channel, callback, userdata, destroy, receiver, error) }
}

/// The `destroy` of the program, which a broken one is put before.
static DESTROY: Mutex<layer_destroy_cb> = Mutex::new(None);

unsafe extern "C" fn destroy_twice(userdata: *mut c_void) {
    let destroy = *DESTROY.lock().unwrap();
    if let Some(destroy) = destroy {
        // SAFETY: the userdata is that of the callback.
        unsafe {
            destroy(userdata);
            destroy(userdata);
        }
    }
}

unsafe extern "C" fn destroys_twice(
    layer: *const layer_t,
    channel: *const c_char,
    callback: layer_receive_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    receiver: *mut u64,
    error: Error,
) -> Status {
    if destroy.is_some() {
        *DESTROY.lock().unwrap() = destroy;
    }
    let destroy = destroy.map(|_| destroy_twice as _);
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.receive)(layer, channel, callback, userdata, destroy, receiver, error) }
}

unsafe extern "C" fn never_destroys(
    layer: *const layer_t,
    channel: *const c_char,
    callback: layer_receive_cb,
    userdata: *mut c_void,
    _destroy: layer_destroy_cb,
    receiver: *mut u64,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.receive)(layer, channel, callback, userdata, None, receiver, error) }
}

unsafe extern "C" fn same_receiver(
    layer: *const layer_t,
    channel: *const c_char,
    callback: layer_receive_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    receiver: *mut u64,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        let status =
            (Api::LIBRARY.receive)(layer, channel, callback, userdata, destroy, receiver, error);
        if !receiver.is_null() && status == Status::LAYER_OK {
            receiver.write(7);
        }
        status
    }
}

unsafe extern "C" fn cancels_nothing(layer: *const layer_t, _: u64, error: Error) -> Status {
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.receive_cancel)(layer, 0, error) }
}

unsafe extern "C" fn fails_without_error(
    layer: *const layer_t,
    channel: *const c_char,
    _: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.channel_discard)(layer, channel, ptr::null_mut()) }
}

unsafe extern "C" fn succeeds_with_error(
    layer: *const layer_t,
    channel: *const c_char,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        let status = (Api::LIBRARY.channel_discard)(layer, channel, error);
        if status == Status::LAYER_OK && !error.is_null() {
            error.write(ptr::null_mut());
        }
        status
    }
}

unsafe extern "C" fn undocumented(
    layer: *const layer_t,
    channel: *const c_char,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    match unsafe { (Api::LIBRARY.channel_discard)(layer, channel, error) } {
        Status::LAYER_OK => Status::LAYER_OK,
        _ => Status::LAYER_FULL,
    }
}

unsafe extern "C" fn writes_on_failure(
    layer: *const layer_t,
    which: u32,
    value: *mut u64,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        if !value.is_null() {
            value.write(0);
        }
        (Api::LIBRARY.stat)(layer, which, value, error)
    }
}

unsafe extern "C" fn writes_too_much(
    layer: *const layer_t,
    prefix: *const c_char,
    name: *mut c_char,
    size: usize,
    error: Error,
) -> Status {
    // SAFETY: as the library's own; the program's buffer is larger than what it tells.
    unsafe {
        let status = (Api::LIBRARY.new_channel)(layer, prefix, name, size, error);
        if status == Status::LAYER_OK {
            name.add(size).write(0);
        }
        status
    }
}

unsafe extern "C" fn slow(layer: *const layer_t, timeout: u32, error: Error) -> Status {
    std::thread::sleep(Duration::from_millis(400));
    // SAFETY: as the library's own.
    unsafe { (Api::LIBRARY.wait_ready)(layer, timeout, error) }
}

unsafe extern "C" fn waits_in_callbacks(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        match (Api::LIBRARY.send)(layer, channel, message, length, error) {
            Status::LAYER_WOULD_DEADLOCK => Status::LAYER_TIMEOUT,
            status => status,
        }
    }
}

unsafe extern "C" fn takes_bad_messages(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    unsafe {
        let status = (Api::LIBRARY.send)(layer, channel, message, length, error);
        let refused = status == Status::LAYER_INVALID && !layer.is_null() && !error.is_null();
        if refused { Status::LAYER_OK } else { status }
    }
}

unsafe extern "C" fn forgets_to_say_full(
    layer: *const layer_t,
    channel: *const c_char,
    message: *const u8,
    length: usize,
    error: Error,
) -> Status {
    // A lie: it was sent.
    // SAFETY: as the library's own.
    unsafe {
        match (Api::LIBRARY.send)(layer, channel, message, length, error) {
            Status::LAYER_OK => Status::LAYER_FULL,
            status => status,
        }
    }
}

static EVERY_OTHER: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn closed_at_times(
    layer: *const layer_t,
    group: *const c_char,
    channel: *const c_char,
    error: Error,
) -> Status {
    // SAFETY: as the library's own.
    match unsafe { (Api::LIBRARY.group_discard)(layer, group, channel, error) } {
        Status::LAYER_OK if EVERY_OTHER.fetch_add(1, SeqCst) % 2 == 1 => Status::LAYER_CLOSED,
        status => status,
    }
}

const LIBRARY: Api = Api::LIBRARY;

#[test]
fn a_callback_that_is_refused_and_destroyed_is_seen() {
    let api = Api {
        send_async: destroys_what_it_refuses,
        ..LIBRARY
    };
    seen("destroys what it refuses", "was refused and", api);
}

#[test]
fn a_callback_that_is_destroyed_twice_or_never_is_seen() {
    let api = Api {
        receive: destroys_twice,
        ..LIBRARY
    };
    seen("destroys twice", "was destroyed twice", api);
    let api = Api {
        receive: never_destroys,
        ..LIBRARY
    };
    let patience = Duration::from_millis(500);
    seen_within(patience, "never destroys", "was destroyed 0 times", api);
}

#[test]
fn an_outcome_that_never_comes_or_comes_too_early_is_seen() {
    let api = Api {
        send_async: never_done,
        ..LIBRARY
    };
    let patience = Duration::from_millis(500);
    seen_within(patience, "never done", "was called 0 times", api);
    let api = Api {
        group_add_async: done_inside,
        ..LIBRARY
    };
    seen_within(patience, "done inside", "was called inside the call", api);
}

#[test]
fn a_message_that_comes_twice_is_seen() {
    let api = Api {
        receive: receives_twice,
        ..LIBRARY
    };
    seen("receives twice", "came twice on", api);
    seen("receives twice", "was called after its last call", api);
}

#[test]
fn a_receiver_that_is_not_cancelled_or_has_no_number_of_its_own_is_seen() {
    let api = Api {
        receive: same_receiver,
        ..LIBRARY
    };
    seen("same receiver", "is there twice", api);
    let api = Api {
        receive_cancel: cancels_nothing,
        ..LIBRARY
    };
    seen("cancels nothing", "was called after its last call", api);
}

#[test]
fn an_error_object_that_is_missing_or_too_many_is_seen() {
    let api = Api {
        channel_discard: fails_without_error,
        ..LIBRARY
    };
    seen("fails without error", "and no error object", api);
    let api = Api {
        channel_discard: succeeds_with_error,
        ..LIBRARY
    };
    seen("succeeds with error", "succeeded and wrote an error", api);
}

#[test]
fn a_status_that_must_not_be_is_seen() {
    let api = Api {
        channel_discard: undocumented,
        ..LIBRARY
    };
    seen("undocumented", "which is not documented", api);
    seen("undocumented", "and an error of LAYER_INVALID", api);
    let api = Api {
        send: takes_bad_messages,
        ..LIBRARY
    };
    seen(
        "takes bad messages",
        "of wrong arguments gave LAYER_OK",
        api,
    );
    let api = Api {
        send: waits_in_callbacks,
        ..LIBRARY
    };
    seen("waits in callbacks", "inside a callback", api);
    let api = Api {
        group_discard: closed_at_times,
        ..LIBRARY
    };
    seen("closed at times", "and nobody has closed", api);
}

#[test]
fn an_output_that_is_written_and_must_not_be_is_seen() {
    let api = Api {
        stat: writes_on_failure,
        ..LIBRARY
    };
    seen(
        "writes on failure",
        "layer_stat gave LAYER_INVALID and",
        api,
    );
    let api = Api {
        new_channel: writes_too_much,
        ..LIBRARY
    };
    seen("writes too much", "wrote beyond", api);
}

#[test]
fn a_lie_about_a_message_is_seen() {
    let api = Api {
        send: forgets_to_say_full,
        ..LIBRARY
    };
    seen("a lie", "and its sender heard LAYER_FULL", api);
}

#[test]
fn a_call_that_takes_too_long_is_seen() {
    let api = Api {
        wait_ready: slow,
        ..LIBRARY
    };
    let patience = Duration::from_millis(300);
    seen_within(patience, "slow", "layer_wait_ready took", api);
}
