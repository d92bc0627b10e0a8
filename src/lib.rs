//! A channel layer on RabbitMQ: many server processes send messages to named channels and
//! broadcast to groups, with back-pressure, on the same wire as the Python package
//! `channels_rabbitmq`.
//!
//! The library is meant to be used through its C API.

#![allow(dead_code, unreachable_pub, reason = "the floors above this one follow")]

pub mod config;
pub mod error;
pub mod log;
pub mod message;
pub mod stats;

mod broker;
mod credit;
mod dispatch;
mod endpoint;
mod groups;
pub mod layer;
mod mailbox;
mod name;
mod runtime;
mod wire;

pub use config::Config;
pub use error::{Error, ErrorKind};
pub use layer::Layer;
pub use message::Message;
