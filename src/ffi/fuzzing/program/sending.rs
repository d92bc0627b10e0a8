//! Groups and sends.

use std::sync::Arc;

use crate::ffi::status::layer_status_t::{
    LAYER_BUSY as BUSY, LAYER_CLOSED as CLOSED, LAYER_DISCONNECTED as DISCONNECTED,
    LAYER_FULL as FULL, LAYER_INVALID as INVALID, LAYER_NO_CHANNEL as NO_CHANNEL, LAYER_OK as OK,
    LAYER_TIMEOUT as TIMEOUT, LAYER_TOO_LARGE as TOO_LARGE, LAYER_UNCONFIRMED as UNCONFIRMED,
    LAYER_WOULD_DEADLOCK as WOULD_DEADLOCK,
};
use crate::ffi::status::{layer_error_t, layer_status_t};

use crate::ffi::fuzzing::model::{Arguments, Dice, Kind, To, World, in_callback};

use super::arguments::{Given, Text, channel, done, give, group, json, own, payload, slot};
use crate::ffi::layer::layer_t;

pub(super) fn group_add(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn group_add_async(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn group_discard(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) const SENDS: &[layer_status_t] = &[
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

pub(super) fn send(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let to = To::Channel(channel.str());
    blocking(world, dice, slot, &channel, to, "layer_send", SENDS);
}

pub(super) fn group_send(world: &Arc<World>, dice: &mut Dice<'_>) {
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

pub(super) fn blocking(
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
pub(super) fn sent(
    world: &Arc<World>,
    slot: usize,
    name: &str,
    documented: &[layer_status_t],
    want_error: bool,
    arguments: Arguments,
    number: Option<u64>,
    call: impl FnOnce(*const layer_t, *mut *mut layer_error_t) -> layer_status_t,
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

pub(super) fn send_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let slot = slot(world, dice);
    let channel = channel(world, dice, slot);
    let to = To::Channel(channel.str());
    background(world, dice, slot, &channel, to, "layer_send_async");
}

pub(super) fn group_send_async(world: &Arc<World>, dice: &mut Dice<'_>) {
    let (slot, group) = (slot(world, dice), group(dice));
    let to = To::Group(group.str());
    background(world, dice, slot, &group, to, "layer_group_send_async");
}

pub(super) fn background(
    world: &Arc<World>,
    dice: &mut Dice<'_>,
    slot: usize,
    recipient: &Text,
    to: To,
    name: &str,
) {
    let to_group = matches!(to, To::Group(_));
    let api = &world.api;
    if dice.below(3) == 2 {
        let (json, number) = json(world, dice, to);
        let call = if to_group {
            api.group_send_json_async
        } else {
            api.send_json_async
        };
        let given = give(world, dice, Kind::Done, number);
        let arguments = Arguments::of(json.good).and(recipient.good);
        accepted(world, slot, name, &given, arguments, |layer, error| {
            // SAFETY: NULL or a layer whose free has not begun; strings; the token outlives `done`.
            unsafe {
                call(
                    layer,
                    recipient.pointer(),
                    json.pointer(),
                    done(&given),
                    given.token.userdata(),
                    given.destroy,
                    error,
                )
            }
        });
    } else {
        let payload = payload(world, dice, to);
        let call = if to_group {
            api.group_send_async
        } else {
            api.send_async
        };
        let given = give(world, dice, Kind::Done, payload.number);
        let arguments = payload.arguments.and(recipient.good);
        accepted(world, slot, name, &given, arguments, |layer, error| {
            let (data, length) = payload.pointer();
            // SAFETY: as above; a length beyond the bytes is one that no object has.
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
    }
}

/// Makes a call that hands in a `done`.
fn accepted(
    world: &Arc<World>,
    slot: usize,
    name: &str,
    given: &Given,
    arguments: Arguments,
    call: impl FnOnce(*const layer_t, *mut *mut layer_error_t) -> layer_status_t,
) {
    world.with_layer(slot, |layer, handle, was_closed| {
        let documented = [OK, INVALID, TOO_LARGE, BUSY, CLOSED];
        let status = world.call(name, true, &documented, |error| call(layer, error));
        world.handed_in(&given.token, status);
        let arguments = arguments.and(!given.is_null);
        world.expect(name, status, handle, was_closed, arguments);
        if let Some(number) = given.token.message
            && status != OK
        {
            world.outcome(number, status);
        }
    });
}
