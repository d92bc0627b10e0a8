//! All options as a layer uses them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::Hosts;

/// Who runs callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dispatch {
    /// Threads of the layer.
    Thread,
    /// Whoever calls `layer_poll`.
    Poll,
}

/// PEM as the value of an option. A private key that was given by mistake is not to be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem(pub(crate) String);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of PEM", self.0.len())
    }
}

/// The files for `amqps://`: read when a layer is opened, to see that they are good, and again for
/// each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificates to trust.
    pub(crate) ca_file: Option<PathBuf>,
    /// The same as text; both may be set.
    pub(crate) ca_pem: Option<Pem>,
    /// The client's certificate chain; set exactly if `key_file` is.
    pub(crate) cert_file: Option<PathBuf>,
    /// The client's private key.
    pub(crate) key_file: Option<PathBuf>,
}

impl Tls {
    /// Whether options name the certificates to trust, instead of those of the system.
    pub(crate) fn names_certificates(&self) -> bool {
        self.ca_file.is_some() || self.ca_pem.is_some()
    }
}

/// All options as a layer uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) hosts: Hosts,
    pub(crate) expiry: Duration,
    /// `None`: never.
    pub(crate) group_expiry: Option<Duration>,
    /// Zero: at once.
    pub(crate) unbind_after: Duration,
    pub(crate) local_capacity: usize,
    pub(crate) remote_capacity: u32,
    pub(crate) prefetch_count: u16,
    pub(crate) local_expiry: Duration,
    pub(crate) groups_exchange: String,
    /// `None`: as long as it takes.
    pub(crate) stall_after: Option<Duration>,
    pub(crate) channel_capacity: usize,
    pub(crate) total_capacity: usize,
    pub(crate) timeout: Duration,
    /// `None`: sends that waited for a connection are not held.
    pub(crate) settle: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect_max: Duration,
    /// In seconds; 0: as the broker wishes, within bounds.
    pub(crate) heartbeat: u16,
    pub(crate) max_in_flight: usize,
    pub(crate) max_message_size: usize,
    pub(crate) dispatch: Dispatch,
    pub(crate) dispatch_threads: usize,
    /// `None`: a random one.
    pub(crate) queue_name: Option<String>,
    pub(crate) tls: Tls,
}

impl Settings {
    /// What the table then fills in. Not fit for use.
    pub(super) fn blank() -> Self {
        Self {
            hosts: Hosts::Amqp(Vec::new()),
            expiry: Duration::ZERO,
            group_expiry: None,
            unbind_after: Duration::ZERO,
            local_capacity: 0,
            remote_capacity: 0,
            prefetch_count: 0,
            local_expiry: Duration::ZERO,
            groups_exchange: String::new(),
            stall_after: None,
            channel_capacity: 0,
            total_capacity: 0,
            timeout: Duration::ZERO,
            settle: None,
            connect_timeout: Duration::ZERO,
            reconnect_max: Duration::ZERO,
            heartbeat: 0,
            max_in_flight: 0,
            max_message_size: 0,
            dispatch: Dispatch::Thread,
            dispatch_threads: 0,
            queue_name: None,
            tls: Tls::default(),
        }
    }
}
