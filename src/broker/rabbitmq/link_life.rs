//! The life of a link: attempts with pauses between them, until one stands; then again, once it is lost.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::time::sleep;

use super::backoff::Backoff;
use super::shared::Shared;
use super::standing::{LinkState, Side};

/// A link that stood for so long was a good one: the next attempt needs no pause.
const GOOD: Duration = Duration::from_secs(1);

/// How one of the two links is made and served.
pub(super) trait MakeLink: Send {
    const SIDE: Side;

    /// What a link that stands consists of.
    type Session: Send;

    /// Tries each endpoint once. The error is what to report where none works.
    fn attempt(&mut self) -> impl Future<Output = Result<Self::Session, LinkState>> + Send;

    /// Serves a link that stands. Returns why it is lost, or `None` when the broker is closed.
    fn serve(&mut self, session: Self::Session) -> impl Future<Output = Option<String>> + Send;

    /// Nothing of the link may be used any more.
    fn is_lost(&mut self);
}

/// Runs until the broker is closed, or its layer is gone.
pub(super) async fn run(mut link: impl MakeLink, shared: &Shared, reconnect_max: Duration) {
    keep(&mut link, shared, Backoff::new(reconnect_max)).await;
    link.is_lost();
}

async fn keep<L: MakeLink>(link: &mut L, shared: &Shared, mut backoff: Backoff) {
    loop {
        let attempt = {
            let attempt = pin!(link.attempt());
            match select(pin!(shared.closing.begun()), attempt).await {
                Either::Left(_) => return,
                Either::Right((attempt, _)) => attempt,
            }
        };
        let begin = Instant::now();
        let (state, was_good) = match attempt {
            Ok(session) => match link.serve(session).await {
                Some(reason) => (LinkState::Down(reason), begin.elapsed() >= GOOD),
                None => return,
            },
            Err(state) => (state, false),
        };
        link.is_lost();
        let is_refused = matches!(state, LinkState::Refused(_));
        shared.standing.failed(L::SIDE, state);
        if shared.host.strong_count() == 0 {
            return;
        }
        if was_good {
            backoff.reset();
            continue;
        }
        let pause = pin!(sleep(backoff.next(is_refused)));
        if let Either::Left(_) = select(pin!(shared.closing.begun()), pause).await {
            return;
        }
    }
}
