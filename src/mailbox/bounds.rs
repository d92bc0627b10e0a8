//! How much may wait in memory while each channel is bounded by itself, and which channel is the
//! fullest.

use std::collections::BinaryHeap;
use std::ffi::CStr;
use std::sync::Arc;

use super::call::MailboxKey;

/// How many messages may wait while each channel is bounded by itself. All count copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// In one channel.
    pub(crate) channel: usize,
    /// In all. The first message of a channel that is in use is let in all the same.
    pub(crate) total: usize,
}

/// A message that was dropped because too many wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The channel that has lost it.
    pub(crate) channel: Arc<CStr>,
    /// The bound that was reached.
    pub(crate) bound: Bound,
}

/// Which of [`Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// What one channel may hold.
    Channel,
    /// What all channels may hold.
    Total,
}

/// Finds the fullest channel. Each length that a channel has grown to has an entry; those that do
/// not hold any more are found when they are at the top.
#[derive(Debug)]
pub(super) struct Fullest(BinaryHeap<(usize, MailboxKey)>);

impl Fullest {
    /// Of all channels as they are.
    pub(super) fn new(lengths: impl Iterator<Item = (usize, MailboxKey)>) -> Self {
        Self(lengths.collect())
    }

    /// A channel has grown to `length`.
    pub(super) fn grown(&mut self, key: MailboxKey, length: usize) {
        self.0.push((length, key));
    }

    /// How many entries there are, those that do not hold any more among them.
    pub(super) fn entries(&self) -> usize {
        self.0.len()
    }

    /// The fullest channel and its length; `length_of` says how long one is now.
    pub(super) fn find(
        &mut self,
        length_of: impl Fn(MailboxKey) -> usize,
    ) -> Option<(MailboxKey, usize)> {
        loop {
            let (length, key) = *self.0.peek()?;
            let now = length_of(key);
            if now == length {
                return Some((key, length));
            }
            self.0.pop();
            // Where it has grown, there is an entry for that.
            if 0 < now && now < length {
                self.0.push((now, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_found_by_the_lengths_that_channels_have_now() {
        let mut fullest = Fullest::new([(5, 0), (7, 1), (6, 2)].into_iter());
        fullest.grown(0, 8);
        assert_eq!(fullest.entries(), 4);
        let mut find = |lengths: [usize; 3]| fullest.find(|key| lengths[key as usize]);
        assert_eq!(find([8, 7, 6]), Some((0, 8)));
        assert_eq!(find([5, 7, 6]), Some((1, 7)));
        assert_eq!(find([5, 2, 6]), Some((2, 6)));
        assert_eq!(find([1, 2, 0]), Some((1, 2)));
        // One that is empty is none, though it held something.
        assert_eq!(find([0, 0, 0]), None);
        assert_eq!(fullest.entries(), 0);
    }
}
