//! Floor 0 of the library and work for it: what is timed by `benches/time.rs` and counted by
//! `src/bin/count.rs`.

mod deliveries;
mod frames;
mod groups_work;
mod mailboxes;
mod messages;
mod pressure_and_names;
mod work;

/// The files of the library as they are.
#[path = "../../../src"]
#[allow(
    dead_code,
    unused_imports,
    reason = "floors above use what is not used here"
)]
mod floor {
    pub(crate) mod amqp;
    pub(crate) mod back_pressure;
    pub(crate) mod error;
    pub(crate) mod groups;
    pub(crate) mod index;
    pub(crate) mod mailbox;
    pub(crate) mod message;
    pub(crate) mod name;
    pub(crate) mod wire;
}

// By the paths under which these files know each other.
use floor::{amqp, back_pressure, error, groups, index, mailbox, message, name, wire};

pub use work::{Case, Work};

/// All there is to measure.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(deliveries::cases());
    cases.extend(frames::cases());
    cases.extend(groups_work::cases());
    cases.extend(mailboxes::cases());
    cases.extend(messages::cases());
    cases.extend(pressure_and_names::cases());
    cases.sort_by_key(|case| case.name);
    cases
}
