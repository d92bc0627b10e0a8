//! How far an attempt to connect has come: what tells one failure from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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
    Tune,
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

/// The stage of an attempt, for all who take part in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }

    pub(super) fn get(&self) -> Stage {
        let reached = usize::from(self.0.load(Ordering::Acquire));
        Stage::ALL.get(reached).copied().unwrap_or(Stage::Login)
    }

    pub(super) fn reached(&self) -> Reached {
        match self.get() {
            Stage::Tune => Reached::Tune,
            Stage::Login => Reached::Login,
            _ => Reached::Nothing,
        }
    }
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
