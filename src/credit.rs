//! The ack rule: when a delivery may be let go, so that the broker sends one more.
//!
//! The queue is exclusive and delivery at most once, so an ack says only 'send me more'. What
//! should stay unacked is `min(outstanding, max(0, backlog - local_capacity))`: memory never holds
//! more than `local_capacity + prefetch_count` arrivals, whatever the receivers do.

/// Counts the deliveries of one consuming connection that are not let go.
#[derive(Debug)]
pub(crate) struct Credit {
    local_capacity: usize,
    held: usize,
}

impl Credit {
    pub(crate) fn new(local_capacity: usize) -> Self {
        Self {
            local_capacity,
            held: 0,
        }
    }

    /// A new connection starts a new count: what the old one held died with its queue.
    pub(crate) fn reset(&mut self) {
        self.held = 0;
    }

    /// Deliveries have arrived.
    pub(crate) fn arrived(&mut self, count: usize) {
        self.held += count;
    }

    /// How many of the oldest may be let go, with `backlog` messages in memory.
    #[must_use]
    pub(crate) fn release(&mut self, backlog: usize) -> usize {
        let keep = self.held.min(backlog.saturating_sub(self.local_capacity));
        let release = self.held - keep;
        self.held = keep;
        release
    }

    /// Deliveries that are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_local_capacity_every_delivery_is_let_go() {
        let mut credit = Credit::new(2);
        credit.arrived(2);
        assert_eq!(credit.release(2), 2);
        credit.arrived(2);
        assert_eq!(credit.release(4), 0);
        assert_eq!(credit.held(), 2);
        assert_eq!(credit.release(3), 1);
        assert_eq!(credit.release(2), 1);
        assert_eq!(credit.release(0), 0);
    }

    #[test]
    fn without_local_capacity_there_is_an_ack_for_each_message_received() {
        let mut credit = Credit::new(0);
        credit.arrived(3);
        assert_eq!(credit.release(3), 0);
        assert_eq!(credit.release(2), 1);
        assert_eq!(credit.release(0), 2);
    }

    #[test]
    fn a_group_message_for_many_channels_holds_no_more_than_was_delivered() {
        let mut credit = Credit::new(1);
        credit.arrived(1);
        assert_eq!(credit.release(50), 0);
        assert_eq!(credit.release(2), 0);
        assert_eq!(credit.release(1), 1);
    }

    #[test]
    fn a_new_connection_owes_nothing_for_the_old_one() {
        let mut credit = Credit::new(0);
        credit.arrived(3);
        credit.reset();
        assert_eq!(credit.release(3), 0);
        assert_eq!(credit.held(), 0);
        credit.arrived(1);
        assert_eq!(credit.release(0), 1);
    }
}
