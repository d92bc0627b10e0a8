//! What the program does: an act for each function, and one byte chooses the act.

mod arguments;
mod layers;
mod receiving;
mod sending;

use std::ffi::CStr;
use std::sync::Arc;

use crate::ffi::status::layer_status_name;

use crate::ffi::fuzzing::model::{Dice, SECRET, World, lock};

type Act = fn(&Arc<World>, &mut Dice<'_>);

/// All acts. What makes messages move stands more than once.
const ACTS: &[Act] = &[
    sending::send,
    sending::send,
    sending::send_async,
    sending::send_async,
    sending::group_send,
    sending::group_send_async,
    receiving::receive,
    receiving::receive,
    receiving::receive_next,
    receiving::receive_next,
    receiving::poll,
    receiving::poll,
    receiving::poll,
    receiving::cancel,
    sending::group_add,
    sending::group_add,
    sending::group_add_async,
    sending::group_discard,
    receiving::channel_discard,
    layers::new_channel,
    layers::new_channel,
    receiving::messages,
    receiving::messages,
    layers::state,
    layers::stat,
    layers::wait_ready,
    layers::config,
    layers::config_set,
    layers::config_callback,
    layers::new,
    layers::new,
    layers::close,
    layers::close_async,
    layers::free,
    nothing,
];

pub(super) fn act(world: &Arc<World>, dice: &mut Dice<'_>) {
    dice.pick(ACTS)(world, dice);
}

/// Does what the bytes say, outside of callbacks.
pub(super) fn obey(world: &Arc<World>, bytes: &[u8]) {
    let mut dice = Dice::new(bytes);
    while !dice.is_empty() && world.act(&mut dice) {}
}

/// A layer in the first slot, with callbacks for its events and a channel.
pub(super) fn open_first(world: &Arc<World>, mode: u8) {
    layers::make_config(world, 0);
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
            (c"stall_after", c"0.001"),
            (c"channel_capacity", c"1"),
            (c"max_in_flight", c"2"),
            (c"dispatch_threads", c"2"),
        ],
    };
    layers::config_of(world, 0, |place| {
        if let Some(config) = place {
            for (name, value) in options {
                layers::set_option(world, config, name, value, true);
            }
        }
    });
    layers::config_callback(world, &mut Dice::new(&[0, 0, mode & 0x40, 1, 1]));
    layers::config_callback(world, &mut Dice::new(&[0, 1, mode & 0x80, 1, 1]));
    layers::config_callback(world, &mut Dice::new(&[0, 2, 0, 1, 1]));
    layers::new(world, &mut Dice::new(&[0, 0, 1, 1]));
    if mode & 0x20 != 0 {
        layers::new(world, &mut Dice::new(&[1, 0, 1, 1]));
    }
}

/// Frees all that is left, and waits for what that ends.
pub(super) fn end(world: &Arc<World>) {
    world.no_more_acts(|| {
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
    });
    world.wait_until_over();
    // Not before: the last callbacks may keep messages too.
    for held in std::mem::take(&mut *lock(&world.messages)) {
        receiving::look_again(world, &held);
        // SAFETY: it is ours, and forgotten here.
        unsafe { (world.api.message_free)(held.pointer) };
    }
}

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
