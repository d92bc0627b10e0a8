//! What groups are bound to, and the methods that change that. None of them is answered but
//! `queue.unbind`, for which AMQP has no `nowait`.

use super::parts::{Errand, Made, Part, part_name};
use crate::amqp::{Argument, Binding, Exchange, Name, Writer};
use crate::broker::{BindingChange, Mark, Verb};

/// The argument of a binding that tells it from those of other marks. Exchanges do not route by it.
const MARK: &str = "channel-layer-link";

/// What groups are bound to.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The private exchange of the layer; and which parts it has, if it may have some.
    Exchange(String, Option<Made>),
    /// The own queue.
    Queue(String),
}

/// What is done on an AMQP channel for bindings.
#[derive(Debug, Clone)]
pub(super) enum Job {
    Errand(Errand),
    Change(Part, BindingChange),
}

impl Destination {
    /// Which parts it has, if it may have some.
    pub(super) fn made(&self) -> Option<Made> {
        match self {
            Self::Exchange(_, made) => made.clone(),
            Self::Queue(_) => None,
        }
    }

    /// Whether what is bound to it stays where the connection is lost.
    pub(super) fn outlives_connections(&self) -> bool {
        matches!(self, Self::Exchange(..))
    }

    fn name(&self) -> &str {
        let (Self::Exchange(name, _) | Self::Queue(name)) = self;
        name
    }

    /// Writes what does `job`, where groups are those of the exchange `groups`.
    pub(super) fn write(&self, job: &Job, groups: &str, writer: &mut Writer<'_>) {
        match job {
            Job::Errand(Errand::Make(part)) => self.make(*part, writer),
            Job::Errand(Errand::Find(part)) => {
                declare(&part_name(self.name(), *part), true, writer);
            }
            Job::Change(part, change) => self.change(*part, change, groups, writer),
        }
    }

    /// Makes a part, which routes all to the private exchange, and which the broker deletes with that.
    fn make(&self, part: Part, writer: &mut Writer<'_>) {
        let part = part_name(self.name(), part);
        declare(&part, false, writer);
        let binding = Binding {
            destination: short(self.name()),
            source: short(&part),
            routing_key: Name::default(),
            argument: None,
        };
        writer.exchange_bind(&binding, true);
    }

    fn change(&self, part: Part, change: &BindingChange, groups: &str, writer: &mut Writer<'_>) {
        // A queue has no parts, but for the first.
        let destination = part_name(self.name(), part);
        let binding = Binding {
            destination: short(&destination),
            source: short(groups),
            routing_key: short(&change.group),
            argument: marked(change.mark),
        };
        match (self, change.verb) {
            (Self::Exchange(..), Verb::Bind) => writer.exchange_bind(&binding, true),
            (Self::Exchange(..), Verb::Unbind) => writer.exchange_unbind(&binding, true),
            (Self::Queue(_), Verb::Bind) => writer.queue_bind(&binding, true),
            (Self::Queue(_), Verb::Unbind) => writer.queue_unbind(&binding),
        }
    }
}

/// Makes a part, or looks for it: the broker closes the AMQP channel where it is not there.
fn declare(part: &str, passive: bool, writer: &mut Writer<'_>) {
    let exchange = Exchange {
        name: short(part),
        kind: short("fanout"),
        passive,
        auto_delete: !passive,
    };
    writer.exchange_declare(&exchange, true);
}

/// Names of groups and of queues fit, and so do those of parts.
fn short(name: &str) -> Name<'_> {
    Name::new(name).unwrap_or_default()
}

/// The argument of a binding.
fn marked(mark: Mark) -> Option<Argument<'static>> {
    (mark > 0).then(|| Argument {
        name: short(MARK),
        value: mark.into(),
    })
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::AMQPClass;
    use amq_protocol::protocol::exchange::{self, AMQPMethod as E};
    use amq_protocol::protocol::queue::{self, AMQPMethod as Q};
    use amq_protocol::types::{AMQPValue, FieldTable, ShortString};

    use super::*;

    fn written(destination: &Destination, job: Job) -> Vec<AMQPClass> {
        let mut out = Vec::new();
        destination.write(&job, "groups", &mut Writer::new(&mut out, 9));
        let mut rest = out.as_slice();
        let mut methods = Vec::new();
        while !rest.is_empty() {
            let (left, frame) = parse_frame(rest).unwrap();
            let AMQPFrame::Method(9, method) = frame else {
                panic!("{frame:?}");
            };
            methods.push(method);
            rest = left;
        }
        methods
    }

    fn name(name: &str) -> ShortString {
        name.into()
    }

    fn marked_with(mark: Mark) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert(MARK.into(), AMQPValue::LongLongInt(mark.into()));
        arguments
    }

    #[test]
    fn groups_are_bound_to_their_part_and_bindings_carry_their_mark() {
        let private = Destination::Exchange("private".to_owned(), None);
        let bind = |mark, part| {
            let change = BindingChange {
                mark,
                ..BindingChange::bind("g")
            };
            written(&private, Job::Change(part, change))
        };
        let wanted = |destination, arguments| {
            AMQPClass::Exchange(E::Bind(exchange::Bind {
                destination: name(destination),
                source: name("groups"),
                routing_key: name("g"),
                nowait: true,
                arguments,
            }))
        };
        assert_eq!(bind(0, 0), [wanted("private", FieldTable::default())]);
        assert_eq!(bind(7, 2), [wanted("private.part.2", marked_with(7))]);

        let unbind = BindingChange {
            mark: 7,
            ..BindingChange::unbind("g")
        };
        let unbound = AMQPClass::Exchange(E::Unbind(exchange::Unbind {
            destination: name("private.part.2"),
            source: name("groups"),
            routing_key: name("g"),
            nowait: true,
            arguments: marked_with(7),
        }));
        assert_eq!(written(&private, Job::Change(2, unbind)), [unbound]);
    }

    #[test]
    fn groups_may_be_bound_to_the_queue_itself() {
        let queue = Destination::Queue("own".to_owned());
        let bound = AMQPClass::Queue(Q::Bind(queue::Bind {
            queue: name("own"),
            exchange: name("groups"),
            routing_key: name("g"),
            nowait: true,
            arguments: FieldTable::default(),
        }));
        let unbound = AMQPClass::Queue(Q::Unbind(queue::Unbind {
            queue: name("own"),
            exchange: name("groups"),
            routing_key: name("g"),
            arguments: FieldTable::default(),
        }));
        let change = |change| written(&queue, Job::Change(0, change));
        assert_eq!(change(BindingChange::bind("g")), [bound]);
        assert_eq!(change(BindingChange::unbind("g")), [unbound]);
    }

    #[test]
    fn a_part_is_made_and_routed_on_or_looked_for_and_left_as_it_is() {
        let private = Destination::Exchange("private".to_owned(), Some(Made::default()));
        let declared = |passive| {
            AMQPClass::Exchange(E::Declare(exchange::Declare {
                exchange: name("private.part.3"),
                kind: name("fanout"),
                passive,
                durable: false,
                auto_delete: !passive,
                internal: false,
                nowait: true,
                arguments: FieldTable::default(),
            }))
        };
        let routed = AMQPClass::Exchange(E::Bind(exchange::Bind {
            destination: name("private"),
            source: name("private.part.3"),
            routing_key: name(""),
            nowait: true,
            arguments: FieldTable::default(),
        }));
        let done = |errand| written(&private, Job::Errand(errand));
        assert_eq!(done(Errand::Make(3)), [declared(false), routed]);
        assert_eq!(done(Errand::Find(3)), [declared(true)]);
    }
}
