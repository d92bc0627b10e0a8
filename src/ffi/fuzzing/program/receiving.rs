//! Receivers, pulls, polls, and the messages that come of them.

use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::ffi::status::layer_error_t;
use crate::ffi::status::layer_status_t::{
    LAYER_CANCELLED as CANCELLED, LAYER_CLOSED as CLOSED, LAYER_INVALID as INVALID, LAYER_OK as OK,
    LAYER_TIMEOUT as TIMEOUT, LAYER_WOULD_DEADLOCK as WOULD_DEADLOCK,
};

use crate::ffi::fuzzing::callbacks::on_receive;
use crate::ffi::fuzzing::model::{
    Arguments, Dice, Handle, Held, Kind, Receiver, World, in_callback, lock,
};

use super::arguments::{channel, give, own, slot};

pub(super) fn receive(world: &Arc<World>, dice: &mut Dice<'_>) {
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
            let token = Arc::clone(&given.token);
            let entry = (Arc::clone(&handle.facts), number, given.token);
            lock(&world.receivers).push(entry);
            // By another thread, which had the number from another layer.
            if lock(&handle.facts.cancelled).contains(&number) {
                token.cancelled.store(true, SeqCst);
            }
        }
    });
}

pub(super) fn cancel(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let known = lock(&world.receivers).clone();
    let find = |known: &[Receiver], number: u64, handle: Option<&Handle>| {
        let facts = &handle?.facts;
        known
            .iter()
            .find(|(of, other, _)| *other == number && Arc::ptr_eq(of, facts))
            .map(|(_, _, token)| Arc::clone(token))
    };
    let number = match dice.below(8) {
        7 => dice.pick(&[0, u64::MAX, 1 << 40]),
        _ if known.is_empty() => 0,
        _ => known[dice.below(known.len())].1,
    };
    world.with_layer(slot, |layer, handle, _| {
        let found = find(&known, number, handle);
        let first = handle.is_some_and(|it| lock(&it.facts.cancelled).insert(number));
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
        // A second cancel, and one from a callback, do not wait for the call that runs.
        if let Some(token) = found
            && first
            && status == OK
            && !in_callback()
        {
            if token.running.load(SeqCst) > 0 {
                world.wrong(format!("{} runs after its cancel", token.name()));
            }
            token.ended.store(true, SeqCst);
        }
        // It may have come meanwhile, with a number that we had from another layer.
        let known = lock(&world.receivers).clone();
        if let Some(token) = find(&known, number, handle) {
            token.cancelled.store(true, SeqCst);
        }
        if in_callback() && status == TIMEOUT {
            world.wrong("layer_receive_cancel waited in a callback".to_owned());
        }
    });
}

pub(super) fn receive_next(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn channel_discard(world: &Arc<World>, dice: &mut Dice<'_>) {
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
pub(super) fn look_again(world: &World, held: &Held) {
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

pub(super) fn messages(world: &Arc<World>, dice: &mut Dice<'_>) {
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
pub(super) fn no_message(world: &World) {
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

pub(super) fn poll(world: &Arc<World>, dice: &mut Dice<'_>) {
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
