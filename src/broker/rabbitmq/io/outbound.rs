//! What waits to be sent: frames, of which the payloads of large bodies stay where they are.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::amqp::{BODY_END, Writer, body_parts};

/// A body of less is copied: that costs less than one more part of a write.
pub(in crate::broker::rabbitmq) const LARGE: usize = 16 << 10;

/// So many parts are written at once.
const PARTS: usize = 64;

/// Idle storage above this is given back.
const KEPT: usize = 256 << 10;

/// A body that is sent from where it is.
pub(in crate::broker::rabbitmq) type SharedBody = Arc<Vec<u8>>;

/// A stretch of what is to be sent.
#[derive(Debug)]
enum Part {
    /// The next so many bytes of what was copied.
    Copied(usize),
    Shared(SharedBody, Range<usize>),
}

/// What waits to be sent, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    copied: Vec<u8>,
    /// How much of `copied` was sent.
    sent: usize,
    /// All but the end of `copied`, where there are shared parts.
    parts: VecDeque<Part>,
    /// How much of `copied` was sent or is in a part.
    covered: usize,
    /// How much is shared, and not sent.
    shared: usize,
}

impl Outbound {
    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.copied.len() - self.sent + self.shared
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To append whole frames to.
    pub(super) const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }

    /// Appends the frames of a body, which stays where it is.
    pub(super) fn append_shared(&mut self, channel: u16, body: &SharedBody, frame_max: usize) {
        let mut start = 0;
        for part in body_parts(body, frame_max) {
            Writer::new(&mut self.copied, channel).body_head(part);
            let copied = self.copied.len() - self.covered;
            self.parts.push_back(Part::Copied(copied));
            self.covered = self.copied.len();
            let end = start + part.len();
            self.parts
                .push_back(Part::Shared(Arc::clone(body), start..end));
            self.shared += part.len();
            start = end;
            self.copied.extend_from_slice(BODY_END);
        }
    }

    /// The first parts of what waits.
    pub(super) fn first<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>) {
        let mut at = self.sent;
        for part in self.parts.iter().take(PARTS) {
            match part {
                Part::Copied(len) => {
                    slices.extend(self.copied.get(at..at + len).map(IoSlice::new));
                    at += len;
                }
                Part::Shared(body, range) => {
                    slices.extend(body.get(range.clone()).map(IoSlice::new));
                }
            }
        }
        if self.parts.len() < PARTS {
            slices.extend(self.copied.get(at..).map(IoSlice::new));
        }
    }

    /// The first `count` bytes were sent.
    pub(super) fn advance(&mut self, mut count: usize) {
        while count > 0
            && let Some(part) = self.parts.front_mut()
        {
            let left = match part {
                Part::Copied(len) => {
                    let now = count.min(*len);
                    *len -= now;
                    self.sent += now;
                    count -= now;
                    *len
                }
                Part::Shared(_, range) => {
                    let now = count.min(range.len());
                    range.start += now;
                    self.shared -= now;
                    count -= now;
                    range.len()
                }
            };
            if left > 0 {
                break;
            }
            self.parts.pop_front();
        }
        self.sent += count;
        self.covered = self.covered.max(self.sent);
        if self.is_empty() {
            self.copied.clear();
            self.copied.shrink_to(KEPT);
            (self.sent, self.covered) = (0, 0);
        } else if self.sent >= KEPT {
            // It may be long before all of it is sent at once.
            self.copied.drain(..self.sent);
            self.covered -= self.sent;
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is sent where each write takes at most `most` bytes.
    fn sent(outbound: &mut Outbound, most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbound.is_empty() {
            let before = outbound.len();
            let written: Vec<u8> = {
                let mut slices = Vec::new();
                outbound.first(&mut slices);
                let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
                bytes.take(most).collect()
            };
            assert!(!written.is_empty());
            outbound.advance(written.len());
            assert_eq!(outbound.len(), before - written.len());
            all.extend(written);
        }
        all
    }

    proptest! {
        #[test]
        fn a_body_that_is_shared_is_sent_as_one_that_is_copied(
            bodies in prop::collection::vec((any::<bool>(), 0_usize..500), 1..20),
            frame_max in 20_usize..200,
            most in 1_usize..1000,
        ) {
            let (mut outbound, mut copied) = (Outbound::default(), Vec::new());
            for (is_shared, size) in bodies {
                let body = vec![u8::try_from(size % 251).unwrap(); size];
                Writer::new(&mut copied, 7).body(&body, frame_max);
                if is_shared {
                    outbound.append_shared(7, &Arc::new(body), frame_max);
                } else {
                    Writer::new(outbound.end(), 7).body(&body, frame_max);
                }
            }
            prop_assert_eq!(outbound.len(), copied.len());
            prop_assert_eq!(sent(&mut outbound, most), copied);
            prop_assert!(outbound.parts.is_empty() && outbound.copied.is_empty());
        }
    }

    #[test]
    fn a_body_is_let_go_once_it_is_sent() {
        let body = Arc::new(vec![1; 300]);
        let mut outbound = Outbound::default();
        outbound.append_shared(1, &body, 100);
        assert!(Arc::strong_count(&body) > 1);
        outbound.advance(outbound.len() - 1);
        assert_eq!(Arc::strong_count(&body), 1);
    }

    #[test]
    fn what_was_sent_is_not_kept_until_all_is() {
        let mut outbound = Outbound::default();
        for _ in 0..100 {
            outbound.end().extend_from_slice(&[1; KEPT / 2]);
            outbound.append_shared(1, &Arc::new(vec![2; 1000]), 4096);
            outbound.advance(outbound.len() - 100);
        }
        assert!(outbound.copied.len() < 2 * KEPT);
        let body = [&[2; 99][..], BODY_END].concat();
        assert_eq!(sent(&mut outbound, 10), body);
    }

    #[test]
    fn what_is_appended_between_two_writes_goes_last() {
        let mut outbound = Outbound::default();
        outbound.append_shared(1, &Arc::new(vec![1; 30]), 100);
        outbound.advance(10);
        outbound.end().extend_from_slice(b"end");
        let all = sent(&mut outbound, 7);
        assert_eq!(all.len(), 30 + 8 + 3 - 10);
        assert!(all.ends_with(b"end"));
    }
}
