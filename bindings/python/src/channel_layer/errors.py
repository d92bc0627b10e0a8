"""The statuses of the C API as exceptions: one class for each, all of them `ChannelLayerError`."""

from __future__ import annotations

import enum

from ._declarations import ENUMS


def _values(name: str, prefix: str) -> dict:
    return {key[len(prefix) :]: value for key, value in ENUMS[name][1].items()}


Status = enum.IntEnum("Status", _values("layer_status_t", "LAYER_"))
State = enum.IntEnum("State", _values("layer_state_t", "LAYER_STATE_"))
Stat = enum.IntEnum("Stat", _values("layer_stat_t", "LAYER_STAT_"))
Isolation = enum.IntEnum("Isolation", _values("layer_isolation_t", "LAYER_ISOLATION_"))
LogLevel = enum.IntEnum("LogLevel", _values("layer_log_level_t", "LAYER_LOG_"))
Flow = enum.IntEnum("Flow", _values("layer_flow_t", "LAYER_"))


class ChannelLayerError(Exception):
    """A call failed. `str(error)` is the library's text, `status` says which kind it is."""

    status = Status.INTERNAL


class InvalidError(ChannelLayerError, ValueError):
    """An argument, option, name or message that is not allowed, or somebody else's channel."""

    status = Status.INVALID


class FullError(ChannelLayerError):
    """The broker refused the message, since a queue that it goes to is full or failing."""

    status = Status.FULL


class NoChannelError(ChannelLayerError, LookupError):
    """No process has this channel now: its owner is gone or reconnecting."""

    status = Status.NO_CHANNEL


class TooLargeError(ChannelLayerError, ValueError):
    """The encoded message is larger than option `max_message_size`."""

    status = Status.TOO_LARGE


class DisconnectedError(ChannelLayerError, ConnectionError):
    """Certainly not sent: no connection took the message by the deadline."""

    status = Status.DISCONNECTED


class BusyError(ChannelLayerError):
    """Certainly not sent: too many sends are in flight, or the broker blocks publishers."""

    status = Status.BUSY


class TimedOutError(ChannelLayerError, TimeoutError):
    """A send was not confirmed in time, so nobody knows; or a wait ran out, with nothing lost."""

    status = Status.TIMEOUT


class UnconfirmedError(ChannelLayerError, ConnectionError):
    """The connection was lost before the confirm: nobody knows whether the message arrived."""

    status = Status.UNCONFIRMED


class RefusedError(ChannelLayerError, ConnectionError):
    """Every host refuses us for credentials, vhost or TLS. Attempts go on."""

    status = Status.REFUSED


class DiscardedError(ChannelLayerError):
    """The channel of the receiver was discarded (LAYER_CANCELLED)."""

    status = Status.CANCELLED


class ClosedError(ChannelLayerError):
    """The layer is closed."""

    status = Status.CLOSED


class WouldDeadlockError(ChannelLayerError, RuntimeError):
    """The call would have waited inside a callback. Nothing was changed."""

    status = Status.WOULD_DEADLOCK


class ForkedError(ChannelLayerError, RuntimeError):
    """The layer was opened before this process was forked. Open one here."""

    status = Status.FORKED


class InternalError(ChannelLayerError):
    """A bug in the library. The message says where."""

    status = Status.INTERNAL


CLASSES = {each.status: each for each in ChannelLayerError.__subclasses__()}


def error_of(status: int, text: str) -> ChannelLayerError:
    """The exception for a status. One that this version does not know keeps its number."""
    kind = CLASSES.get(status)
    if kind is not None:
        return kind(text)
    error = ChannelLayerError(text)
    error.status = status
    return error
