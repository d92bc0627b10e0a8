//! Methods that the broker sends on our AMQP channels.

use super::Malformed;
use super::reader::Reader;

/// A method, as far as we act on it. Strings are bytes, perhaps not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    ChannelOpenOk,
    /// The broker stops or lets go on what we publish; RabbitMQ never does.
    ChannelFlow {
        active: bool,
    },
    ChannelClose(Close<'a>),
    ChannelCloseOk,
    ConfirmSelectOk,
    QosOk,
    ConsumeOk {
        consumer_tag: &'a [u8],
    },
    /// The broker ends a consumer, as where its queue is deleted.
    Cancel {
        consumer_tag: &'a [u8],
    },
    CancelOk,
    /// A content follows, of a message for a consumer.
    Deliver {
        consumer_tag: &'a [u8],
        delivery_tag: u64,
        redelivered: bool,
    },
    /// A content follows, of a message of ours that has no queue.
    Return {
        reply_code: u16,
        reply_text: &'a [u8],
    },
    Ack(Confirm),
    Nack(Confirm),
    QueueBindOk,
    QueueUnbindOk,
    ExchangeBindOk,
    ExchangeUnbindOk,
    /// One that we have not asked for.
    Other {
        class: u16,
        method: u16,
    },
}

/// Which publications were confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirm {
    pub(crate) delivery_tag: u64,
    /// All up to it.
    pub(crate) multiple: bool,
}

/// Why the broker closes an AMQP channel or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close<'a> {
    pub(crate) reply_code: u16,
    pub(crate) reply_text: &'a [u8],
    /// The method that it does not like; 0 where it is none.
    pub(crate) class: u16,
    pub(crate) method: u16,
}

impl<'a> Close<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            reply_code: reader.short_uint()?,
            reply_text: reader.short_string()?,
            class: reader.short_uint()?,
            method: reader.short_uint()?,
        })
    }

    /// Reads the arguments of `connection.close`.
    pub(super) fn parse(arguments: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(arguments);
        let close = Self::read(&mut reader)?;
        reader.end()?;
        Ok(close)
    }
}

impl<'a> Incoming<'a> {
    /// Reads the payload of a method frame.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (class, method) = (reader.short_uint()?, reader.short_uint()?);
        let parsed = match (class, method) {
            (20, 11) => {
                reader.skip_long()?;
                Self::ChannelOpenOk
            }
            (20, 20) => Self::ChannelFlow {
                active: reader.octet()? & 1 != 0,
            },
            (20, 40) => Self::ChannelClose(Close::read(&mut reader)?),
            (20, 41) => Self::ChannelCloseOk,
            (40, 31) => Self::ExchangeBindOk,
            (40, 51) => Self::ExchangeUnbindOk,
            (50, 21) => Self::QueueBindOk,
            (50, 51) => Self::QueueUnbindOk,
            (60, 11) => Self::QosOk,
            (60, 21) => Self::ConsumeOk {
                consumer_tag: reader.short_string()?,
            },
            (60, 30) => {
                let consumer_tag = reader.short_string()?;
                let _nowait = reader.octet()?;
                Self::Cancel { consumer_tag }
            }
            (60, 31) => {
                reader.short_string()?;
                Self::CancelOk
            }
            (60, 50) => {
                let reply_code = reader.short_uint()?;
                let reply_text = reader.short_string()?;
                skip_exchange_and_key(&mut reader)?;
                Self::Return {
                    reply_code,
                    reply_text,
                }
            }
            (60, 60) => {
                let consumer_tag = reader.short_string()?;
                let delivery_tag = reader.long_long_uint()?;
                let redelivered = reader.octet()? & 1 != 0;
                skip_exchange_and_key(&mut reader)?;
                Self::Deliver {
                    consumer_tag,
                    delivery_tag,
                    redelivered,
                }
            }
            (60, 80) => Self::Ack(confirm(&mut reader)?),
            (60, 120) => Self::Nack(confirm(&mut reader)?),
            (85, 11) => Self::ConfirmSelectOk,
            _ => return Ok(Self::Other { class, method }),
        };
        reader.end()?;
        Ok(parsed)
    }
}

fn skip_exchange_and_key(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.short_string()?;
    reader.short_string()?;
    Ok(())
}

fn confirm(reader: &mut Reader<'_>) -> Result<Confirm, Malformed> {
    Ok(Confirm {
        delivery_tag: reader.long_long_uint()?,
        // The second bit of a nack says `requeue`, which means nothing to a publisher.
        multiple: reader.octet()? & 1 != 0,
    })
}
