//! What the program does: an act for each function, and one byte chooses the act.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, OnceLock};

use crate::ffi::callback::{layer_destroy_cb, layer_done_cb, layer_state_t};
use crate::ffi::config::layer_config_new;
use crate::ffi::status::{layer_error_t, layer_status_name, layer_status_t};

use super::callbacks::{on_destroy, on_done, on_log, on_receive, on_state};
use super::model::{
    Arguments, Config, Dice, Facts, Handle, Held, Kind, SECRET, To, Token, World, in_callback, lock,
};

use layer_status_t::{
    LAYER_BUSY as BUSY, LAYER_CANCELLED as CANCELLED, LAYER_CLOSED as CLOSED,
    LAYER_DISCONNECTED as DISCONNECTED, LAYER_FULL as FULL, LAYER_INVALID as INVALID,
    LAYER_NO_CHANNEL as NO_CHANNEL, LAYER_OK as OK, LAYER_TIMEOUT as TIMEOUT,
    LAYER_TOO_LARGE as TOO_LARGE, LAYER_UNCONFIRMED as UNCONFIRMED,
    LAYER_WOULD_DEADLOCK as WOULD_DEADLOCK,
};

type Act = fn(&Arc<World>, &mut Dice<'_>);

/// All acts. What makes messages move stands more than once.
const ACTS: &[Act] = &[
    send,
    send,
    send_async,
    send_async,
    group_send,
    group_send_async,
    receive,
    receive,
    receive_next,
    receive_next,
    poll,
    poll,
    poll,
    cancel,
    group_add,
    group_add,
    group_add_async,
    group_discard,
    channel_discard,
    new_channel,
    new_channel,
    messages,
    messages,
    state,
    stat,
    wait_ready,
    config,
    config_set,
    config_callback,
    new,
    new,
    close,
    free,
    nothing,
];

pub(super) fn act(world: &Arc<World>, dice: &mut Dice<'_>) {
    dice.pick(ACTS)(world, dice);
}

/// Does what the bytes say, outside of callbacks.
pub(super) fn obey(world: &Arc<World>, bytes: &[u8]) {
    let mut dice = Dice::new(bytes);
    while !dice.is_empty() && world.may_act() {
        act(world, &mut dice);
    }
}

/// A layer in the first slot, with callbacks for its events and a channel.
pub(super) fn open_first(world: &Arc<World>, mode: u8) {
    make_config(world, 0);
    // Where little fits, much is refused.
    let options: &[(&CStr, &CStr)] = match (mode >> 3) & 3 {
        0 => &[],
        1 => &[(c"max_in_flight", c"1")],
        2 => &[
            (c"local_capacity", c"1"),
            (c"prefetch_count", c"1"),
            (c"remote_capacity", c"1"),
        ],
        _ => &[
            (c"local_capacity", c"0"),
            (c"remote_capacity", c"2"),
            (c"channel_capacity", c"1"),
            (c"max_in_flight", c"2"),
            (c"dispatch_threads", c"2"),
        ],
    };
    config_of(world, 0, |place| {
        if let Some(config) = place {
            for (name, value) in options {
                set_option(world, config, name, value, true);
            }
        }
    });
    config_callback(world, &mut Dice::new(&[0, 0, mode & 0x40, 1, 1]));
    config_callback(world, &mut Dice::new(&[0, 1, mode & 0x80, 1, 1]));
    new(world, &mut Dice::new(&[0, 0, 1, 1]));
    if mode & 0x20 != 0 {
        new(world, &mut Dice::new(&[1, 0, 1, 1]));
    }
}

/// Frees all that is left, and waits for what that ends.
pub(super) fn end(world: &Arc<World>) {
    world.ending.store(true, SeqCst);
    for slot in 0..3 {
        if let Some(handle) = world.take_layer(slot) {
            world.free_layer(handle);
        }
    }
    for config in &world.configs {
        if let Some(config) = lock(config).take() {
            // SAFETY: it was taken from where all acts find it.
            unsafe { (world.api.config_free)(config.pointer) };
        }
    }
    for held in std::mem::take(&mut *lock(&world.messages)) {
        look_again(world, &held);
        // SAFETY: it is ours, and forgotten here.
        unsafe { (world.api.message_free)(held.pointer) };
    }
    world.wait_until_over();
}

// --- Arguments ----------------------------------------------------------------------------------

/// A string, or NULL; and whether it is what it should be.
struct Text {
    text: Option<CString>,
    good: bool,
}

impl Text {
    fn new(bytes: &[u8], good: impl FnOnce(&str) -> bool) -> Self {
        let good = str::from_utf8(bytes).is_ok_and(good);
        let text = CString::new(bytes).expect("no text here holds a NUL");
        Self {
            text: Some(text),
            good,
        }
    }

    fn null() -> Self {
        Self {
            text: None,
            good: false,
        }
    }

    fn pointer(&self) -> *const c_char {
        self.text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }

    fn str(&self) -> String {
        let text = self.text.as_deref().unwrap_or_default();
        text.to_string_lossy().into_owned()
    }
}

fn plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_channel(text: &str) -> bool {
    text.len() < 100
        && text.split('!').count() == 2
        && !text.starts_with('!')
        && plain(&text.replacen('!', "", 1))
}

fn is_group(text: &str) -> bool {
    (1..100).contains(&text.len()) && plain(text)
}

/// Strings that are no name of anything.
fn odd(dice: &mut Dice<'_>) -> Text {
    const ODD: &[&[u8]] = &[
        b"",
        b"!",
        b"a!b!c",
        b"!a",
        b"a b!c",
        b"a!\xff",
        b"\xed\xa0\x80",
        b"a/b",
        b"\x01",
        "g\u{e9}!x".as_bytes(),
        b"a!b\n",
    ];
    match dice.below(ODD.len() + 3) {
        0 => Text::null(),
        1 => Text::new(&b"x".repeat(100_000), |_| false),
        2 => Text::new(&[b"q!", &b"y".repeat(98)[..]].concat(), |_| false),
        n => Text::new(ODD[n - 3], |_| false),
    }
}

/// A channel, of the layer in the slot as a rule.
fn channel(world: &World, dice: &mut Dice<'_>, slot: usize) -> Text {
    let how = dice.below(16);
    let own = world.facts(slot).filter(|_| how < 11);
    let known = match own {
        Some(facts) => lock(&facts.channels).clone(),
        None => lock(&world.channels).clone(),
    };
    match how {
        14 => odd(dice),
        15 => Text::new(b"nobody!here", is_channel),
        _ if known.is_empty() => Text::new(b"nobody!there", is_channel),
        n => {
            let name = &known[dice.below(known.len())];
            match n {
                // Of the same queue, and made up.
                13 => {
                    let queue = name.split('!').next().unwrap_or_default();
                    Text::new(format!("{queue}!").as_bytes(), is_channel)
                }
                _ => Text::new(name.as_bytes(), is_channel),
            }
        }
    }
}

fn group(dice: &mut Dice<'_>) -> Text {
    match dice.below(16) {
        15 => odd(dice),
        14 => Text::new(&b"g".repeat(99), is_group),
        n => Text::new([&b"g0"[..], b"g1", b"g2"][n % 3], is_group),
    }
}

fn own(text: &Text, handle: Option<&Handle>) -> bool {
    let queue = handle.and_then(|handle| handle.facts.queue.get());
    text.good && text.str().split('!').next() == queue.map(String::as_str)
}

/// A slot, with a layer in it as a rule; or one that is none, for NULL.
fn slot(world: &World, dice: &mut Dice<'_>) -> usize {
    match dice.below(16) {
        15 => 3,
        n => (0..3)
            .map(|other| (n + other) % 3)
            .find(|slot| world.facts(*slot).is_some())
            .unwrap_or(n % 3),
    }
}

/// A message, or what is none.
struct Payload {
    bytes: Vec<u8>,
    /// Instead of the bytes.
    pointer: Option<(*const u8, usize)>,
    arguments: Arguments,
    number: Option<u64>,
}

impl Payload {
    fn pointer(&self) -> (*const u8, usize) {
        self.pointer
            .unwrap_or((self.bytes.as_ptr(), self.bytes.len()))
    }
}

fn payload(world: &World, dice: &mut Dice<'_>, to: To) -> Payload {
    const BAD: &[&[u8]] = &[
        b"",
        b"\x80\x80",
        b"\x81\xa1a",
        b"\x81\x01\x01",
        b"\x81\xa1a\xd4\x05\x00",
        b"\xc1",
        b"\x81\xa1a\xa1\xff",
        b"\x81\xb0__asgi_channel__\xa3a!b",
        b"\x91\x80",
        b"\xdf\xff\xff\xff\xff\xa1a\x01",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    let plain = |bytes: Vec<u8>, arguments| Payload {
        bytes,
        pointer: None,
        arguments,
        number: None,
    };
    match dice.below(16) {
        11 => plain(dice.pick(BAD).to_vec(), Arguments::Bad),
        12 => plain(dice.bytes(12).to_vec(), Arguments::Unknown),
        13 => plain([b"\x81\xa1v", dice.bytes(12)].concat(), Arguments::Unknown),
        14 => plain(
            [b"\x81\xa1a", &b"\x91".repeat(10_000)[..], b"\xc0"].concat(),
            Arguments::Bad,
        ),
        15 => {
            let mut payload = plain(vec![0x80], Arguments::Bad);
            // Lengths that no object has, which is to be seen before the bytes are.
            payload.pointer = Some(match dice.below(3) {
                0 => (ptr::null(), 0),
                1 => (ptr::null(), usize::MAX),
                _ => (payload.bytes.as_ptr(), usize::MAX),
            });
            payload
        }
        n => {
            let number = world.sends(to);
            let mut bytes = vec![if n > 8 { 0x83 } else { 0x82 }];
            bytes.extend_from_slice(b"\xa4type\xa1t\xa1n\xce");
            bytes.extend_from_slice(&(number as u32).to_be_bytes());
            if n > 8 {
                bytes.extend_from_slice(b"\xa1b\xc5\x0b\xb8");
                bytes.resize(bytes.len() + 3000, 0xa5);
            }
            let mut payload = plain(bytes, Arguments::Good);
            payload.number = Some(number);
            payload
        }
    }
}

fn json(world: &World, dice: &mut Dice<'_>, to: To) -> (Text, Option<u64>) {
    const BAD: &[&[u8]] = &[
        b"",
        b"[]",
        b"{",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":9223372036854775808}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xff\"}",
        b"{\"__asgi_group__\":\"g\"}",
        b"{\"a\":\"\xef\xbf\xbf?\"}",
        b"{}x",
        b"nul",
    ];
    match dice.below(8) {
        6 => (Text::new(dice.pick(BAD), |_| false), None),
        7 => match dice.below(2) {
            0 => (Text::null(), None),
            _ => (Text::new(&b"{\"a\":".repeat(10_000), |_| false), None),
        },
        _ => {
            let number = world.sends(to);
            let text = format!("{{\"type\":\"t\",\"n\":{number}}}");
            (Text::new(text.as_bytes(), |_| true), Some(number))
        }
    }
}

/// A callback to hand in: function, token, destroy.
struct Given {
    token: Arc<Token>,
    is_null: bool,
    destroy: layer_destroy_cb,
}

fn give(world: &Arc<World>, dice: &mut Dice<'_>, kind: Kind, message: Option<u64>) -> Given {
    let how = dice.byte();
    // Whether events are over is known by their destroy alone.
    let has_destroy = how & 7 != 7 || matches!(kind, Kind::Log | Kind::State);
    let script = dice.bytes(usize::from(how >> 4) % 10);
    Given {
        token: world.token(kind, has_destroy, script, message),
        is_null: how & 8 == 8 && how & 3 == 3,
        destroy: has_destroy.then_some(on_destroy),
    }
}

// --- Configs and layers -------------------------------------------------------------------------

/// The place of a config and whether it could be had: in a callback another call may be inside.
fn config_of(world: &World, number: usize, act: impl FnOnce(&mut Option<Config>)) {
    if in_callback() {
        if let Ok(mut config) = world.configs[number].try_lock() {
            act(&mut config);
        }
    } else {
        act(&mut lock(&world.configs[number]));
    }
}

fn set_option(world: &World, config: &mut Config, name: &CStr, value: &CStr, good: bool) {
    let status = world.call("layer_config_set", true, &[OK, INVALID], |error| {
        // SAFETY: a live config, under its lock, and strings.
        unsafe { (world.api.config_set)(config.pointer, name.as_ptr(), value.as_ptr(), error) }
    });
    if (status == OK) != good {
        world.wrong(format!("option {name:?} = {value:?} gave {status:?}"));
    }
    if status == OK && name == c"dispatch" {
        config.polled = value == c"poll";
    }
    if status == OK && name == c"max_message_size" {
        config.small = value.count_bytes() < 3;
    }
}

fn make_config(world: &World, number: usize) {
    config_of(world, number, |place| {
        if place.is_some() {
            return;
        }
        let mut config = Config {
            pointer: layer_config_new(),
            polled: false,
            small: false,
        };
        let host = CString::new(world.host.as_str()).unwrap_or_default();
        set_option(world, &mut config, c"host", &host, true);
        set_option(world, &mut config, c"timeout", c"0.2", true);
        let dispatch = if world.polled { c"poll" } else { c"thread" };
        set_option(world, &mut config, c"dispatch", dispatch, true);
        *place = Some(config);
    });
}

/// Makes a config, or frees it.
fn config(world: &Arc<World>, dice: &mut Dice<'_>) {
    let number = dice.below(2);
    if dice.below(3) > 0 {
        make_config(world, number);
        return;
    }
    config_of(world, number, |place| {
        let pointer = place
            .take()
            .map_or(ptr::null_mut(), |config| config.pointer);
        // SAFETY: NULL, or a config that was taken from where all acts find it.
        unsafe { (world.api.config_free)(pointer) };
    });
}

fn config_set(world: &Arc<World>, dice: &mut Dice<'_>) {
    const GOOD: &[(&CStr, &[&CStr])] = &[
        (c"local_capacity", &[c"0", c"1", c"3", c"100"]),
        (c"remote_capacity", &[c"1", c"2", c"50"]),
        (c"prefetch_count", &[c"1", c"5"]),
        (c"channel_capacity", &[c"0", c"1", c"4"]),
        (c"max_in_flight", &[c"1", c"2", c"100"]),
        (c"expiry", &[c"0.001", c"0.02", c"60"]),
        (c"local_expiry", &[c"0.001", c"0.02", c"10"]),
        (c"group_expiry", &[c"0.005", c"60"]),
        (c"max_message_size", &[c"1", c"64", c"1000000"]),
        (c"dispatch_threads", &[c"1", c"2", c"3"]),
        (c"timeout", &[c"0.02", c"0.2"]),
        (c"dispatch", &[c"thread", c"poll"]),
        (c"groups_exchange", &[c"g1", c"g2"]),
    ];
    const BAD: &[(&CStr, &CStr)] = &[
        (c"host", c"amqp://me:S3CR3T@@:x"),
        (c"host", c"amqp://me:S3CR3T/x@h"),
        (c"host", c"memory://S3CR3T,amqp://b"),
        (c"amqp://me:S3CR3T@h", c"host"),
        (c"expiry", c"-1"),
        (c"timeout", c"99999999999999999999"),
        (c"local_capacity", c"1e3"),
        (c"queue_name", c"a!b"),
        (c"\xff\xfe", c"1"),
        (c"", c""),
    ];
    let (number, how) = (dice.below(2), dice.below(8));
    config_of(world, number, |place| {
        let Some(config) = place else {
            let status = world.call("layer_config_set", how > 3, &[INVALID], |error| {
                // SAFETY: NULLs and a string.
                unsafe {
                    (world.api.config_set)(ptr::null_mut(), c"host".as_ptr(), ptr::null(), error)
                }
            });
            debug_assert_eq!(status, INVALID);
            return;
        };
        match how {
            6 => {
                let (name, value) = dice.pick(BAD);
                set_option(world, config, name, value, false);
            }
            7 => {
                let name = [ptr::null(), c"expiry".as_ptr()][dice.below(2)];
                world.call("layer_config_set", true, &[INVALID], |error| {
                    // SAFETY: a live config under its lock, a string, and NULLs.
                    unsafe { (world.api.config_set)(config.pointer, name, ptr::null(), error) }
                });
            }
            _ => {
                let (name, values) = dice.pick(GOOD);
                let value = dice.pick(values);
                set_option(world, config, name, value, true);
            }
        }
    });
}

fn config_callback(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (number, is_state) = (dice.below(2), dice.below(2) == 1);
    let kind = if is_state { Kind::State } else { Kind::Log };
    config_of(world, number, |place| {
        let given = give(world, dice, kind, None);
        let pointer = place
            .as_ref()
            .map_or(ptr::null_mut(), |config| config.pointer);
        let (userdata, destroy) = (given.token.userdata(), given.destroy);
        let name = "layer_config_on_log or _on_state";
        let status = world.call(name, dice.below(4) > 0, &[OK, INVALID], |error| {
            // SAFETY: NULL or a live config under its lock; the token outlives the callback.
            unsafe {
                if is_state {
                    let callback = (!given.is_null).then_some(on_state as _);
                    (world.api.config_on_state)(pointer, callback, userdata, destroy, error)
                } else {
                    let callback = (!given.is_null).then_some(on_log as _);
                    (world.api.config_on_log)(pointer, callback, userdata, destroy, error)
                }
            }
        });
        world.handed_in(&given.token, status);
        if (status == OK) != (place.is_some() && !given.is_null) {
            world.wrong(format!("{name} gave {status:?}"));
        }
    });
}

fn new(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, number) = (dice.below(3), dice.below(2));
    let (no_place, want_error) = (dice.below(16) == 15, dice.below(4) > 0);
    if world.facts(slot).is_some() {
        return;
    }
    config_of(world, number, |place| {
        let Some(config) = place else {
            return;
        };
        let mut layer = ptr::null_mut();
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut layer
        };
        let status = world.call("layer_new", want_error, &[OK, INVALID], |error| {
            // SAFETY: a live config under its lock, NULL or a place for a handle.
            unsafe { (world.api.new)(config.pointer, out, error) }
        });
        if (status == OK) == no_place || (status == OK) == layer.is_null() {
            world.wrong(format!("layer_new gave {status:?} and {layer:?}"));
        }
        if layer.is_null() {
            return;
        }
        let handle = Handle {
            pointer: layer,
            facts: Arc::new(Facts {
                polled: config.polled,
                small: config.small,
                queue: OnceLock::new(),
                closing: false.into(),
                closed: false.into(),
                receivers: Mutex::default(),
                channels: Mutex::default(),
            }),
        };
        name_of(world, &handle, 100, None, true);
        if let Some(handle) = world.put_layer(slot, handle) {
            world.free_layer(handle);
        }
    });
}

fn free(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    if slot == 3 {
        // SAFETY: NULL does nothing.
        unsafe { (world.api.free)(ptr::null_mut()) };
    } else if let Some(handle) = world.take_layer(slot) {
        world.free_layer(handle);
    }
}

fn close(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, timeout) = (slot(world, dice), dice.pick(&[0, 10, 500, u32::MAX]));
    let want_error = dice.below(4) > 0;
    // The rarer the longer a program runs on an open layer.
    if dice.below(3) > 0 {
        return;
    }
    world.with_layer(slot, |layer, handle, _| {
        if let Some(handle) = handle {
            handle.facts.closing.store(true, SeqCst);
        }
        let status = world.call(
            "layer_close",
            want_error,
            &[OK, TIMEOUT, INVALID],
            |error| {
                // SAFETY: NULL or a layer whose free has not begun.
                unsafe { (world.api.close)(layer, timeout, error) }
            },
        );
        world.expect("layer_close", status, handle, false, Arguments::Good);
        if let Some(handle) = handle {
            handle.facts.closed.store(true, SeqCst);
        }
    });
}

fn wait_ready(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, timeout) = (slot(world, dice), dice.pick(&[0, 10, 300]));
    world.with_layer(slot, |layer, handle, was_closed| {
        let documented = [OK, TIMEOUT, CLOSED, WOULD_DEADLOCK, INVALID];
        let status = world.call("layer_wait_ready", true, &documented, |error| {
            // SAFETY: NULL or a layer whose free has not begun.
            unsafe { (world.api.wait_ready)(layer, timeout, error) }
        });
        world.expect(
            "layer_wait_ready",
            status,
            handle,
            was_closed,
            Arguments::Good,
        );
    });
}

fn state(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, no_place) = (slot(world, dice), dice.below(8) == 7);
    world.with_layer(slot, |layer, handle, was_closed| {
        let mut state = None;
        let mut written = layer_state_t::LAYER_STATE_REFUSED;
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut written
        };
        let status = world.call("layer_state", true, &[OK, INVALID], |error| {
            // SAFETY: NULL or a layer whose free has not begun; NULL or a place for a state.
            unsafe { (world.api.state)(layer, out, error) }
        });
        if status == OK {
            state = Some(written);
        }
        let arguments = Arguments::of(!no_place);
        world.expect("layer_state", status, handle, false, arguments);
        let untouched = written == layer_state_t::LAYER_STATE_REFUSED;
        if untouched != (status != OK) {
            world.wrong(format!("layer_state gave {status:?} and {written:?}"));
        }
        if was_closed && state.is_some_and(|state| state != layer_state_t::LAYER_STATE_CLOSED) {
            world.wrong(format!("the state of a closed layer is {state:?}"));
        }
        let polled = handle.is_some_and(|handle| handle.facts.polled);
        // SAFETY: as above.
        let fd = unsafe { (world.api.fd)(layer) };
        if (fd >= 0) != polled {
            world.wrong(format!("layer_fd gave {fd}, polled: {polled}"));
        }
    });
}

fn stat(world: &Arc<World>, dice: &mut Dice<'_>) {
    const UNTOUCHED: u64 = 0xa5a5_a5a5_a5a5_a5a5;
    let slot = slot(world, dice);
    let which = match dice.below(32) {
        31 => u32::MAX,
        n => n as u32,
    };
    let no_place = dice.below(8) == 7;
    world.with_layer(slot, |layer, handle, _| {
        let mut value = UNTOUCHED;
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut value
        };
        let status = world.call("layer_stat", true, &[OK, INVALID], |error| {
            // SAFETY: NULL or a layer whose free has not begun; NULL or a place for a number.
            unsafe { (world.api.stat)(layer, which, out, error) }
        });
        let good = (1..=25).contains(&which) && !no_place;
        world.expect("layer_stat", status, handle, false, Arguments::of(good));
        if (status == OK) == (value == UNTOUCHED) {
            world.wrong(format!("layer_stat gave {status:?} and {value}"));
        }
    });
}

/// Makes a channel name in a buffer of which `size` bytes are told, and looks at what was written.
fn name_of(world: &World, handle: &Handle, size: usize, prefix: Option<&Text>, first: bool) {
    const ROOM: usize = 160;
    let mut buffer = [0xa5_u8; ROOM];
    let none = Text::null();
    let prefix = prefix.unwrap_or(&none);
    let no_place = size == 0 && !prefix.good;
    let out = if no_place {
        ptr::null_mut()
    } else {
        buffer.as_mut_ptr().cast()
    };
    let was_closed = handle.facts.closed.load(SeqCst);
    let status = world.call("layer_new_channel", true, &[OK, INVALID, CLOSED], |error| {
        // SAFETY: a layer whose free has not begun; the buffer has more room than is told.
        unsafe {
            (world.api.new_channel)(handle.pointer, prefix.pointer(), out, size.min(ROOM), error)
        }
    });
    let end = buffer.iter().position(|byte| *byte == 0);
    let tail = end.map_or(0, |end| end + 1);
    if buffer[tail..].iter().any(|byte| *byte != 0xa5) || tail > size {
        world.wrong(format!("layer_new_channel wrote beyond its {size} bytes"));
    }
    if (status == OK) != end.is_some() {
        world.wrong(format!("layer_new_channel gave {status:?}, wrote {end:?}"));
    }
    let text = String::from_utf8_lossy(&buffer[..end.unwrap_or(0)]).into_owned();
    let queue = text.split('!').next().unwrap_or_default().to_owned();
    if first {
        let _ = handle.facts.queue.set(queue);
    } else {
        let queue = handle.facts.queue.get().map_or(0, String::len);
        let needed = queue + 1 + prefix.str().len() + 12 + 1;
        let good = (prefix.text.is_none() || prefix.good) && needed <= size.min(100) && !no_place;
        let arguments = Arguments::of(good);
        world.expect(
            "layer_new_channel",
            status,
            Some(handle),
            was_closed,
            arguments,
        );
    }
    if status == OK {
        let begin = format!(
            "{}!{}",
            handle.facts.queue.get().map_or("", |it| it),
            prefix.str()
        );
        if !is_channel(&text) || !text.starts_with(&begin) {
            world.wrong(format!("layer_new_channel made {text:?}"));
        }
        for channels in [&world.channels, &handle.facts.channels] {
            let mut channels = lock(channels);
            if channels.len() < 6 {
                channels.push(text.clone());
            }
        }
    }
}

fn new_channel(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = dice.below(3);
    let size = [100, 100, usize::from(dice.byte()) % 130][dice.below(3)];
    let prefix = match dice.below(6) {
        0 | 1 => None,
        2 => Some(odd(dice)).filter(|text| text.text.is_some() && !plain(&text.str())),
        3 => Some(Text::new(&b"p".repeat(dice.below(90)), plain)),
        _ => Some(Text::new(b"ws.", plain)),
    };
    world.with_layer(slot, |_, handle, _| {
        if let Some(handle) = handle {
            name_of(world, handle, size, prefix.as_ref(), false);
        }
    });
}

// --- Receiving ----------------------------------------------------------------------------------

fn receive(world: &Arc<World>, dice: &mut Dice<'_>) {
    const UNTOUCHED: u64 = 0xa5a5_a5a5_a5a5_a5a5;
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let mut given = give(world, dice, Kind::Receive, None);
    let no_place = dice.below(8) == 7;
    if no_place && given.destroy.is_none() {
        // It could not be cancelled by number, and nobody would know when it is over.
        given.is_null = true;
    }
    world.with_layer(slot, |layer, handle, was_closed| {
        let mut number = UNTOUCHED;
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut number
        };
        let status = world.call("layer_receive", true, &[OK, INVALID, CLOSED], |error| {
            let callback = (!given.is_null).then_some(on_receive as _);
            let userdata = given.token.userdata();
            // SAFETY: NULL or a layer whose free has not begun; strings; the token outlives the
            // callback.
            unsafe {
                (world.api.receive)(
                    layer,
                    channel.pointer(),
                    callback,
                    userdata,
                    given.destroy,
                    out,
                    error,
                )
            }
        });
        world.handed_in(&given.token, status);
        let arguments = Arguments::of(own(&channel, handle) && !given.is_null);
        world.expect("layer_receive", status, handle, was_closed, arguments);
        if no_place {
            return;
        }
        if (status == OK) == (number == UNTOUCHED) || number == 0 {
            world.wrong(format!("layer_receive gave {status:?} and number {number}"));
        }
        if let Some(handle) = handle
            && status == OK
        {
            if !lock(&handle.facts.receivers).insert(number) {
                world.wrong(format!("receiver {number} is there twice"));
            }
            let entry = (Arc::clone(&handle.facts), number, given.token);
            lock(&world.receivers).push(entry);
        }
    });
}

fn cancel(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let known = lock(&world.receivers).clone();
    let number = match dice.below(8) {
        7 => dice.pick(&[0, u64::MAX, 1 << 40]),
        _ if known.is_empty() => 0,
        _ => known[dice.below(known.len())].1,
    };
    world.with_layer(slot, |layer, handle, _| {
        let found = known.iter().find(|(facts, other, _)| {
            *other == number && handle.is_some_and(|it| Arc::ptr_eq(facts, &it.facts))
        });
        let first = found.is_some_and(|(_, _, it)| !it.cancelling.swap(true, SeqCst));
        let status = world.call(
            "layer_receive_cancel",
            true,
            &[OK, TIMEOUT, INVALID],
            |error| {
                // SAFETY: NULL or a layer whose free has not begun.
                unsafe { (world.api.receive_cancel)(layer, number, error) }
            },
        );
        world.expect(
            "layer_receive_cancel",
            status,
            handle,
            false,
            Arguments::Good,
        );
        if let Some((_, _, token)) = found {
            // A second cancel, and one from a callback, do not wait for the call that runs.
            if first && status == OK && !in_callback() {
                if token.running.load(SeqCst) > 0 {
                    world.wrong(format!("{} runs after its cancel", token.name()));
                }
                token.ended.store(true, SeqCst);
            }
            token.cancelled.store(true, SeqCst);
        }
        if in_callback() && status == TIMEOUT {
            world.wrong("layer_receive_cancel waited in a callback".to_owned());
        }
    });
}

fn receive_next(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let mut timeout = dice.pick(&[0, 0, 1, 20]);
    let no_place = dice.below(16) == 15;
    if in_callback() && timeout == 20 {
        timeout = u32::MAX;
    }
    world.with_layer(slot, |layer, handle, was_closed| {
        let mut message = ptr::null_mut();
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut message
        };
        let documented = [OK, TIMEOUT, CANCELLED, CLOSED, INVALID, WOULD_DEADLOCK];
        let status = world.call("layer_receive_next", true, &documented, |error| {
            // SAFETY: NULL or a layer whose free has not begun; a string; a place or NULL.
            unsafe { (world.api.receive_next)(layer, channel.pointer(), timeout, out, error) }
        });
        let arguments = Arguments::of(own(&channel, handle) && !no_place);
        world.expect("layer_receive_next", status, handle, was_closed, arguments);
        if (status == OK) == message.is_null() {
            world.wrong(format!(
                "layer_receive_next gave {status:?} and {message:?}"
            ));
        }
        if message.is_null() {
            return;
        }
        let mut length = 0;
        // SAFETY: the message is ours.
        let data = unsafe {
            let data = (world.api.message_data)(message, &raw mut length);
            std::slice::from_raw_parts(data, length).to_vec()
        };
        if let Some(seen) = world.look_at(message) {
            world.takes(seen);
        }
        lock(&world.messages).push(Held {
            pointer: message,
            data,
            channel: channel.text.unwrap_or_default(),
        });
    });
}

fn channel_discard(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    world.with_layer(slot, |layer, handle, was_closed| {
        let status = world.call(
            "layer_channel_discard",
            true,
            &[OK, INVALID, CLOSED],
            |error| {
                // SAFETY: NULL or a layer whose free has not begun; a string.
                unsafe { (world.api.channel_discard)(layer, channel.pointer(), error) }
            },
        );
        let arguments = Arguments::of(own(&channel, handle));
        world.expect(
            "layer_channel_discard",
            status,
            handle,
            was_closed,
            arguments,
        );
    });
}

/// Looks at a message that was kept, perhaps longer than its layer has lived.
fn look_again(world: &World, held: &Held) {
    let mut length = 0;
    // SAFETY: the message is ours and not freed.
    let (data, channel) = unsafe {
        let data = (world.api.message_data)(held.pointer, &raw mut length);
        (
            std::slice::from_raw_parts(data, length).to_vec(),
            CStr::from_ptr((world.api.message_channel)(held.pointer)).to_owned(),
        )
    };
    if data != held.data || channel != held.channel {
        world.wrong(format!("a message on {:?} has changed", held.channel));
    }
    world.look_at(held.pointer);
}

fn messages(world: &Arc<World>, dice: &mut Dice<'_>) {
    let how = dice.below(8);
    if how == 7 {
        no_message(world);
        return;
    }
    // Taken out while it is used: a message that is freed is used by nobody else.
    let mut held = lock(&world.messages);
    if held.is_empty() {
        return;
    }
    let at = dice.below(held.len());
    let message = held.swap_remove(at);
    drop(held);
    look_again(world, &message);
    if how < 3 {
        // SAFETY: it is ours.
        let pointer = unsafe { (world.api.message_ref)(message.pointer) };
        if pointer.is_null() {
            world.wrong("layer_message_ref gave NULL for a message".to_owned());
        } else {
            let again = Held {
                pointer,
                data: message.data.clone(),
                channel: message.channel.clone(),
            };
            lock(&world.messages).push(again);
        }
    }
    if how < 2 || lock(&world.messages).len() > 16 {
        // SAFETY: it is ours, and forgotten here.
        unsafe { (world.api.message_free)(message.pointer) };
    } else {
        lock(&world.messages).push(message);
    }
}

/// All that takes a message or an error, with none.
fn no_message(world: &World) {
    let api = &world.api;
    let mut length = 7;
    let mut json = c"untouched".as_ptr();
    let untouched = json;
    // SAFETY: NULL is allowed for each.
    unsafe {
        let nothing = (api.message_data)(ptr::null(), &raw mut length).is_null()
            && length == 0
            && (api.message_data)(ptr::null(), ptr::null_mut()).is_null()
            && (api.message_channel)(ptr::null()).is_null()
            && (api.message_group)(ptr::null()).is_null()
            && (api.message_type)(ptr::null()).is_null()
            && (api.message_ref)(ptr::null()).is_null()
            && (api.error_status)(ptr::null()) == OK
            && CStr::from_ptr((api.error_message)(ptr::null())).is_empty();
        if !nothing {
            world.wrong("something came of no message".to_owned());
        }
        (api.message_free)(ptr::null_mut());
        (api.error_free)(ptr::null_mut::<layer_error_t>());
        world.call("layer_message_json", true, &[INVALID], |error| {
            (api.message_json)(ptr::null(), &raw mut json, error)
        });
    }
    if json != untouched {
        world.wrong("layer_message_json of no message wrote a text".to_owned());
    }
}

fn poll(world: &Arc<World>, dice: &mut Dice<'_>) {
    const UNTOUCHED: usize = 0xa5a5_a5a5;
    let slot = slot(world, dice);
    let max = dice.pick(&[0, 1, 5, usize::MAX]);
    let mut timeout = dice.pick(&[0, 0, 1, 10]);
    let no_place = dice.below(8) == 7;
    if in_callback() && timeout == 10 {
        timeout = u32::MAX;
    }
    world.with_layer(slot, |layer, handle, _| {
        let mut ran = UNTOUCHED;
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut ran
        };
        let documented = [OK, CLOSED, INVALID, WOULD_DEADLOCK];
        let status = world.call("layer_poll", true, &documented, |error| {
            // SAFETY: NULL or a layer whose free has not begun; NULL or a place for a number.
            unsafe { (world.api.poll)(layer, max, timeout, out, error) }
        });
        let polled = handle.is_some_and(|handle| handle.facts.polled);
        world.expect("layer_poll", status, handle, false, Arguments::of(polled));
        if in_callback() && status == OK {
            world.wrong("layer_poll ran inside a callback".to_owned());
        }
        if !no_place && (status == OK) == (ran == UNTOUCHED) {
            world.wrong(format!("layer_poll gave {status:?} and {ran}"));
        }
        if status == OK && ran != UNTOUCHED && max > 0 && ran > max {
            world.wrong(format!("layer_poll ran {ran} callbacks of at most {max}"));
        }
    });
}

// --- Groups -------------------------------------------------------------------------------------

fn group_add(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let channel = channel(world, dice, slot);
    world.with_layer(slot, |layer, handle, was_closed| {
        let documented = [OK, TIMEOUT, DISCONNECTED, INVALID, CLOSED, WOULD_DEADLOCK];
        let status = world.call("layer_group_add", true, &documented, |error| {
            // SAFETY: NULL or a layer whose free has not begun; strings.
            unsafe { (world.api.group_add)(layer, group.pointer(), channel.pointer(), error) }
        });
        let arguments = Arguments::of(group.good && own(&channel, handle));
        world.expect("layer_group_add", status, handle, was_closed, arguments);
    });
}

fn group_add_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let channel = channel(world, dice, slot);
    let given = give(world, dice, Kind::Done, None);
    world.with_layer(slot, |layer, handle, was_closed| {
        let status = world.call(
            "layer_group_add_async",
            true,
            &[OK, INVALID, CLOSED],
            |error| {
                // SAFETY: NULL or a layer whose free has not begun; strings; the token outlives `done`.
                unsafe {
                    (world.api.group_add_async)(
                        layer,
                        group.pointer(),
                        channel.pointer(),
                        done(&given),
                        given.token.userdata(),
                        given.destroy,
                        error,
                    )
                }
            },
        );
        world.handed_in(&given.token, status);
        let good = group.good && own(&channel, handle) && !given.is_null;
        world.expect(
            "layer_group_add_async",
            status,
            handle,
            was_closed,
            Arguments::of(good),
        );
    });
}

fn done(given: &Given) -> layer_done_cb {
    if given.is_null { None } else { Some(on_done) }
}

fn group_discard(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let channel = channel(world, dice, slot);
    world.with_layer(slot, |layer, handle, was_closed| {
        let status = world.call(
            "layer_group_discard",
            true,
            &[OK, INVALID, CLOSED],
            |error| {
                // SAFETY: NULL or a layer whose free has not begun; strings.
                unsafe {
                    (world.api.group_discard)(layer, group.pointer(), channel.pointer(), error)
                }
            },
        );
        let arguments = Arguments::of(group.good && own(&channel, handle));
        world.expect("layer_group_discard", status, handle, was_closed, arguments);
    });
}

// --- Sending ------------------------------------------------------------------------------------

const SENDS: &[layer_status_t] = &[
    OK,
    FULL,
    INVALID,
    TOO_LARGE,
    DISCONNECTED,
    BUSY,
    TIMEOUT,
    UNCONFIRMED,
    CLOSED,
    WOULD_DEADLOCK,
    NO_CHANNEL,
];

fn send(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let to = To::Channel(channel.str());
    blocking(world, dice, slot, &channel, to, "layer_send", SENDS);
}

fn group_send(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let to = To::Group(group.str());
    let documented = &SENDS[..SENDS.len() - 1];
    blocking(
        world,
        dice,
        slot,
        &group,
        to,
        "layer_group_send",
        documented,
    );
}

fn blocking(
    world: &Arc<World>,
    dice: &mut Dice<'_>,
    slot: usize,
    recipient: &Text,
    to: To,
    name: &str,
    documented: &[layer_status_t],
) {
    let to_group = matches!(to, To::Group(_));
    let want_error = dice.below(4) > 0;
    let api = &world.api;
    if dice.below(3) == 2 {
        let (json, number) = json(world, dice, to);
        let call = if to_group {
            api.group_send_json
        } else {
            api.send_json
        };
        let arguments = Arguments::of(json.good).and(recipient.good);
        sent(
            world,
            slot,
            name,
            documented,
            want_error,
            arguments,
            number,
            |layer, error| {
                // SAFETY: NULL or a layer whose free has not begun; strings.
                unsafe { call(layer, recipient.pointer(), json.pointer(), error) }
            },
        );
    } else {
        let payload = payload(world, dice, to);
        let call = if to_group { api.group_send } else { api.send };
        let arguments = payload.arguments.and(recipient.good);
        let number = payload.number;
        sent(
            world,
            slot,
            name,
            documented,
            want_error,
            arguments,
            number,
            |layer, error| {
                let (data, length) = payload.pointer();
                // SAFETY: as above; a length beyond the bytes is one that no object has.
                unsafe { call(layer, recipient.pointer(), data, length, error) }
            },
        );
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "all that a send has, of two kinds"
)]
fn sent(
    world: &Arc<World>,
    slot: usize,
    name: &str,
    documented: &[layer_status_t],
    want_error: bool,
    arguments: Arguments,
    number: Option<u64>,
    call: impl FnOnce(*const crate::ffi::layer::layer_t, *mut *mut layer_error_t) -> layer_status_t,
) {
    world.with_layer(slot, |layer, handle, was_closed| {
        let status = world.call(name, want_error, documented, |error| call(layer, error));
        world.expect(name, status, handle, was_closed, arguments);
        if in_callback() && ![WOULD_DEADLOCK, INVALID, CLOSED, TOO_LARGE].contains(&status) {
            world.wrong(format!("{name} gave {status:?} inside a callback"));
        }
        if let Some(number) = number {
            world.outcome(number, status);
        }
    });
}

fn send_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let to = To::Channel(channel.str());
    background(world, dice, slot, &channel, to, "layer_send_async");
}

fn group_send_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let to = To::Group(group.str());
    background(world, dice, slot, &group, to, "layer_group_send_async");
}

fn background(
    world: &Arc<World>,
    dice: &mut Dice<'_>,
    slot: usize,
    recipient: &Text,
    to: To,
    name: &str,
) {
    let call = match to {
        To::Channel(_) => world.api.send_async,
        To::Group(_) => world.api.group_send_async,
    };
    let payload = payload(world, dice, to);
    let given = give(world, dice, Kind::Done, payload.number);
    world.with_layer(slot, |layer, handle, was_closed| {
        let documented = [OK, INVALID, TOO_LARGE, BUSY, CLOSED];
        let status = world.call(name, true, &documented, |error| {
            let (data, length) = payload.pointer();
            // SAFETY: NULL or a layer whose free has not begun; strings; a length beyond the bytes
            // is one that no object has; the token outlives `done`.
            unsafe {
                call(
                    layer,
                    recipient.pointer(),
                    data,
                    length,
                    done(&given),
                    given.token.userdata(),
                    given.destroy,
                    error,
                )
            }
        });
        world.handed_in(&given.token, status);
        let arguments = payload.arguments.and(recipient.good && !given.is_null);
        world.expect(name, status, handle, was_closed, arguments);
        if let Some(number) = payload.number
            && status != OK
        {
            world.outcome(number, status);
        }
    });
}

// --- The rest -----------------------------------------------------------------------------------

fn nothing(world: &Arc<World>, dice: &mut Dice<'_>) {
    let number = i32::from(dice.byte()) - 100;
    // SAFETY: the result is static.
    let name = unsafe { CStr::from_ptr(layer_status_name(number)) };
    let known = (0..15).contains(&number);
    if name.to_bytes().starts_with(b"LAYER_") && (name == c"LAYER_UNKNOWN") != known {
        return;
    }
    world.wrong(format!("status {number} is called {name:?}, {SECRET}"));
}
