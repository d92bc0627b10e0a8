//! Whose AMQP channels are whose, of those that are not lapin's.

use std::collections::BTreeSet;

/// Names one [`super::Handler`] of a connection; never used again.
pub(super) type HandlerId = u64;

/// The numbers of our AMQP channels, and who has them.
#[derive(Debug)]
pub(super) struct Channels {
    first: u16,
    last: u16,
    /// From `first` on, as far as they were used.
    owners: Vec<Option<HandlerId>>,
    /// Those of `owners` that nobody has.
    free: BTreeSet<u16>,
}

impl Channels {
    pub(super) const fn new(first: u16, last: u16) -> Self {
        Self {
            first,
            last,
            owners: Vec::new(),
            free: BTreeSet::new(),
        }
    }

    /// A number that is free; `None` where all are used.
    pub(super) fn take(&mut self, owner: HandlerId) -> Option<u16> {
        if let Some(number) = self.free.pop_first() {
            *self.owner(number)? = Some(owner);
            return Some(number);
        }
        let next = usize::from(self.first) + self.owners.len();
        let number = u16::try_from(next).ok().filter(|next| *next <= self.last)?;
        self.owners.push(Some(owner));
        Some(number)
    }

    /// The channel of this number is closed on both sides.
    pub(super) fn release(&mut self, number: u16) {
        if let Some(owner) = self.owner(number)
            && owner.take().is_some()
        {
            self.free.insert(number);
        }
    }

    pub(super) fn owner_of(&self, number: u16) -> Option<HandlerId> {
        let index = number.checked_sub(self.first)?;
        *self.owners.get(usize::from(index))?
    }

    /// How many may be open at a time.
    pub(super) fn most(&self) -> usize {
        (usize::from(self.last) + 1).saturating_sub(self.first.into())
    }

    fn owner(&mut self, number: u16) -> Option<&mut Option<HandlerId>> {
        let index = number.checked_sub(self.first)?;
        self.owners.get_mut(usize::from(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_once_its_channel_is_closed() {
        let mut channels = Channels::new(65, 67);
        assert_eq!(channels.most(), 3);
        let mut taken = [(); 4].map(|()| channels.take(1));
        assert_eq!(taken, [Some(65), Some(66), Some(67), None]);
        channels.release(66);
        channels.release(66);
        taken = [(); 4].map(|()| channels.take(2));
        assert_eq!(taken, [Some(66), None, None, None]);
        assert_eq!(channels.owner_of(65), Some(1));
        assert_eq!(channels.owner_of(66), Some(2));
    }

    #[test]
    fn a_number_that_is_not_ours_has_no_owner() {
        let mut channels = Channels::new(65, 65);
        assert_eq!(channels.owner_of(65), None);
        assert_eq!(channels.take(1), Some(65));
        assert_eq!([64, 66].map(|number| channels.owner_of(number)), [None; 2]);
        channels.release(64);
        assert_eq!(channels.take(1), None);
    }
}
