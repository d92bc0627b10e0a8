//! What is done for each send, delivery or new channel, and is small.

use std::hint::black_box;

use crate::credit::Credit;
use crate::messages::{CHANNEL, GROUP};
use crate::name;
use crate::work::{Case, steady};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("credit/hold_and_release", 100, || {
            let mut credit = Credit::new(1);
            steady(move || {
                credit.arrived(1);
                black_box(credit.release(black_box(2)));
                credit.release(black_box(0))
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
