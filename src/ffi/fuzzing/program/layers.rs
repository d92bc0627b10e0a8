//! Configs and layers, and what a layer can be asked.

use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, OnceLock};

use crate::ffi::callback::layer_state_t;
use crate::ffi::config::layer_config_new;
use crate::ffi::layer::layer_t;
use crate::ffi::status::layer_status_t::{
    LAYER_CLOSED as CLOSED, LAYER_INVALID as INVALID, LAYER_OK as OK, LAYER_TIMEOUT as TIMEOUT,
    LAYER_WOULD_DEADLOCK as WOULD_DEADLOCK,
};

use crate::ffi::fuzzing::callbacks::{on_isolation, on_log, on_state};
use crate::ffi::fuzzing::model::{
    Arguments, Config, Dice, Facts, Handle, Kind, World, in_callback, lock,
};

use crate::stats::Stat;

use super::arguments::{Text, done, give, is_channel, odd, plain, slot};

/// The place of a config and whether it could be had: in a callback another call may be inside.
pub(super) fn config_of(world: &World, number: usize, act: impl FnOnce(&mut Option<Config>)) {
    if in_callback() {
        if let Ok(mut config) = world.configs[number].try_lock() {
            act(&mut config);
        }
    } else {
        act(&mut lock(&world.configs[number]));
    }
}

pub(super) fn set_option(
    world: &World,
    config: &mut Config,
    name: &CStr,
    value: &CStr,
    good: bool,
) {
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

pub(super) fn make_config(world: &World, number: usize) {
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
pub(super) fn config(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn config_set(world: &Arc<World>, dice: &mut Dice<'_>) {
    const GOOD: &[(&CStr, &[&CStr])] = &[
        (c"local_capacity", &[c"0", c"1", c"3", c"100"]),
        (c"remote_capacity", &[c"1", c"2", c"50"]),
        (c"prefetch_count", &[c"1", c"5"]),
        (c"stall_after", &[c"0", c"0.001", c"0.02", c"1"]),
        (c"channel_capacity", &[c"1", c"4"]),
        (c"total_capacity", &[c"1", c"8"]),
        (c"max_in_flight", &[c"1", c"2", c"100"]),
        (c"expiry", &[c"0.001", c"0.02", c"60"]),
        (c"local_expiry", &[c"0.001", c"0.02", c"10"]),
        (c"group_expiry", &[c"0.005", c"60", c"never"]),
        (c"max_message_size", &[c"1", c"64", c"1000000"]),
        (c"dispatch_threads", &[c"1", c"2", c"3"]),
        (c"timeout", &[c"0.02", c"0.2"]),
        (c"settle", &[c"0", c"0.001", c"0.05"]),
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

pub(super) fn config_callback(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (number, kind) = (
        dice.below(2),
        dice.pick(&[Kind::Log, Kind::State, Kind::Isolation]),
    );
    config_of(world, number, |place| {
        let given = give(world, dice, kind, None);
        let pointer = place
            .as_ref()
            .map_or(ptr::null_mut(), |config| config.pointer);
        let (userdata, destroy) = (given.token.userdata(), given.destroy);
        let name = "layer_config_on_log, _on_state or _on_isolation";
        let status = world.call(name, dice.below(4) > 0, &[OK, INVALID], |error| {
            // SAFETY: NULL or a live config under its lock; the token outlives the callback.
            unsafe {
                match kind {
                    Kind::State => {
                        let callback = (!given.is_null).then_some(on_state as _);
                        (world.api.config_on_state)(pointer, callback, userdata, destroy, error)
                    }
                    Kind::Isolation => {
                        let callback = (!given.is_null).then_some(on_isolation as _);
                        (world.api.config_on_isolation)(pointer, callback, userdata, destroy, error)
                    }
                    _ => {
                        let callback = (!given.is_null).then_some(on_log as _);
                        (world.api.config_on_log)(pointer, callback, userdata, destroy, error)
                    }
                }
            }
        });
        world.handed_in(&given.token, status);
        if (status == OK) != (place.is_some() && !given.is_null) {
            world.wrong(format!("{name} gave {status:?}"));
        }
    });
}

pub(super) fn new(world: &Arc<World>, dice: &mut Dice<'_>) {
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
        let checked = world.call("layer_config_check", want_error, &[OK, INVALID], |error| {
            // SAFETY: a live config under its lock.
            unsafe { (world.api.config_check)(config.pointer, error) }
        });
        let status = world.call("layer_new", want_error, &[OK, INVALID], |error| {
            // SAFETY: a live config under its lock, NULL or a place for a handle.
            unsafe { (world.api.new)(config.pointer, out, error) }
        });
        if (status == OK) == no_place || (status == OK) == layer.is_null() {
            world.wrong(format!("layer_new gave {status:?} and {layer:?}"));
        }
        if !no_place && status != checked {
            world.wrong(format!(
                "layer_config_check gave {checked:?}, layer_new {status:?}"
            ));
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
                cancelled: Mutex::default(),
                channels: Mutex::default(),
            }),
        };
        name_of(world, &handle, 100, None, true);
        if let Some(handle) = world.put_layer(slot, handle) {
            world.free_layer(handle);
        }
    });
}

pub(super) fn free(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    if slot == 3 {
        // SAFETY: NULL does nothing.
        unsafe { (world.api.free)(ptr::null_mut()) };
    } else if let Some(handle) = world.take_layer(slot) {
        world.free_layer(handle);
    }
}

pub(super) fn close(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn close_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, timeout) = (slot(world, dice), dice.pick(&[0, 10, 500, u32::MAX]));
    // As rare as a close.
    if dice.below(3) > 0 {
        return;
    }
    let given = give(world, dice, Kind::Done, None);
    world.with_layer(slot, |layer, handle, _| {
        if let Some(handle) = handle
            && !given.is_null
        {
            handle.facts.closing.store(true, SeqCst);
        }
        let status = world.call("layer_close_async", true, &[OK, INVALID], |error| {
            // SAFETY: NULL or a layer whose free has not begun; the token outlives `done`.
            unsafe {
                (world.api.close_async)(
                    layer,
                    timeout,
                    done(&given),
                    given.token.userdata(),
                    given.destroy,
                    error,
                )
            }
        });
        world.handed_in(&given.token, status);
        let arguments = Arguments::of(!given.is_null);
        world.expect("layer_close_async", status, handle, false, arguments);
        if let Some(handle) = handle
            && status == OK
        {
            handle.facts.closed.store(true, SeqCst);
        }
    });
}

pub(super) fn wait_ready(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn state(world: &Arc<World>, dice: &mut Dice<'_>) {
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
        let mut duplicate = -1;
        let out = if no_place {
            ptr::null_mut()
        } else {
            &raw mut duplicate
        };
        let status = world.call("layer_fd_dup", true, &[OK, INVALID], |error| {
            // SAFETY: NULL or a layer whose free has not begun; NULL or a place for an int.
            unsafe { (world.api.fd_dup)(layer, out, error) }
        });
        let arguments = Arguments::of(!no_place && polled);
        world.expect("layer_fd_dup", status, handle, false, arguments);
        if (duplicate >= 0) != (status == OK) || (duplicate >= 0 && duplicate == fd) {
            world.wrong(format!("layer_fd_dup gave {status:?} and {duplicate}"));
        }
        if duplicate >= 0 {
            // SAFETY: the call gave it away, so that it is ours alone.
            drop(unsafe { OwnedFd::from_raw_fd(duplicate) });
        }
    });
}

pub(super) fn stat(world: &Arc<World>, dice: &mut Dice<'_>) {
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
        let good = Stat::from_number(which).is_some() && !no_place;
        world.expect("layer_stat", status, handle, false, Arguments::of(good));
        if (status == OK) == (value == UNTOUCHED) {
            world.wrong(format!("layer_stat gave {status:?} and {value}"));
        }
        prometheus(world, layer, handle, which);
    });
}

/// Asks for the text for Prometheus, with room, labels and a place for the length by `number`, and
/// looks at what was written.
fn prometheus(world: &World, layer: *const layer_t, handle: Option<&Handle>, number: u32) {
    const ROOM: usize = 32768;
    let labels = match number % 4 {
        0 => None,
        1 => Some(c"site=\"a\""),
        2 => Some(c""),
        _ => Some(c"site=\"a\",reason=\"b\""),
    };
    let pointer = labels.map_or(ptr::null(), CStr::as_ptr);
    let size = if number < 8 {
        ROOM
    } else {
        number as usize % 8
    };
    let mut buffer = vec![0xa5_u8; ROOM];
    let mut length = usize::MAX;
    let status = world.call("layer_stats_prometheus", true, &[OK, INVALID], |error| {
        let text = buffer.as_mut_ptr().cast();
        // SAFETY: NULL or a layer whose free has not begun; a place for a number, and the buffer has
        // as much room as is told.
        unsafe { (world.api.stats_prometheus)(layer, pointer, text, size, &raw mut length, error) }
    });
    let good = number % 4 != 3 && size == ROOM;
    world.expect(
        "layer_stats_prometheus",
        status,
        handle,
        false,
        Arguments::of(good),
    );
    let end = buffer.iter().position(|byte| *byte == 0);
    let tail = end.map_or(0, |end| end + 1);
    if buffer[tail..].iter().any(|byte| *byte != 0xa5) {
        world.wrong("layer_stats_prometheus wrote beyond its text".to_owned());
    }
    let told = (length != usize::MAX).then_some(length);
    if (status == OK) != end.is_some() || end != told {
        world.wrong(format!(
            "layer_stats_prometheus gave {status:?}, wrote {end:?}, told {told:?}"
        ));
    }
}

/// Makes a channel name in a buffer of which `size` bytes are told, and looks at what was written.
pub(super) fn name_of(
    world: &World,
    handle: &Handle,
    size: usize,
    prefix: Option<&Text>,
    first: bool,
) {
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

pub(super) fn new_channel(world: &Arc<World>, dice: &mut Dice<'_>) {
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
