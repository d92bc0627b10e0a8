//! Connects to hosts and their addresses in their order, each a little after the one before: so a dead
//! one delays the others by that little, and one that is up is not kept from being the first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;

/// How long after one attempt the next one begins, if the first has not ended before: as in RFC 8305.
const STAGGER: Duration = Duration::from_millis(250);

/// How addresses are found and connected to. `A` is an address, `C` a connection.
pub(super) trait Network<A, C>: Clone + Send + 'static {
    /// The addresses of a host, by its place in the list.
    fn resolve(
        &self,
        host: usize,
    ) -> impl Future<Output = Result<Vec<A>, Failure>> + Send + 'static;

    fn connect(
        &self,
        host: usize,
        address: A,
    ) -> impl Future<Output = Result<C, Failure>> + Send + 'static;
}

/// What one attempt came to.
#[derive(Debug)]
pub(super) struct Arrival<A, C> {
    pub(super) host: usize,
    /// The address and the connection.
    pub(super) connected: Result<(A, C), Failure>,
}

/// An attempt that has not begun.
enum Runner<A> {
    Host(usize),
    Address(usize, A),
}

enum Step<A, C> {
    Resolved(usize, Vec<A>),
    Ended(Arrival<A, C>),
}

type Running<A, C> = Pin<Box<dyn Future<Output = Step<A, C>> + Send>>;

/// The attempts at all hosts. What is under way ends with it.
pub(super) struct Race<A, C, N> {
    network: N,
    waiting: VecDeque<Runner<A>>,
    running: FuturesUnordered<Running<A, C>>,
    next_begins: Instant,
}

impl<A, C, N> Race<A, C, N>
where
    A: Clone + Send + 'static,
    C: Send + 'static,
    N: Network<A, C>,
{
    /// Begins at the first of `hosts`.
    pub(super) fn new(network: N, hosts: impl IntoIterator<Item = usize>) -> Self {
        Self {
            network,
            waiting: hosts.into_iter().map(Runner::Host).collect(),
            running: FuturesUnordered::new(),
            next_begins: Instant::now(),
        }
    }

    /// The next attempt that ends, however it does; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<Arrival<A, C>> {
        loop {
            if self.running.is_empty() && !self.begin() {
                return None;
            }
            let step = if self.waiting.is_empty() {
                self.running.next().await
            } else {
                let begins = std::pin::pin!(sleep_until(self.next_begins));
                match select(self.running.next(), begins).await {
                    Either::Left((step, _)) => step,
                    Either::Right(_) => {
                        self.begin();
                        continue;
                    }
                }
            };
            match step {
                None => {}
                Some(Step::Ended(arrival)) => {
                    // Nothing is gained by waiting where this one has failed.
                    if arrival.connected.is_err() {
                        self.next_begins = Instant::now();
                    }
                    return Some(arrival);
                }
                Some(Step::Resolved(host, addresses)) => {
                    for address in addresses.into_iter().rev() {
                        self.waiting.push_front(Runner::Address(host, address));
                    }
                    self.begin();
                }
            }
        }
    }

    /// Begins the next attempt; `false` if there is none.
    fn begin(&mut self) -> bool {
        let Some(runner) = self.waiting.pop_front() else {
            return false;
        };
        self.next_begins = Instant::now() + STAGGER;
        self.running.push(match runner {
            Runner::Host(host) => {
                let resolved = self.network.resolve(host);
                Box::pin(async move {
                    match resolved.await {
                        Ok(addresses) => Step::Resolved(host, addresses),
                        Err(failure) => Step::Ended(Arrival {
                            host,
                            connected: Err(failure),
                        }),
                    }
                })
            }
            Runner::Address(host, address) => {
                let connected = self.network.connect(host, address.clone());
                Box::pin(async move {
                    let connected = connected.await.map(|connection| (address, connection));
                    Step::Ended(Arrival { host, connected })
                })
            }
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::*;

    /// A host, and one of its addresses.
    type Place = (usize, &'static str);

    /// How many milliseconds it takes to connect, and whether it is up then.
    type Fate = (u64, bool);

    #[derive(Clone)]
    struct Fake(Arc<HashMap<Place, Fate>>);

    impl Network<&'static str, Duration> for Fake {
        fn resolve(
            &self,
            host: usize,
        ) -> impl Future<Output = Result<Vec<&'static str>, Failure>> + Send + 'static {
            let mut addresses: Vec<_> = self.0.keys().filter(|(of, _)| *of == host).collect();
            addresses.sort_unstable();
            let addresses: Vec<_> = addresses.into_iter().map(|(_, address)| *address).collect();
            async move {
                match addresses.is_empty() {
                    false => Ok(addresses),
                    true => Err(Failure::passing("no address")),
                }
            }
        }

        fn connect(
            &self,
            host: usize,
            address: &'static str,
        ) -> impl Future<Output = Result<Duration, Failure>> + Send + 'static {
            let (takes, is_up) = self.0[&(host, address)];
            async move {
                let begin = Instant::now();
                sleep(Duration::from_millis(takes)).await;
                match is_up {
                    true => Ok(begin.elapsed()),
                    false => Err(Failure::passing(address)),
                }
            }
        }
    }

    /// What ended, in order, and after how many milliseconds.
    async fn run(of: &[(Place, Fate)]) -> Vec<(u128, usize, &'static str)> {
        let hosts = 1 + of.iter().map(|((host, _), _)| *host).max().unwrap();
        let network = Fake(Arc::new(of.iter().copied().collect()));
        let begin = Instant::now();
        let mut race = Race::new(network, 0..hosts);
        let mut ended = Vec::new();
        while let Some(arrival) = race.next().await {
            let what = match &arrival.connected {
                Ok((address, _)) => address,
                Err(_) => "failed",
            };
            ended.push((begin.elapsed().as_millis(), arrival.host, what));
        }
        ended
    }

    const DEAD: Fate = (60_000, false);

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_delays_the_next_by_the_stagger() {
        let ended = run(&[((0, "a"), DEAD), ((0, "b"), (5, true))]).await;
        assert_eq!(ended, [(255, 0, "b"), (60_000, 0, "failed")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_host_delays_the_next_by_the_stagger_of_each_of_its_addresses() {
        let ended = run(&[((0, "a"), DEAD), ((0, "b"), DEAD), ((1, "c"), (5, true))]).await;
        assert_eq!(ended[0], (505, 1, "c"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_at_once_delays_nothing() {
        let ended = run(&[((0, "a"), (1, false)), ((1, "b"), (5, true))]).await;
        assert_eq!(ended, [(1, 0, "failed"), (6, 1, "b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_is_up_wins_and_the_others_can_be_asked_for_still() {
        let ended = run(&[((0, "a"), (300, true)), ((0, "b"), (100, true))]).await;
        assert_eq!(ended, [(300, 0, "a"), (350, 0, "b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_without_an_address_is_passed_over() {
        let ended = run(&[((1, "b"), (5, true))]).await;
        assert_eq!(ended, [(0, 0, "failed"), (5, 1, "b")]);
    }
}
