//! AMQP 0-9-1 as bytes: the frames, methods and contents that pass on AMQP channels of our own.
//!
//! Of what the broker sends, strings and properties that nobody needs are passed over and not
//! decoded; every length is held against what is there before it is used.

mod content;
mod frame;
mod incoming;
mod outgoing;
mod passage;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use self::content::{Header, Properties};
pub(crate) use self::frame::Kind;
#[allow(
    unused_imports,
    reason = "tests, fuzz targets and counts reach more than the library"
)]
pub(crate) use self::frame::{Frame, HEAD_LEN, Head, OVERHEAD};
pub(crate) use self::incoming::{Close, Confirm, Incoming};
pub(crate) use self::outgoing::{
    Argument, BODY_END, Binding, Exchange, Name, Publish, Writer, body_parts,
};
#[allow(
    unused_imports,
    reason = "tests, fuzz targets and counts reach more than the library"
)]
pub(crate) use self::passage::{FRAME_MIN, Shares, Tune};
pub(crate) use self::passage::{
    Inbound, Notice, Received, Sent, next_of_lapin, write_for_lapin, write_heartbeat, write_tune,
    write_tune_ok,
};

/// As long as a frame may be where the broker sets no limit: longer ones are taken for a fault.
const FRAME_UNLIMITED: usize = 16 << 20;

/// Why bytes are not AMQP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// An unknown type of frame, or one without its end.
    Frame,
    /// A frame is longer than was agreed upon.
    TooLong,
    /// A method or a header ends where more was claimed.
    Truncated,
    /// Bytes are left behind a method or a header.
    Surplus,
    /// A content of an unknown class.
    Class,
    /// A property that AMQP 0-9-1 does not have.
    Property,
}
