//! Changes which groups are routed to the own queue, many at once.
//!
//! Over which AMQP channels, and when a change is known to be done, is in [`super::lanes`]; what has to be
//! there before, in [`super::parts`]. All that is under way is bounded by the windows of the lanes.
//!
//! However a binder ends while its connection stands, it first closes its AMQP channels and waits until
//! they are closed: what was under way is done or void then, and their numbers are free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::connect::Link;
use super::destination::{Destination, Job};
use super::failure::{End, Failure, TOO_FEW_CHANNELS};
use super::io::{Handler, Io, Task, Turn};
use super::lanes::{LaneId, LaneLimit, Lanes, Step};
use super::parts::{Admission, Parts};
use super::shared::Shared;
use super::topology::Topology;
use crate::amqp::{Header, Incoming};
use crate::broker::{BindingChange, BindingEpoch};

/// How many AMQP channels of ours the consuming connection has beside those for bindings: the consumer's,
/// twice while that is replaced.
const OTHER_CHANNELS: usize = 2;

/// How AMQP channels are closed for no fault.
const NOT_NEEDED: u16 = 200;

/// Why a binder ends where the broker does something that AMQP does not have.
const CONFUSED: &str = "the broker sent what no binder expects";

/// What a link has to bind first, and to what.
#[derive(Debug)]
pub(super) struct Bindings {
    pub(super) epoch: BindingEpoch,
    pub(super) destination: Destination,
    pub(super) changes: Vec<BindingChange>,
}

/// Makes all changes of `bindings`, and then those of their epoch that the layer wants later. Tells the
/// layer what is done; of what does not outlive the connection not before all is.
pub(super) async fn open(
    shared: Arc<Shared>,
    link: &Link,
    topology: &Topology,
    limit: &Arc<LaneLimit>,
    bindings: Bindings,
) -> Result<Task, Failure> {
    let (tells, opened) = oneshot::channel();
    let most = limit.for_connection(link.io().most_channels(), OTHER_CHANNELS);
    let engine = Engine::new(
        shared,
        topology,
        (Arc::clone(limit), most),
        bindings,
        tells,
        Instant::now(),
    );
    let mut task = link.io().begin(engine);
    match opened.await {
        Ok(opened) => opened.map(|()| task),
        Err(_) => Err(topology.ended(&task.ended().await)),
    }
}

/// What binds on the I/O thread. At most one change of each binding is under way.
struct Engine {
    shared: Arc<Shared>,
    epoch: BindingEpoch,
    /// The groups exchange.
    groups: String,
    destination: Destination,
    limit: Arc<LaneLimit>,
    parts: Parts<BindingChange>,
    /// How often the parts are looked for, and when next.
    look_every: Duration,
    look_at: Instant,
    lanes: Lanes<Job>,
    /// Told when all is bound that was to be first. `None` once that is so.
    opened: Option<oneshot::Sender<Result<(), Failure>>>,
    /// What the layer wants once that is so.
    later: Vec<BindingChange>,
    /// What the layer is to be told.
    done: Vec<BindingChange>,
    /// How long the broker may answer nothing while that is waited for, and until when.
    patience: Duration,
    silent_at: Instant,
    /// Why it ends, once its AMQP channels are closed.
    end: Option<End>,
}

impl Engine {
    fn new(
        shared: Arc<Shared>,
        topology: &Topology,
        (limit, most): (Arc<LaneLimit>, usize),
        bindings: Bindings,
        opened: oneshot::Sender<Result<(), Failure>>,
        now: Instant,
    ) -> Self {
        let Bindings {
            epoch,
            destination,
            changes,
        } = bindings;
        let patience = topology.long_timeout();
        let mut engine = Self {
            shared,
            epoch,
            groups: topology.exchange.clone(),
            parts: Parts::new(destination.made()),
            destination,
            limit,
            look_every: topology.interval,
            look_at: now + topology.interval,
            lanes: Lanes::new(most),
            opened: Some(opened),
            later: Vec::new(),
            done: Vec::new(),
            patience,
            silent_at: now + patience,
            end: None,
        };
        for change in changes {
            engine.submit(change);
        }
        engine
    }

    /// Takes a change on.
    fn submit(&mut self, change: BindingChange) {
        match self.parts.admit(change.place, change) {
            Admission::Now(part, change) => self.lanes.push(Job::Change(part, change)),
            Admission::First(errand) => self.lanes.push(Job::Errand(errand)),
            Admission::Waits => {}
        }
    }

    /// Takes what the layer wants; or ends where it wants nothing any more.
    fn take_changes(&mut self, io: &mut Io<'_>) {
        match self.shared.bindings.take(self.epoch, io.waker) {
            Some(changes) => self.later.extend(changes),
            None => self.finish("all groups are bound again".into(), io),
        }
        if self.opened.is_none() {
            for change in std::mem::take(&mut self.later) {
                self.submit(change);
            }
        }
    }

    /// A part that is gone has taken its bindings with it, and no probe goes over it.
    fn look_for_parts(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + self.look_every;
        for errand in self.parts.look() {
            self.lanes.push(Job::Errand(errand));
        }
    }

    fn act(&mut self, step: Step<Job>, io: &mut Io<'_>) -> Result<(), End> {
        match step {
            Step::Open => match io.take_channel() {
                Some(channel) => {
                    io.writer(channel).channel_open();
                    self.lanes.opening(channel, io.now);
                }
                None if self.lanes.not_opened() => {}
                None => return Err(TOO_FEW_CHANNELS.into()),
            },
            Step::Send(id, job) => {
                self.destination
                    .write(&job, &self.groups, &mut io.writer(id));
            }
            // Any method with an answer would do, and this one changes nothing.
            Step::Bar(id) => io.writer(id).qos(0),
            Step::Close(id) => io.writer(id).channel_close(NOT_NEEDED),
        }
        Ok(())
    }

    fn passed(&mut self, id: LaneId, now: Instant) {
        for job in self.lanes.passed(id, now) {
            match job {
                Job::Change(_, change) => self.done.push(change),
                Job::Errand(errand) => {
                    let (part, waited) = self.parts.done(errand);
                    for change in waited {
                        self.lanes.push(Job::Change(part, change));
                    }
                }
            }
        }
    }

    /// Tells the layer what is done.
    fn report(&mut self) -> Result<(), End> {
        // What is bound to the queue itself may be gone before it is of use.
        let is_early = self.opened.is_some() && !self.destination.outlives_connections();
        if self.done.is_empty() || is_early {
            return Ok(());
        }
        let host = self.shared.host.upgrade().ok_or("the layer is gone")?;
        host.bindings_changed(self.epoch, std::mem::take(&mut self.done));
        Ok(())
    }

    /// Tells that all is bound that was to be first, once that is so.
    fn tell_opened(&mut self) -> Result<(), End> {
        if self.parts.waiting() == 0
            && self.lanes.are_ready()
            && let Some(opened) = self.opened.take()
        {
            self.report()?;
            // Who does not wait any more ends this.
            let _ = opened.send(Ok(()));
        }
        Ok(())
    }

    /// Closes all that is open, for this reason.
    fn finish(&mut self, end: End, io: &mut Io<'_>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        self.silent_at = io.now + self.patience;
        for id in self.lanes.close_all() {
            io.writer(id).channel_close(NOT_NEEDED);
        }
    }

    /// The broker has closed an AMQP channel.
    fn channel_closed(&mut self, id: LaneId, end: End, io: &mut Io<'_>) {
        io.writer(id).channel_close_ok();
        // Where the two sides close it at once, the broker answers still.
        if !self.lanes.is_closing(id) {
            self.lanes.closed(id);
            io.release_channel(id);
        }
        self.finish(end, io);
    }

    /// Who waits for an answer does so for a limited time.
    fn check_patience(&mut self, now: Instant) -> Result<(), End> {
        if now >= self.silent_at
            && let Some(opened) = self.opened.take()
        {
            let failure = Failure::silence(self.patience);
            let why = failure.why.clone();
            // Who does not wait any more ends this.
            let _ = opened.send(Err(failure));
            return Err(why.into());
        }
        Ok(())
    }

    /// When there is something to do even if nothing happens.
    fn due(&self) -> Option<Instant> {
        let parts = self.parts.look().next().map(|_| self.look_at);
        let silence = self.opened.is_some().then_some(self.silent_at);
        let dues = [parts, silence, self.lanes.next_look()];
        dues.into_iter().flatten().min()
    }
}

impl Handler for Engine {
    fn method(&mut self, channel: u16, method: &Incoming<'_>, io: &mut Io<'_>) -> Result<(), End> {
        self.silent_at = io.now + self.patience;
        match method {
            Incoming::ChannelOpenOk => self.lanes.opened(channel, io.now),
            Incoming::QosOk => self.passed(channel, io.now),
            // The barrier is answered behind it.
            Incoming::QueueUnbindOk => {}
            Incoming::ChannelCloseOk => {
                self.lanes.closed(channel);
                io.release_channel(channel);
            }
            Incoming::ChannelClose(close) => self.channel_closed(channel, End::said(close), io),
            Incoming::ChannelFlow { active } => io.writer(channel).channel_flow_ok(*active),
            _ => return Err(CONFUSED.into()),
        }
        Ok(())
    }

    fn header(&mut self, _: u16, _: &Header<'_>, _: &mut Io<'_>) -> Result<(), End> {
        Err(CONFUSED.into())
    }

    fn body(&mut self, _: u16, _: &[u8], _: &mut Io<'_>) -> Result<(), End> {
        Err(CONFUSED.into())
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, End> {
        if self.end.is_none() {
            self.tell_opened()?;
            self.take_changes(io);
        }
        self.report()?;
        if let Some(end) = &self.end {
            if self.lanes.are_gone() || io.now >= self.silent_at {
                return Err(end.clone());
            }
            return Ok(Turn {
                due: Some(self.silent_at),
                ..Turn::default()
            });
        }
        self.check_patience(io.now)?;
        self.look_for_parts(io.now);
        while let Some(step) = self.lanes.next(io.now) {
            self.act(step, io)?;
        }
        Ok(Turn {
            due: self.due(),
            ..Turn::default()
        })
    }

    /// What the broker has done is told, however the binder ends.
    fn end(&mut self, end: &End) {
        // A layer that is gone needs to know nothing.
        let _ = self.report();
        if end.is_not_allowed() && self.lanes.are_opening() {
            self.limit.is_reached();
        }
    }
}

#[cfg(test)]
mod tests;
