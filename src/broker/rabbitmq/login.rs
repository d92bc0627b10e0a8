//! How far an attempt to connect has come: what tells one failure from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use lapin::auth::AuthProvider;
use lapin::types::{LongString, ShortString};

/// How far a login has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The broker has sent nothing yet.
    Nothing,
    /// It has asked for credentials.
    Login,
    /// It has accepted them and told its limits.
    Tune { frame_max: u32 },
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    Tcp,
    Tls,
    Greeting,
    GreetingInTls,
    Login,
    Tune,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Tls,
        Self::Greeting,
        Self::GreetingInTls,
        Self::Login,
        Self::Tune,
    ];

    /// What the time ran out over.
    pub(super) fn waits_for(self) -> &'static str {
        match self {
            Self::Tcp => "no TCP connection; is the address right, and does a firewall let us in?",
            Self::Tls => "it takes connections but not the TLS handshake; is the port one for TLS?",
            Self::Greeting => {
                "it takes connections but does not speak AMQP; is it the port of a RabbitMQ, and \
                 one without TLS?"
            }
            Self::GreetingInTls => "it speaks TLS but not AMQP; is it the port of a RabbitMQ?",
            Self::Login | Self::Tune => "it does not go on with the login",
        }
    }
}

/// The stage of an attempt, for whoever looks on.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    stage: AtomicU8,
    /// As the broker has told.
    frame_max: AtomicU32,
}

impl Progress {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.stage.store(stage as u8, Ordering::Release);
    }

    pub(super) fn get(&self) -> Stage {
        let reached = usize::from(self.0.stage.load(Ordering::Acquire));
        Stage::ALL.get(reached).copied().unwrap_or(Stage::Login)
    }

    pub(super) fn reached(&self) -> Reached {
        match self.get() {
            Stage::Tune => Reached::Tune {
                frame_max: self.0.frame_max.load(Ordering::Relaxed),
            },
            Stage::Login => Reached::Login,
            _ => Reached::Nothing,
        }
    }

    /// Looks at what was read; `false` once there is no more to be seen.
    pub(super) fn look(&self, read: &[u8]) -> bool {
        if self.get() != Stage::Login {
            return self.get() < Stage::Login;
        }
        if let Some(frame_max) = frame_max_of_tune(read) {
            self.0.frame_max.store(frame_max, Ordering::Relaxed);
            self.reach(Stage::Tune);
        }
        // It is the first that a broker says after the login, if it does not refuse.
        false
    }
}

/// What `connection.tune` says of frames, if `read` begins with one. lapin does not tell.
fn frame_max_of_tune(read: &[u8]) -> Option<u32> {
    // A method frame of channel 0, and its size.
    let method = read.strip_prefix(&[1, 0, 0])?.get(4..)?;
    // Class and method, then channel_max.
    let frame_max = method.strip_prefix(&[0, 10, 0, 30])?.get(2..6)?;
    Some(u32::from_be_bytes(frame_max.try_into().ok()?))
}

/// Logs in by user and password, and remembers that the broker had come as far as to ask.
pub(super) struct Login {
    plain: LongString,
    stage: Progress,
}

impl Login {
    pub(super) fn new(user: &str, password: &str, stage: Progress) -> Self {
        Self {
            plain: format!("\0{user}\0{password}").into(),
            stage,
        }
    }
}

impl AuthProvider for Login {
    fn mechanism(&self) -> ShortString {
        "PLAIN".into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        self.stage.reach(Stage::Login);
        Ok(self.plain.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_broker_are_read_where_it_tells_them_after_the_login() {
        let tune = [
            1, 0, 0, 0, 0, 0, 12, 0, 10, 0, 30, 7, 255, 0, 0, 16, 0, 0, 60, 206,
        ];
        let close = [1, 0, 0, 0, 0, 0, 12, 0, 10, 0, 50, 7, 255, 0, 0, 16, 0];
        assert_eq!(frame_max_of_tune(&tune), Some(4096));
        assert_eq!(frame_max_of_tune(&close), None);
        for length in 0..17 {
            assert_eq!(frame_max_of_tune(tune.get(..length).unwrap()), None);
        }

        let progress = Progress::default();
        assert!(progress.look(&tune), "it has not come to the login");
        assert_eq!(progress.reached(), Reached::Nothing);
        progress.reach(Stage::Login);
        assert_eq!(progress.reached(), Reached::Login);
        assert!(!progress.look(&tune));
        assert_eq!(progress.reached(), Reached::Tune { frame_max: 4096 });
        progress.reach(Stage::Login);
        assert!(!progress.look(&close));
        assert_eq!(progress.reached(), Reached::Login);
    }
}
