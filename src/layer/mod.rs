//! The Rust API of a layer.

mod callback_time;
mod callbacks;
mod calls;
mod close_calls;
mod closing;
mod events;
mod host;
mod inbox;
mod isolation;
mod link;
mod local;
mod membership;
mod outbox;
mod own_queues;
mod receivers;
mod shared;
mod shutdown;
#[cfg(test)]
mod testing;
mod timekeeper;
#[cfg(feature = "tracing")]
mod tracing_log;

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::broker::Route;
use crate::config::Config;
use crate::dispatch;
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::name;
use crate::prometheus::{self, Labels};
use crate::runtime::spawn_thread;
use crate::stats::Stat;
use crate::wire::{self, Recipient};

pub use self::callbacks::{
    Done, Hooks, Isolation, OnIsolation, OnLog, OnState, Receive, Rejected, State,
};
#[cfg(feature = "tracing")]
pub use self::tracing_log::TracingLog;
pub use crate::mailbox::{Ended, Flow};

use calls::Completion;
use shared::{Shared, far};

/// One process's place in the channel layer: one queue on the broker, any number of channels.
///
/// All that the header says of the C functions holds for the methods of the same name. A clone is
/// the same layer; it closes in the background when the last clone goes.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::time::Duration;
///
/// use channel_layer::{Config, Layer};
///
/// # fn main() -> Result<(), channel_layer::Error> {
/// let mut config = Config::new();
/// config.set("host", "memory://example")?;
/// let layer = Layer::new(&config)?;
/// let channel = layer.new_channel(None)?;
/// layer.group_add("room", &channel)?;
///
/// layer.group_send_value("room", &BTreeMap::from([("text", "hello")]))?;
///
/// let message = layer.receive_next(&channel, Duration::from_secs(5))?;
/// let value: BTreeMap<String, String> = message.body().value()?;
/// assert_eq!(value["text"], "hello");
/// layer.close(Duration::from_secs(5))
/// # }
/// ```
#[derive(Clone)]
pub struct Layer {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// Ends the layer when its last user has gone.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.0.is_forked() {
            self.0.abandon();
        }
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("queue", &self.shared.own_queues.current())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Where a message goes.
#[derive(Clone, Copy)]
enum To<'a> {
    Channel(&'a str),
    Group(&'a str),
}

impl To<'_> {
    /// The way there and the bytes that travel.
    fn prepare(
        self,
        encode: impl FnOnce(Recipient<'_>) -> Result<Vec<u8>, Error>,
    ) -> Result<(Route, Vec<u8>), Error> {
        match self {
            To::Channel(channel) => {
                let queue = name::parse_channel(channel)?.queue.to_owned();
                Ok((Route::Queue(queue), encode(Recipient::Channel(channel))?))
            }
            To::Group(group) => {
                name::validate_group(group)?;
                Ok((
                    Route::Group(group.to_owned()),
                    encode(Recipient::Group(group))?,
                ))
            }
        }
    }
}

/// A struct by the names of its fields, as peers in other languages want it.
fn as_map<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| Error::invalid("this value is no message").caused_by(error))
}

impl Layer {
    /// Checks a config without opening a layer: the error is the one that [`Layer::new`] would
    /// return.
    ///
    /// ```
    /// use channel_layer::{Config, ErrorKind, Layer};
    ///
    /// let mut config = Config::new();
    /// config.set("host", "amqps://rabbit.example.org/").unwrap();
    /// config.set("tls_ca_file", "/no/such/file.pem").unwrap();
    /// let error = Layer::check(&config).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Invalid);
    /// ```
    pub fn check(config: &Config) -> Result<(), Error> {
        Shared::prepare(config).map(|_| ())
    }

    /// Opens a layer. It connects in the background.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::with_hooks(config, Hooks::default())
    }

    /// Opens a layer and tells `hooks` what happens in it.
    pub fn with_hooks(config: &Config, hooks: Hooks) -> Result<Self, Error> {
        let shared = Shared::open(config, hooks)?;
        Ok(Self {
            _owner: Arc::new(Owner(Arc::clone(&shared))),
            shared,
        })
    }

    /// Whether the layer was opened by a parent of this process.
    pub fn is_forked(&self) -> bool {
        self.shared.is_forked()
    }

    /// Waits until both connections stand and every group is bound.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), Error> {
        let _call = self.shared.enter()?;
        let now = Instant::now();
        if !timeout.is_zero() && dispatch::in_callback() {
            return Err(Error::would_deadlock());
        }
        self.shared.link.wait_ready(far(now, timeout))
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.shared.link.state()
    }

    /// A counter or gauge.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.shared.stat(stat)
    }

    /// All counters and gauges in the text format of Prometheus, with `labels` on each, as
    /// `site="a",zone="b"`; empty for none.
    pub fn prometheus(&self, labels: &str) -> Result<String, Error> {
        if self.is_forked() {
            return Err(Error::forked()); // its locks may be held for ever
        }
        let labels = Labels::parse(labels)?;
        Ok(prometheus::text(&labels, |stat| self.stat(stat)))
    }

    /// Makes up a new channel name.
    pub fn new_channel(&self, prefix: Option<&str>) -> Result<String, Error> {
        let _call = self.shared.enter()?;
        self.shared.new_channel(prefix.unwrap_or_default())
    }

    /// Sends a MessagePack map to a channel and waits for the confirm.
    pub fn send(&self, channel: &str, message: &[u8]) -> Result<(), Error> {
        self.send_to(To::Channel(channel), |to, most| {
            wire::encode(message, to, most)
        })
    }

    /// Sends a Rust value, a struct or a map, to a channel and waits for the confirm.
    pub fn send_value<T: Serialize>(&self, channel: &str, value: &T) -> Result<(), Error> {
        self.send(channel, &as_map(value)?)
    }

    /// Sends a JSON object to a channel and waits for the confirm.
    pub fn send_json(&self, channel: &str, json: &str) -> Result<(), Error> {
        self.send_to(To::Channel(channel), |to, most| {
            wire::encode_json(json.as_bytes(), to, most)
        })
    }

    /// Sends a MessagePack map to a group and waits for the confirm.
    pub fn group_send(&self, group: &str, message: &[u8]) -> Result<(), Error> {
        self.send_to(To::Group(group), |to, most| wire::encode(message, to, most))
    }

    /// Sends a Rust value, a struct or a map, to a group and waits for the confirm.
    pub fn group_send_value<T: Serialize>(&self, group: &str, value: &T) -> Result<(), Error> {
        self.group_send(group, &as_map(value)?)
    }

    /// Sends a JSON object to a group and waits for the confirm.
    pub fn group_send_json(&self, group: &str, json: &str) -> Result<(), Error> {
        self.send_to(To::Group(group), |to, most| {
            wire::encode_json(json.as_bytes(), to, most)
        })
    }

    fn send_to(
        &self,
        to: To<'_>,
        encode: impl FnOnce(Recipient<'_>, usize) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let shared = &*self.shared;
        let _call = shared.enter()?;
        let most = shared.settings.max_message_size;
        let (route, body) = to.prepare(|recipient| encode(recipient, most))?;
        shared.check_size(&body)?;
        if dispatch::in_callback() {
            return Err(Error::would_deadlock());
        }
        let (waiter, accepted) = shared.outbox.submit_waiting(route, body)?;
        shared.sent(accepted.due);
        shared.wait_for(&waiter, accepted.deadline, Shared::expire_sends)
    }

    /// Sends a MessagePack map to a channel; the outcome goes to `done`.
    pub fn send_async<D: Done>(
        &self,
        channel: &str,
        message: &[u8],
        done: D,
    ) -> Result<(), Rejected<D>> {
        self.send_to_async(To::Channel(channel), done, |to, most| {
            wire::encode(message, to, most)
        })
    }

    /// Sends a JSON object to a channel; the outcome goes to `done`.
    pub fn send_json_async<D: Done>(
        &self,
        channel: &str,
        json: &str,
        done: D,
    ) -> Result<(), Rejected<D>> {
        self.send_to_async(To::Channel(channel), done, |to, most| {
            wire::encode_json(json.as_bytes(), to, most)
        })
    }

    /// Sends a MessagePack map to a group; the outcome goes to `done`.
    pub fn group_send_async<D: Done>(
        &self,
        group: &str,
        message: &[u8],
        done: D,
    ) -> Result<(), Rejected<D>> {
        self.send_to_async(To::Group(group), done, |to, most| {
            wire::encode(message, to, most)
        })
    }

    /// Sends a JSON object to a group; the outcome goes to `done`.
    pub fn group_send_json_async<D: Done>(
        &self,
        group: &str,
        json: &str,
        done: D,
    ) -> Result<(), Rejected<D>> {
        self.send_to_async(To::Group(group), done, |to, most| {
            wire::encode_json(json.as_bytes(), to, most)
        })
    }

    fn send_to_async<D: Done>(
        &self,
        to: To<'_>,
        done: D,
        encode: impl FnOnce(Recipient<'_>, usize) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Rejected<D>> {
        let shared = &*self.shared;
        let call = shared.enter();
        let most = shared.settings.max_message_size;
        let prepared = call
            .as_ref()
            .map_err(Error::clone)
            .and_then(|_| to.prepare(|recipient| encode(recipient, most)));
        let prepared = prepared.and_then(|(route, body)| {
            shared.check_size(&body)?;
            Ok((route, body))
        });
        let (route, body) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                return Err(Rejected {
                    error,
                    callback: done,
                });
            }
        };
        let accepted = shared
            .outbox
            .submit(route, body, done, |done| Completion::Call(Box::new(done)))
            .map_err(|(error, callback)| Rejected { error, callback })?;
        shared.sent(accepted.due);
        Ok(())
    }

    /// Receives the messages of a channel by callback. Returns the receiver's number.
    pub fn receive<R: Receive>(&self, channel: &str, callback: R) -> Result<u64, Rejected<R>> {
        self.receive_announced(channel, callback, |_| ())
    }

    /// As [`Layer::receive`]; `announce` is told the number before the first call.
    pub(crate) fn receive_announced<R: Receive>(
        &self,
        channel: &str,
        callback: R,
        announce: impl FnOnce(u64),
    ) -> Result<u64, Rejected<R>> {
        match self.shared.enter() {
            Ok(_call) => self.shared.add_receiver(channel, callback, announce),
            Err(error) => Err(Rejected { error, callback }),
        }
    }

    /// Ends a receiver. No call begins once this has returned.
    pub fn receive_cancel(&self, receiver: u64) -> Result<(), Error> {
        // A closed layer still has its last calls to make, which can be cancelled.
        self.shared.cancel_receiver(receiver)
    }

    /// Waits for the next message of a channel.
    pub fn receive_next(&self, channel: &str, timeout: Duration) -> Result<Message, Error> {
        let _call = self.shared.enter()?;
        self.shared.pull(channel, timeout)
    }

    /// Adds a channel to a group and waits until the broker routes the group here.
    pub fn group_add(&self, group: &str, channel: &str) -> Result<(), Error> {
        let _call = self.shared.enter()?;
        self.shared.group_add(group, channel)
    }

    /// Adds a channel to a group; the outcome goes to `done`.
    pub fn group_add_async<D: Done>(
        &self,
        group: &str,
        channel: &str,
        done: D,
    ) -> Result<(), Rejected<D>> {
        match self.shared.enter() {
            Ok(_call) => self.shared.group_add_async(group, channel, done),
            Err(error) => Err(Rejected {
                error,
                callback: done,
            }),
        }
    }

    /// Removes a channel from a group.
    pub fn group_discard(&self, group: &str, channel: &str) -> Result<(), Error> {
        let _call = self.shared.enter()?;
        self.shared.group_discard(group, channel)
    }

    /// Gives a channel up: its memberships, receivers and messages.
    pub fn channel_discard(&self, channel: &str) -> Result<(), Error> {
        let _call = self.shared.enter()?;
        self.shared.discard_channel(channel)
    }

    /// The descriptor that is readable while callbacks are due, with `dispatch=poll`.
    pub fn fd(&self) -> Option<RawFd> {
        self.shared.dispatcher.fd()
    }

    /// A duplicate of [`Layer::fd`], which the caller owns and may close at any time.
    pub fn fd_duplicate(&self) -> Result<OwnedFd, Error> {
        match self.shared.dispatcher.fd_duplicate() {
            Some(Ok(duplicate)) => Ok(duplicate),
            Some(Err(error)) => Err(Error::new(
                ErrorKind::Internal,
                "the descriptor of 'dispatch=poll' cannot be duplicated",
            )
            .caused_by(error)),
            None => Err(Error::invalid(
                "this layer has no descriptor: its callbacks run on its own threads; open it with \
                 option 'dispatch' set to 'poll'",
            )),
        }
    }

    /// Runs callbacks that are due on this thread, with `dispatch=poll`.
    pub fn poll(&self, max: usize, timeout: Duration) -> Result<usize, Error> {
        let dispatcher = &self.shared.dispatcher;
        if !dispatcher.polled() {
            return Err(Error::invalid(
                "the callbacks of this layer run on its own threads: open it with option \
                 'dispatch' set to 'poll' to run them by this call",
            ));
        }
        if dispatch::in_callback() {
            return Err(Error::would_deadlock());
        }
        let ran = dispatcher.poll(&*self.shared, max, timeout);
        if ran == 0 && dispatcher.has_ended() {
            return Err(Error::closed());
        }
        Ok(ran)
    }

    /// Closes the layer.
    pub fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.close(timeout)
    }

    /// Begins to close the layer; how that ends goes to `done`.
    pub fn close_async<D: Done>(&self, timeout: Duration, done: D) -> Result<(), Rejected<D>> {
        self.shared.close_async(timeout, done, spawn_thread)
    }

    /// Closes the layer if need be and ends what is left; nobody will use it again.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        self.shared.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::open_on_memory;
    use super::*;
    use crate::broker::Host;
    use crate::runtime::in_forked_child;

    #[test]
    fn a_message_over_the_learned_limit_of_the_broker_is_too_large() {
        let layer = open_on_memory("learned-limit");
        let channel = layer.new_channel(None).unwrap();
        let large = format!("{{\"text\": \"{}\"}}", "x".repeat(1000));
        layer.send_json(&channel, &large).unwrap();

        layer.shared.size_limit_learned(1000);
        let error = layer.send_json(&channel, &large).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        layer.send_json(&channel, "{}").unwrap();
        // One that was restarted may have another limit.
        layer.shared.publishing_changed(true);
        layer.send_json(&channel, &large).unwrap();
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_config_that_cannot_be_opened_does_not_pass_the_check() {
        let mut config = Config::new();
        Layer::check(&config).unwrap();
        config.set("host", "amqps://rabbit.example.org/").unwrap();
        config.set("tls_ca_file", "/no/such/file.pem").unwrap();
        let error = Layer::check(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            Layer::new(&config).unwrap_err().to_string()
        );
    }

    #[test]
    fn values_are_sent_as_maps_by_the_names_of_their_fields() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Chat {
            text: String,
        }
        let layer = open_on_memory("values");
        let channel = layer.new_channel(None).unwrap();
        layer.group_add("room", &channel).unwrap();
        let chat = |text: &str| Chat {
            text: text.to_owned(),
        };
        layer.send_value(&channel, &chat("to one")).unwrap();
        layer.group_send_value("room", &chat("to all")).unwrap();
        for text in ["to one", "to all"] {
            let message = layer
                .receive_next(&channel, Duration::from_secs(20))
                .unwrap();
            let json: serde_json::Value = message.body().value().unwrap();
            assert_eq!(json, serde_json::json!({ "text": text }));
            assert_eq!(message.body().value::<Chat>().unwrap(), chat(text));
        }
        let error = layer.send_value(&channel, &7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn prometheus_gets_each_statistic_of_the_layer_with_the_labels() {
        let layer = open_on_memory("prometheus");
        let channel = layer.new_channel(None).unwrap();
        layer.send_json(&channel, "{}").unwrap();
        assert!(layer.prometheus("no label").is_err());
        let labels = Labels::parse(r#"site="a""#).unwrap();
        let wanted = prometheus::text(&labels, |stat| layer.stat(stat));
        assert!(wanted.lines().any(|line| line.ends_with(" 1")));
        assert_eq!(layer.prometheus(r#"site="a""#).unwrap(), wanted);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_layer_that_a_forked_child_drops_is_not_closed() {
        let layer = open_on_memory("dropped-by-a-child");
        let shared = Arc::clone(&layer.shared);
        let mut layer = Some(layer);
        assert!(in_forked_child(|| {
            drop(layer.take());
            shared.is_open()
        }));

        // What would be closed by that, in the parent:
        let layer = layer.unwrap();
        let channel = layer.new_channel(None).unwrap();
        layer.send_json(&channel, "{}").unwrap();
        drop(layer);
        assert!(!shared.is_open());
    }
}
