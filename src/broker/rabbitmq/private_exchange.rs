//! The private exchange of a layer: its names, and what a new link may take for granted. No I/O.
//!
//! Groups are bound not to the queue but to an exchange of the layer, so that the bindings outlive the
//! queue, which is deleted with its connection:
//!
//! ```text
//! groups --(each group, probe key)--> private exchange --(#)--> intake --> queue
//! groups --(each group)--> part ----> private exchange --(!keeper)--> keeper
//! ```
//!
//! There are parts where there are many groups ([`parts`](super::parts)).
//!
//! All of these are deleted by the broker itself: the intake with the last binding from it, the keeper
//! [`KEPT_FOR`] after its consumer is gone, and then the private exchange with its parts and all bindings to
//! them. No link declares under a name that an earlier one has used, but for the parts of an exchange that is
//! kept: what an earlier link still has on its way cannot touch what a later one makes.
//!
//! Bindings of groups go all at once, with the private exchange, with the groups exchange or with their part.
//! The binding of the probe key, which is made before any of them, goes with the first two. So while a probe
//! arrives by it, and each part is found, all is there that the broker has confirmed.

use std::time::Duration;

use super::parts::{Made, part_name};
use crate::broker::{Earlier, Mark};

/// How long the bindings outlive a connection.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);

/// Binds the keeper. No group can have this name, for its `!`.
pub(super) const KEEPER_KEY: &str = "!keeper";

/// The key by which the groups exchange routes probes to the private exchange or the queue of this name.
/// No group can have it, for its `!`.
pub(super) fn probe_key(destination: &str) -> String {
    format!("!{destination}")
}

/// What one link declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) exchange: String,
    /// What the private exchange is bound to, and the queue to it.
    pub(super) intake: String,
    pub(super) keeper: String,
    /// What the private exchange has; or had, and may have lost.
    pub(super) earlier: Earlier,
}

impl Plan {
    /// Whether the private exchange is that of an earlier link.
    pub(super) fn is_kept(&self) -> bool {
        self.earlier != Earlier::Nothing
    }
}

/// An intake that may route to a queue of an earlier link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intake {
    pub(super) exchange: String,
    pub(super) name: String,
    queue: String,
}

/// What a layer may have on the broker.
#[derive(Debug)]
pub(super) struct PrivateExchange {
    /// What all names begin with: rights of users go by the beginnings of names.
    prefix: String,
    /// The exchange that the next link may use, and its last mark.
    kept: Option<(String, Mark)>,
    /// The parts of that exchange.
    made: Made,
    /// The broker has refused a part.
    is_whole: bool,
    intakes: Vec<Intake>,
    /// Exchanges that may have been declared, and bound to nothing: the broker never deletes such.
    unfinished: Vec<String>,
    named: u64,
}

impl PrivateExchange {
    /// `queue` is the first name of the own queue.
    pub(super) fn new(queue: &str) -> Self {
        Self {
            prefix: format!("{queue}.groups"),
            kept: None,
            made: Made::default(),
            is_whole: false,
            intakes: Vec::new(),
            unfinished: Vec::new(),
            named: 0,
        }
    }

    /// There is a new queue of this name: the intakes of an older one went with that.
    pub(super) fn has_new_queue(&mut self, queue: &str) {
        self.intakes.retain(|intake| intake.queue != queue);
    }

    /// What is declared next, for `queue`. `random` tells a new exchange from those of earlier processes.
    pub(super) fn plan(&mut self, random: &str, queue: &str) -> Plan {
        self.named += 1;
        let (exchange, earlier) = match &mut self.kept {
            Some((exchange, mark)) => {
                *mark += 1;
                (exchange.clone(), Earlier::All(*mark))
            }
            None => {
                let exchange = format!("{}.{random}", self.prefix);
                (exchange, Earlier::Nothing)
            }
        };
        let intake = format!("{exchange}.intake.{}", self.named);
        self.unfinished.push(intake.clone());
        if earlier == Earlier::Nothing {
            self.unfinished.push(exchange.clone());
        }
        self.intakes.push(Intake {
            exchange: exchange.clone(),
            name: intake.clone(),
            queue: queue.to_owned(),
        });
        Plan {
            intake,
            keeper: format!("{exchange}.keeper.{}", self.named),
            exchange,
            earlier,
        }
    }

    /// Another name for the keeper of `plan`.
    pub(super) fn next_keeper(&mut self, plan: &Plan) -> String {
        self.named += 1;
        format!("{}.keeper.{}", plan.exchange, self.named)
    }

    /// All of `plan` stands, and the probe key is bound: the broker deletes it by itself.
    pub(super) fn stands(&mut self, plan: &Plan) {
        let names = [&plan.exchange, &plan.intake];
        self.unfinished.retain(|name| !names.contains(&name));
    }

    /// The layer knows what `plan` begins with, and what it is told to be bound from now on is bound to
    /// this exchange: the next link may use it. Before that, what the layer takes to be bound is so to
    /// another.
    pub(super) fn is_used(&mut self, plan: &Plan) {
        if !plan.is_kept() {
            self.kept = Some((plan.exchange.clone(), 0));
        }
    }

    /// What links that came to nothing may have left, which is to be deleted.
    pub(super) fn unfinished(&self) -> Vec<String> {
        self.unfinished.clone()
    }

    /// It is deleted, or could not be there.
    pub(super) fn forget_unfinished(&mut self) {
        self.unfinished.clear();
    }

    /// The exchange is gone, or its bindings are: the next one is another.
    pub(super) fn is_lost(&mut self) {
        let made = std::mem::take(&mut self.made);
        if let Some((exchange, _)) = self.kept.take() {
            let parts = made.unconfirmed().into_iter();
            self.unfinished
                .extend(parts.map(|part| part_name(&exchange, part)));
        }
    }

    /// The parts of the exchange, if it may have some.
    pub(super) fn parts(&self) -> Option<Made> {
        (!self.is_whole).then(|| self.made.clone())
    }

    /// The broker has refused a part: from now on there is none, and the next exchange is another. False if
    /// there was none before.
    pub(super) fn do_without_parts(&mut self) -> bool {
        self.is_lost();
        !std::mem::replace(&mut self.is_whole, true)
    }

    /// What may route to other queues than `queue`, which the broker may not have deleted.
    pub(super) fn left_behind(&self, queue: &str) -> Vec<Intake> {
        let intakes = self.intakes.iter();
        intakes
            .filter(|intake| intake.queue != queue)
            .cloned()
            .collect()
    }

    /// They route to nothing any more.
    pub(super) fn removed(&mut self, removed: &[Intake]) {
        self.intakes.retain(|intake| !removed.contains(intake));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn no_group_has_the_key_of_a_probe_or_of_a_keeper() {
        for key in [&*probe_key("channels_abcdefghijkl"), KEEPER_KEY] {
            assert!(name::validate_group(key).is_err(), "{key}");
        }
    }

    fn names(plan: &Plan) -> [&str; 3] {
        [&plan.exchange, &plan.intake, &plan.keeper]
    }

    #[test]
    fn all_names_begin_with_that_of_the_queue() {
        let mut private = PrivateExchange::new("channels_abc");
        let plan = private.plan("xyz", "channels_abc");
        for name in names(&plan) {
            assert!(name.starts_with("channels_abc.groups.xyz"), "{name}");
        }
        assert!(
            private
                .next_keeper(&plan)
                .starts_with("channels_abc.groups.xyz")
        );
    }

    #[test]
    fn an_exchange_that_stood_is_used_by_the_next_link_with_another_intake_and_keeper() {
        let mut private = PrivateExchange::new("q");
        let first = private.plan("a", "q");
        assert_eq!(first.earlier, Earlier::Nothing);
        private.stands(&first);
        private.is_used(&first);
        let second = private.plan("b", "q");
        assert_eq!(second.earlier, Earlier::All(1));
        assert_eq!(second.exchange, first.exchange);
        assert_ne!(second.intake, first.intake);
        assert_ne!(second.keeper, first.keeper);
        assert_ne!(private.next_keeper(&second), second.keeper);
        // A link that came to nothing may have changes on their way too.
        assert_eq!(private.plan("c", "q").earlier, Earlier::All(2));
    }

    #[test]
    fn one_that_never_stood_or_is_lost_is_not_used_again() {
        let mut private = PrivateExchange::new("q");
        let first = private.plan("a", "q");
        let second = private.plan("b", "q");
        assert_eq!(second.earlier, Earlier::Nothing);
        assert_ne!(second.exchange, first.exchange);
        private.stands(&second);
        let unknown = private.plan("d", "q");
        assert_eq!(
            unknown.earlier,
            Earlier::Nothing,
            "the layer knows nothing of it"
        );
        private.stands(&second);
        private.is_used(&second);
        private.is_lost();
        let third = private.plan("c", "q");
        assert_eq!(third.earlier, Earlier::Nothing);
        assert!(names(&third).iter().all(|name| name.contains(".c")));
    }

    #[test]
    fn what_an_attempt_may_have_left_is_to_be_deleted_once_another_stands() {
        let mut private = PrivateExchange::new("q");
        let failed = private.plan("a", "q");
        let first = private.plan("b", "q");
        private.stands(&first);
        private.is_used(&first);
        assert_eq!(
            private.unfinished(),
            [failed.intake.clone(), failed.exchange]
        );
        private.forget_unfinished();
        assert!(private.unfinished().is_empty());
        let failed = private.plan("c", "q");
        let second = private.plan("d", "q");
        private.stands(&second);
        let left = private.unfinished();
        assert_eq!(left, [failed.intake], "and not the exchange, which stands");
    }

    #[test]
    fn only_intakes_of_queues_with_other_names_are_left_behind() {
        let mut private = PrivateExchange::new("q");
        let first = private.plan("a", "q");
        private.stands(&first);
        assert_eq!(private.left_behind("q"), []);
        private.has_new_queue("q");
        let second = private.plan("b", "q");
        private.has_new_queue("q2");
        private.plan("c", "q2");
        let left = private.left_behind("q2");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].name, second.intake);
        assert_eq!(private.left_behind("q2"), left, "until they are removed");
        private.removed(&left);
        assert_eq!(private.left_behind("q2"), []);
    }
}
