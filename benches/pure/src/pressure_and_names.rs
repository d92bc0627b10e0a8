//! What is done for each send, delivery or new channel, and is small.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::back_pressure::{BackPressure, Memory, Rules};
use crate::messages::{CHANNEL, GROUP};
use crate::name;
use crate::work::{Case, steady};

/// With the options as they are by default, but for the first.
fn pressure() -> BackPressure {
    BackPressure::new(Rules {
        local_capacity: 1,
        prefetch: 10,
        remote_capacity: 100,
        stall_after: Some(Duration::from_secs(1)),
    })
}

fn memory(backlog: usize) -> Memory {
    Memory {
        backlog: black_box(backlog),
        taken: 1,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("back_pressure/hold_and_release", 100, || {
            let mut pressure = pressure();
            let now = Instant::now();
            steady(move || {
                pressure.arrived(1, now);
                black_box(pressure.release(memory(2), now, |_| false));
                pressure.release(memory(0), now, |_| false)
            })
        }),
        Case::new("back_pressure/stalled", 100, || {
            let mut pressure = pressure();
            let now = Instant::now();
            pressure.arrived(10, now);
            steady(move || {
                black_box(pressure.release(memory(11), now, |_| false));
                black_box(pressure.release(memory(10), now, |_| false));
                pressure.arrived(1, now);
            })
        }),
        Case::new("name/channel", 100, || {
            steady(|| name::parse_channel(black_box(CHANNEL)).map(|name| name.local.len()))
        }),
        Case::new("name/group", 100, || {
            steady(|| name::validate_group(black_box(GROUP)))
        }),
        Case::new("name/new_channel", 100, || {
            let random = [0, 25, 26, 51, 52, 255, 1, 2, 3, 4, 5, 6];
            steady(move || name::channel("channels_kQzWmVbTrXpA", "specific.", black_box(&random)))
        }),
        Case::new("name/refuse_channel", 100, || {
            steady(|| name::parse_channel(black_box("channels_kQzWmVbTrXpA.no-local")).is_err())
        }),
    ]
}
