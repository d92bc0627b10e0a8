//! How much of what a connection reads belongs to the bodies of messages.
//!
//! Heartbeats, and answers to those who bind groups, say nothing of the queue. A part of a body does: a
//! large message is under way.

/// The type, the AMQP channel and the size (AMQP 0-9-1, section 4.2.3).
const HEADER: usize = 7;
const BODY: u8 = 3;
/// The octet behind each frame.
const END: usize = 1;

/// Where in a frame the bytes end that were read so far.
#[derive(Debug, Default)]
pub(super) struct BodyMeter {
    header: [u8; HEADER],
    /// How much of the header has been read.
    filled: usize,
    /// How much of the frame comes behind what was read, once its header is known.
    left: usize,
}

impl BodyMeter {
    /// Reads on. Returns how many of these bytes belong to bodies.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut of_bodies = 0;
        loop {
            if self.left > 0 {
                let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= part.len();
                if self.header[0] == BODY {
                    // The end of the frame, if it is among them.
                    of_bodies += part.len() - usize::from(self.left == 0);
                }
                bytes = rest;
            }
            if bytes.is_empty() {
                return of_bodies;
            }
            let (part, rest) = bytes.split_at((HEADER - self.filled).min(bytes.len()));
            self.header[self.filled..][..part.len()].copy_from_slice(part);
            self.filled += part.len();
            bytes = rest;
            if self.filled == HEADER {
                let [_, _, _, a, b, c, d] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize + END;
                self.filled = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
    }

    #[test]
    fn heartbeats_methods_and_headers_are_no_part_of_a_body() {
        let others = [frame(8, b""), frame(1, &[3; 300]), frame(2, &[3; 30])].concat();
        assert_eq!(BodyMeter::default().count(&others), 0);
    }

    #[test]
    fn a_part_of_a_body_counts_before_the_rest_is_there() {
        let mut meter = BodyMeter::default();
        let body = frame(BODY, &[1; 1000]);
        assert_eq!(meter.count(&body[..HEADER]), 0);
        assert_eq!(meter.count(&body[HEADER..HEADER + 10]), 10);
        assert_eq!(meter.count(&body[HEADER + 10..]), 990);
        assert_eq!(meter.count(&frame(8, b"")), 0);
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_where_reads_end(
            frames in prop::collection::vec((1..=4_u8, prop::collection::vec(0..=9_u8, 0..40)), 0..20),
            length in 1..50_usize,
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let wanted: usize =
                frames.iter().filter(|(kind, _)| *kind == BODY).map(|(_, payload)| payload.len()).sum();
            let mut meter = BodyMeter::default();
            let counted: usize = bytes.chunks(length).map(|part| meter.count(part)).sum();
            prop_assert_eq!(counted, wanted);
        }
    }
}
