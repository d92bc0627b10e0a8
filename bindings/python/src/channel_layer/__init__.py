"""channel-layer: send to named channels and broadcast to groups, over RabbitMQ.

`Layer` is all there is to it; `channel_layer.django` is the backend for Django Channels.
"""

from ._library import version
from .errors import (
    BusyError,
    ChannelLayerError,
    ClosedError,
    DiscardedError,
    DisconnectedError,
    Flow,
    ForkedError,
    FullError,
    InternalError,
    InvalidError,
    Isolation,
    LogLevel,
    NoChannelError,
    RefusedError,
    Stat,
    State,
    Status,
    TimedOutError,
    TooLargeError,
    UnconfirmedError,
    WouldDeadlockError,
)
from .layer import Layer
from .message import Message
from .receiver import Receiver

__version__ = "0.1.0"
__all__ = [
    "BusyError",
    "ChannelLayerError",
    "ClosedError",
    "DiscardedError",
    "DisconnectedError",
    "Flow",
    "ForkedError",
    "FullError",
    "InternalError",
    "InvalidError",
    "Isolation",
    "Layer",
    "LogLevel",
    "Message",
    "NoChannelError",
    "Receiver",
    "RefusedError",
    "Stat",
    "State",
    "Status",
    "TimedOutError",
    "TooLargeError",
    "UnconfirmedError",
    "WouldDeadlockError",
    "version",
]
