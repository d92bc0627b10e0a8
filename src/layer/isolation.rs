//! Acts on back-pressure: lets the broker send more, isolates channels where that was kept waiting,
//! and tells what they lose.

use std::ffi::CStr;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_pressure::{Change, Memory};
use crate::broker::Generation;
use crate::log::RecordId;
use crate::losses::{Loss, Totals};
use crate::mailbox::NAMED;
use crate::stats::Stat;

use super::callbacks::Isolation;
use super::local::Local;
use super::shared::Shared;

impl Local {
    fn memory(&self, shared: &Shared) -> Memory {
        Memory {
            backlog: match shared.settings.local_capacity {
                0 => self.mailboxes.deliveries(),
                _ => self.mailboxes.backlog(),
            },
            taken: self.mailboxes.taken(),
        }
    }

    /// How many deliveries may be acked now, and of which generation.
    pub(super) fn release(&mut self, now: Instant, shared: &Shared) -> (Generation, usize) {
        let memory = self.memory(shared);
        let mailboxes = &self.mailboxes;
        let is_one_kept_waiting = |since| mailboxes.is_one_kept_waiting(since);
        let (released, change) = self.back_pressure.release(memory, now, is_one_kept_waiting);
        match change {
            None => {}
            Some(Change::Began) => self.begin_isolation(now, shared),
            Some(Change::Ended { lasted }) => self.end_isolation(lasted, shared),
        }
        if let Some(at) = self.back_pressure.next_change(memory.backlog) {
            shared.timekeeper.arm(at);
        }
        (self.generation, released)
    }

    fn begin_isolation(&mut self, now: Instant, shared: &Shared) {
        self.mailboxes.set_bounds(Some(self.bounds));
        shared.counters.add(Stat::Isolations, 1);
        let waiting = self.mailboxes.backlog();
        shared.tell_isolation(Isolation::Began {
            waiting: waiting as u64,
        });
        self.isolation_is_logged = self.warnings.isolation.permit(now).is_some();
        if !self.isolation_is_logged {
            return;
        }
        shared.log(
            RecordId::IsolationBegan,
            format!(
                "messages that channels have not taken kept the broker from sending for {:?} (option \
                 'stall_after'): from now on each channel holds {} at most (option \
                 'channel_capacity') and loses its newest beyond; {waiting} messages wait, most in {}",
                shared.settings.stall_after.unwrap_or_default(),
                self.bounds.channel,
                in_words(&self.mailboxes.biggest(NAMED)),
            ),
        );
    }

    /// Ends isolation with the layer.
    pub(super) fn stop_isolating(&mut self, now: Instant, shared: &Shared) {
        if let Some(lasted) = self.back_pressure.stop_isolating(now) {
            self.end_isolation(lasted, shared);
        }
    }

    fn end_isolation(&mut self, lasted: Duration, shared: &Shared) {
        self.mailboxes.set_bounds(None);
        let totals = self.losses.totals(NAMED);
        for loss in self.losses.end() {
            tell(loss, shared);
        }
        if self.isolation_is_logged || totals.messages > 0 {
            shared.log(
                RecordId::IsolationEnded,
                format!(
                    "channels were isolated for {lasted:.1?} and lost {}",
                    total_in_words(&totals)
                ),
            );
        }
        shared.tell_isolation(Isolation::Ended {
            lost: totals.messages,
        });
    }

    /// Tells what channels have lost, if it is time to.
    pub(super) fn tell_losses(&mut self, now: Instant, shared: &Shared) {
        // Where the user does not come to hear them, they must not crowd out what happens but once.
        if self.losses.is_due(now) && shared.events.are_many() {
            self.losses.put_off(now);
        }
        let losses = self.losses.report(now);
        if let Some(at) = self.losses.next_report() {
            shared.timekeeper.arm(at);
        }
        if losses.is_empty() {
            return;
        }
        for loss in losses {
            tell(loss, shared);
        }
        if let Some(others) = self.warnings.channel_full.permit(now) {
            let totals = self.losses.totals(NAMED);
            shared.log(
                RecordId::ChannelFullDropped,
                format!(
                    "since they are isolated, channels have lost {} ({others} earlier warnings held \
                     back)",
                    total_in_words(&totals)
                ),
            );
        }
    }

    /// When isolation is to be looked at next.
    pub(super) fn next_isolation(&self, shared: &Shared) -> Option<Instant> {
        let backlog = self.memory(shared).backlog;
        let change = self.back_pressure.next_change(backlog);
        change.into_iter().chain(self.losses.next_report()).min()
    }
}

impl Shared {
    /// Isolates channels that have kept others waiting for too long, or ends that; tells losses.
    pub(super) fn relieve(&self, now: Instant) {
        let released = {
            let mut local = self.inbox.local.lock();
            local.tell_losses(now, self);
            local.release(now, self)
        };
        self.resume(released);
    }
}

fn tell(loss: Loss, shared: &Shared) {
    let Loss { channel, count } = loss;
    shared.tell_isolation(Isolation::Lost { channel, count });
}

/// Channels with their numbers.
pub(super) fn in_words<N: Display>(channels: &[(Arc<CStr>, N)]) -> String {
    let channels = channels.iter();
    let words: Vec<_> = channels
        .map(|(channel, number)| format!("{} ({number})", channel.to_string_lossy()))
        .collect();
    words.join(", ")
}

fn total_in_words(totals: &Totals) -> String {
    if totals.messages == 0 {
        return "no message".to_owned();
    }
    let others = match totals.channels.saturating_sub(totals.biggest.len()) {
        0 => String::new(),
        others => format!(" and {others} channels more"),
    };
    format!(
        "{} messages: {}{others}",
        totals.messages,
        in_words(&totals.biggest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::layer::Layer;
    use crate::layer::testing::Log;

    #[test]
    fn the_end_is_logged_where_the_beginning_was() {
        for begin_is_logged in [true, false] {
            let log = Log::default();
            let mut config = Config::new();
            let host = format!("memory://isolation-{begin_is_logged}");
            config.set("host", &host).unwrap();
            let layer = Layer::with_hooks(&config, log.hooks()).unwrap();
            layer.wait_ready(Duration::from_secs(20)).unwrap();
            {
                let mut local = layer.shared.inbox.local.lock();
                local.isolation_is_logged = begin_is_logged;
                local.end_isolation(Duration::from_secs(1), &layer.shared);
            }
            layer.close(Duration::from_secs(20)).unwrap();
            let is_logged = log.count(RecordId::IsolationEnded) > 0;
            assert_eq!(is_logged, begin_is_logged);
        }
    }
}
