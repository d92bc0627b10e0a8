//! The whole way of a delivery, from its bytes to its receivers, as the layer goes it.

use std::sync::Arc;
use std::time::Instant;

use crate::mailbox::MailboxKey;
use crate::mailboxes::{self, Boxes};
use crate::messages::{self, CHANNEL, GROUP};
use crate::wire::{self, OwnedRecipient, Recipient};
use crate::work::{Case, Work, fed};
use crate::{groups::Groups, groups_work};

/// What a layer has under its lock.
struct Local {
    boxes: Boxes,
    groups: Groups<u64>,
    due: Vec<MailboxKey>,
}

impl Local {
    /// A group with so many members that receive.
    fn new(members: usize, now: Instant) -> Self {
        let names = mailboxes::names(members);
        let mut boxes = mailboxes::received_from(&names);
        boxes.add_receiver(CHANNEL, mailboxes::callback(), |_| ());
        let keys: Vec<MailboxKey> = names.iter().map(|name| boxes.pin(name)).collect();
        let count = u32::try_from(members).expect("not so many");
        // The mailboxes were made in this order, so that their keys are these numbers.
        assert!(keys.iter().copied().eq(0..count));
        Self {
            boxes,
            groups: groups_work::with_members(count, now),
            due: Vec::with_capacity(members),
        }
    }

    /// Takes a delivery in; says how many mailboxes are due.
    fn deliver(&mut self, bytes: Vec<u8>, now: Instant) -> usize {
        let decoded = wire::decode(bytes).expect("our own");
        let body = Arc::new(decoded.body);
        self.due.clear();
        match &decoded.recipient {
            OwnedRecipient::Channel(channel) => {
                self.due.extend(self.boxes.deliver(channel, body, now).due);
            }
            OwnedRecipient::Group(group) => {
                let (members, due) = (self.groups.members(group), &mut self.due);
                self.boxes
                    .deliver_to_all(members, body, now, |delivered| due.extend(delivered.due));
            }
        }
        self.due.len()
    }

    fn receive_all(&mut self, now: Instant) {
        for key in &self.due {
            mailboxes::receive(&mut self.boxes, *key, now);
        }
    }
}

/// In and out again.
fn round_trip(to: Recipient<'static>, members: usize) -> Box<dyn Work> {
    let now = Instant::now();
    let mut local = Local::new(members, now);
    let delivery = messages::delivery(&messages::small(), to);
    let receivers = match to {
        Recipient::Channel(_) => 1,
        Recipient::Group(_) => members,
    };
    fed(
        move || delivery.clone(),
        move |bytes| {
            assert_eq!(local.deliver(bytes, now), receivers);
            local.receive_all(now);
        },
    )
}

/// The half of it that is done under the lock.
fn fan_out(members: usize) -> Box<dyn Work> {
    let now = Instant::now();
    let delivery = messages::delivery(&messages::small(), Recipient::Group(GROUP));
    fed(
        move || (Local::new(members, now), delivery.clone()),
        move |(mut local, bytes)| {
            assert_eq!(local.deliver(bytes, now), members);
            local
        },
    )
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("delivery/to_channel", 100, || {
            round_trip(Recipient::Channel(CHANNEL), 1)
        }),
        Case::new("delivery/to_group_of_1", 100, || {
            round_trip(Recipient::Group(GROUP), 1)
        }),
        Case::new("delivery/to_group_of_1000", 10, || {
            round_trip(Recipient::Group(GROUP), 1000)
        }),
        Case::new("delivery/to_group_of_1000/before_receiving", 3, || {
            fan_out(1000)
        }),
    ]
}
