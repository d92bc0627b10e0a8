//! A channel layer on RabbitMQ: many server processes send messages to named channels and
//! broadcast to groups, with back-pressure, on the same wire as the Python package
//! `channels_rabbitmq`.
//!
//! The library is meant to be used through its C API, `include/channel_layer.h`. From Rust the same
//! layer is [`Layer`]. ARCHITECTURE.md says what each file is for.

pub mod config;
pub mod error;
pub mod log;
pub mod message;
pub mod stats;

mod amqp;
mod back_pressure;
mod broker;
mod dispatch;
mod endpoint;
mod ffi;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod index;
pub mod layer;
mod losses;
mod mailbox;
mod name;
mod prometheus;
mod runtime;
mod settling;
mod sync;
mod wire;

pub use config::Config;
pub use error::{Error, ErrorKind};
pub use layer::Layer;
pub use message::Message;
