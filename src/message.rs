//! A message body and what is computed from it once. Shared by all members of a group, never
//! copied for fan-out.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::error::Error;

/// The body of a message as it goes to a user: one MessagePack map without the recipient.
///
/// The views that are text are held NUL-terminated, so that a foreign caller can borrow them.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    view: Range<usize>,
    group: Option<CString>,
    json: OnceCell<CString>,
    kind: OnceCell<Option<CString>>,
}

impl Body {
    /// A body that shows `view` of `bytes`; `group` is the group that it was sent to, if it was.
    pub fn new(bytes: Vec<u8>, view: Range<usize>, group: Option<CString>) -> Self {
        Self {
            bytes,
            view,
            group,
            json: OnceCell::new(),
            kind: OnceCell::new(),
        }
    }

    /// The MessagePack map.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.view.clone()).unwrap_or_default()
    }

    /// The group that the message was sent to; `None` if it was sent to a channel.
    pub fn group(&self) -> Option<&CStr> {
        self.group.as_deref()
    }

    /// The map as a Rust value.
    pub fn value<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        rmp_serde::from_slice(self.data())
            .map_err(|error| Error::invalid("the message is no such value").caused_by(error))
    }

    /// The JSON view, made by `compute` at the first successful call.
    pub(crate) fn json_or_init(
        &self,
        compute: impl FnOnce(&[u8]) -> Result<CString, Error>,
    ) -> Result<&CStr, Error> {
        self.json
            .get_or_try_init(|| compute(self.data()))
            .map(CString::as_c_str)
    }

    /// The value of the key `type`, found by `find` at the first call.
    pub(crate) fn kind_or_init(
        &self,
        find: impl FnOnce(&[u8]) -> Option<CString>,
    ) -> Option<&CStr> {
        self.kind.get_or_init(|| find(self.data())).as_deref()
    }
}

/// A body on the channel that it was delivered on.
#[derive(Debug, Clone)]
pub struct Message {
    body: Arc<Body>,
    channel: Arc<CStr>,
}

impl Message {
    /// `body` as delivered on `channel`.
    pub fn new(body: Arc<Body>, channel: Arc<CStr>) -> Self {
        Self { body, channel }
    }

    /// The body, shared with the other members of the group.
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// The full name of the channel.
    pub fn channel(&self) -> &CStr {
        &self.channel
    }
}
