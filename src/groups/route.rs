//! The route of one group: whether the broker has its binding, what is under way, and what a new link
//! may take for granted.
//!
//! Bindings may outlive the link that made them, and so may a change that was on its way through a link
//! that is lost: it is done a little later, or never. So a binding carries the mark of the link that
//! made it. Bindings of different marks are different ones to the broker, and a late unbind of an
//! earlier link does not take what a later one has bound.
//!
//! What an earlier link has bound is only *presumed* to be there, until a probe has shown that nothing of it
//! is lost, or it was bound once more.

/// Counts the links that have used the same bindings, from 0.
pub(crate) type Mark = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unbound,
    Binding,
    Bound,
    /// Bound, and being bound once more.
    Rebinding,
    /// Bound by an earlier link.
    Presumed,
    /// Presumed, and being bound once more.
    Confirming,
    Unbinding,
    /// The link was lost while a change was under way.
    InDoubt,
}

/// What is to be done, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Bind,
    Unbind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    state: State,
    /// Of the binding that there is, or may be.
    mark: Mark,
}

impl Route {
    pub(super) const NONE: Self = Self {
        state: State::Unbound,
        mark: 0,
    };

    /// Whether the broker has it. `proven`: all that an earlier link has bound.
    pub(super) fn is_bound(self, proven: bool) -> bool {
        match self.state {
            State::Bound | State::Rebinding => true,
            State::Presumed | State::Confirming => proven,
            _ => false,
        }
    }

    /// Whether it is to be unbound once nobody wants it.
    pub(super) fn is_settled(self) -> bool {
        matches!(self.state, State::Bound | State::Presumed)
    }

    /// Whether the broker has nothing of it, and nothing is under way.
    pub(super) fn is_none(self) -> bool {
        self.state == State::Unbound
    }

    /// Whether the broker routes it here, until it says otherwise.
    pub(super) fn counts(self) -> bool {
        !matches!(self.state, State::Unbound | State::Binding | State::InDoubt)
    }

    /// Begins to bind it once more, if it is bound and no change is under way: the broker may have lost what
    /// it had confirmed, and where it has not, nothing changes.
    pub(super) fn renew(&mut self) -> Option<(Verb, Mark)> {
        self.state = match self.state {
            State::Bound => State::Rebinding,
            State::Presumed => State::Confirming,
            _ => return None,
        };
        Some((Verb::Bind, self.mark))
    }

    /// Binds it once more if it is only presumed to be bound.
    pub(super) fn confirm(&mut self) -> Option<(Verb, Mark)> {
        match self.state {
            State::Presumed => self.renew(),
            _ => None,
        }
    }

    /// Begins the change that brings it to what is `wanted`, if none is under way. `mark` is that of the
    /// link.
    pub(super) fn follow(&mut self, wanted: bool, mark: Mark) -> Option<(Verb, Mark)> {
        match (self.state, wanted) {
            (State::Unbound, true) => {
                *self = Self {
                    state: State::Binding,
                    mark,
                };
                Some((Verb::Bind, mark))
            }
            (State::Bound | State::Presumed, false) => {
                self.state = State::Unbinding;
                Some((Verb::Unbind, self.mark))
            }
            _ => None,
        }
    }

    /// The broker has done it. Whether this was waited for.
    pub(super) fn done(&mut self, verb: Verb, mark: Mark) -> bool {
        if self.mark != mark {
            return false;
        }
        self.state = match (self.state, verb) {
            (State::Binding | State::Rebinding | State::Confirming, Verb::Bind) => State::Bound,
            (State::Unbinding, Verb::Unbind) => State::Unbound,
            _ => return false,
        };
        true
    }

    /// The link is lost.
    pub(super) fn link_lost(&mut self) {
        self.state = match self.state {
            State::Binding | State::Unbinding => State::InDoubt,
            State::Rebinding => State::Bound,
            State::Confirming => State::Presumed,
            settled => settled,
        };
    }

    /// A new link stands, and the bindings of the one before are there. Where one is in doubt, the result
    /// is the mark of what is to be unbound, whatever follows; nobody waits for that.
    pub(super) fn taken_over(&mut self) -> Option<Mark> {
        match self.state {
            State::InDoubt => {
                self.state = State::Unbound;
                Some(self.mark)
            }
            State::Bound => {
                self.state = State::Presumed;
                None
            }
            _ => None,
        }
    }

    /// The broker has no bindings any more.
    pub(super) fn clear(&mut self) {
        *self = Self::NONE;
    }
}
