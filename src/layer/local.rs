//! What receives and what is received, under one lock: so that a message and its receiver are found
//! in one step, and no message is between two places.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_pressure::{BackPressure, Rules};
use crate::broker::{BindingEpoch, Generation, Token};
use crate::config::Settings;
use crate::groups::{BindingChange, Changed, Groups};
use crate::log::RateLimit;
use crate::losses::Losses;
use crate::mailbox::{Bounds, Ended, MailboxKey, Mailboxes, ReceiverId};
use crate::runtime::TickClock;
use crate::sync::{Condvar, Mutex};

use super::callbacks::Receive;
use super::calls::{Calls, Completion};

/// At most one warning of a kind in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// The messages, memberships and receivers of a layer.
pub(super) struct Local {
    /// The mailbox of a channel is pinned once for each of its memberships.
    pub(super) mailboxes: Mailboxes<Box<dyn Receive>, Arc<Pull>>,
    pub(super) groups: Groups<Token>,
    pub(super) waits: Calls<Wait>,
    pub(super) back_pressure: BackPressure,
    /// While channels are isolated.
    pub(super) bounds: Bounds,
    pub(super) losses: Losses,
    /// Its beginning was, and so will be its end.
    pub(super) isolation_is_logged: bool,
    /// For what is asked at each callback.
    pub(super) clock: TickClock,
    pub(super) generation: Generation,
    pub(super) binding_epoch: BindingEpoch,
    /// For each receiver whose canceller waits: its callback, once it has run.
    pub(super) handbacks: HashMap<ReceiverId, Option<Box<dyn Receive>>>,
    pub(super) closed: bool,
    pub(super) warnings: Warnings,
    /// Expired messages are not looked for before this.
    pub(super) next_sweep: Option<Instant>,
}

/// How often each kind of warning may be written.
pub(super) struct Warnings {
    pub(super) malformed: RateLimit,
    pub(super) redelivered: RateLimit,
    pub(super) channel_full: RateLimit,
    pub(super) isolation: RateLimit,
    pub(super) expired: RateLimit,
}

impl Local {
    /// Takes back the pins of memberships that have ended; returns what the broker is to do.
    pub(super) fn unpin(&mut self, left: Changed) -> Vec<BindingChange> {
        for channel in left.channels {
            self.mailboxes.unpin(channel);
        }
        left.changes
    }
}

/// The lock around it.
pub(super) struct Inbox {
    pub(super) local: Mutex<Local>,
    /// A callback whose canceller waits has been handed back.
    pub(super) handed_back: Condvar,
}

impl Inbox {
    pub(super) fn new(settings: &Settings) -> Self {
        let limit = || RateLimit::new(WARNING_INTERVAL);
        Self {
            local: Mutex::new(Local {
                mailboxes: Mailboxes::new(settings.local_expiry),
                groups: Groups::new(settings.group_expiry, settings.unbind_after),
                waits: Calls::new(),
                clock: TickClock::new(),
                back_pressure: BackPressure::new(Rules {
                    local_capacity: settings.local_capacity,
                    prefetch: settings.prefetch_count.into(),
                    remote_capacity: settings.remote_capacity.into(),
                    stall_after: settings.stall_after,
                }),
                bounds: Bounds {
                    channel: settings.channel_capacity,
                    total: settings.total_capacity,
                },
                losses: Losses::default(),
                isolation_is_logged: false,
                generation: 0,
                binding_epoch: 0,
                handbacks: HashMap::new(),
                closed: false,
                warnings: Warnings {
                    malformed: limit(),
                    redelivered: limit(),
                    channel_full: limit(),
                    isolation: limit(),
                    expired: limit(),
                },
                next_sweep: None,
            }),
            handed_back: Condvar::new(),
        }
    }
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(super) struct After {
    pub(super) due: Vec<MailboxKey>,
    pub(super) wake: Vec<Arc<Pull>>,
}

/// A call that waits until its group is bound.
pub(super) struct Wait {
    pub(super) group: String,
    pub(super) completion: Completion,
}

/// A thread that waits for a message.
#[derive(Default)]
pub(super) struct Pull {
    woken: Mutex<Option<Woken>>,
    changed: Condvar,
}

/// Why a thread that waits for a message was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    Message,
    Ended(Ended),
}

impl PartialEq for Pull {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Pull {
    pub(super) fn wake(&self, why: Woken) {
        let mut woken = self.woken.lock();
        if !matches!(*woken, Some(Woken::Ended(_))) {
            *woken = Some(why);
        }
        self.changed.notify_one();
    }

    /// Why it was woken, or `None` if it was not by `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Woken> {
        let mut woken = self.woken.lock();
        while woken.is_none() {
            if self.changed.wait_until(&mut woken, deadline).timed_out() {
                break;
            }
        }
        woken.take()
    }
}
