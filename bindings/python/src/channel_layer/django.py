"""A backend for Django Channels 4, to be named in CHANNEL_LAYERS:

    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channel_layer.django.RabbitmqChannelLayer",
            "CONFIG": {"host": "amqp://user:password@rabbit.example.org/asgi"},
        }
    }

CONFIG takes the names of channels_rabbitmq 0.0.2 to 4.0.1, and every option of the library.
"""

from __future__ import annotations

import logging
import threading

from channels.exceptions import ChannelFull, StopConsumer
from channels.layers import BaseChannelLayer

from ._process import identity, in_forked_child
from ._ssl_context import authorities_of
from .errors import (
    BusyError,
    ClosedError,
    DiscardedError,
    DisconnectedError,
    FullError,
    InvalidError,
    LogLevel,
    NoChannelError,
    RefusedError,
    TimedOutError,
    UnconfirmedError,
)
from .layer import Layer

logger = logging.getLogger(__name__)

LEVELS = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARN: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
}
RESERVED = ("__asgi_channel__", "__asgi_group__")
UNBOUNDED = 2147483647  # what "no limit" is to an option that always has one
LONGEST_EXPIRY = 4294967  # seconds
LARGEST_PREFETCH = 65535
# A message that these meet was not taken by the broker, or nobody knows: it is logged, no more.
LOGGED = (BusyError, DisconnectedError, RefusedError, TimedOutError, UnconfirmedError)


class NormalChannelError(RuntimeError, TypeError):
    """A channel without '!', of which Channels says "normal": there is no process it belongs to.

    channels_rabbitmq raises RuntimeError, the Channels specification wants TypeError.
    """


def _check_hosts_of_context(host) -> None:
    """With a context, whoever connects means to be encrypted."""
    for number, each in enumerate(str(host).split(","), 1):
        if not each.strip().lower().startswith(("amqps:", "memory:")):
            raise ValueError(
                f"CONFIG has ssl_context, and host number {number} is not encrypted: begin it with "
                "amqps:// or leave ssl_context out"
            )


class _Own:
    """What a backend has in one process."""

    def __init__(self) -> None:
        self.layer = None
        self.lock = threading.Lock()


class RabbitmqChannelLayer(BaseChannelLayer):
    """Channels over RabbitMQ, for any number of event loops and threads of a process at once.

    CONFIG without `prefetch_count` means what it means to channels_rabbitmq 4.0.1: RabbitMQ
    delivers at most `local_capacity` messages ahead of what this process has taken, and each is
    acked once every channel that it is for has taken it. With `prefetch_count` it means what it
    means to 0.0.2: `local_capacity` messages wait in memory, where a group message counts once for
    each channel, and `prefetch_count` more may be under way.

    When messages that nobody takes have kept RabbitMQ from sending for `stall_after` seconds, each
    channel is bounded by `channel_capacity` instead, and the other channels go on.

    `expiry`: how many seconds a message waits on RabbitMQ, and again in memory unless
    `local_expiry` says otherwise. `group_expiry`: a number of seconds; None or "never": memberships
    do not expire.

    `ssl_context`: the authorities that it shows by `get_ca_certs()` when this is made are trusted,
    and no others; one that shows none is refused. A client
    certificate cannot be read out of it: give `tls_cert_file` and `tls_key_file`. Ciphers are the
    library's own.

    A process that was forked, as by a server that loads the site before its workers, opens a layer
    of its own when it first needs one, whatever the parent has done with this.
    """

    extensions = ["groups"]

    def __init__(
        self,
        host="amqp://guest:guest@127.0.0.1/asgi",
        local_capacity=100,
        remote_capacity=100,
        prefetch_count=None,
        expiry=60,
        local_expiry=None,
        group_expiry=None,
        ssl_context=None,
        groups_exchange="groups",
        **options,
    ):
        super().__init__(expiry=expiry, capacity=remote_capacity)
        self.host = host
        self.local_capacity = local_capacity
        self.remote_capacity = remote_capacity
        self.prefetch_count = prefetch_count
        self.local_expiry = local_expiry
        self.group_expiry = group_expiry
        self.ssl_context = ssl_context
        self.groups_exchange = groups_exchange

        options.update(
            host=host,
            remote_capacity=UNBOUNDED if remote_capacity is None else remote_capacity,
            expiry=LONGEST_EXPIRY if expiry is None else expiry,
            local_expiry=local_expiry,
            group_expiry="never" if group_expiry is None else group_expiry,
            groups_exchange=groups_exchange,
        )
        if prefetch_count is None:
            if not isinstance(local_capacity, int) or local_capacity < 1:
                raise ValueError(f"local_capacity is a number above 0, not {local_capacity!r}")
            options["local_capacity"] = 0
            options["prefetch_count"] = min(local_capacity, LARGEST_PREFETCH)
        else:
            options["local_capacity"] = local_capacity
            options["prefetch_count"] = prefetch_count
        if ssl_context is not None:
            for name in ("tls_ca_file", "tls_ca_pem"):
                if options.get(name) is not None:
                    raise ValueError(f"CONFIG has both ssl_context and {name}")
            _check_hosts_of_context(host)
            options["tls_ca_pem"] = authorities_of(ssl_context)
        self._options = options
        self._owns = {}  # process: what it has
        self._closed = False
        in_forked_child(self)

    # --- the layer of this process ----------------------------------------------------------

    @property
    def layer(self) -> Layer:
        """The `channel_layer.Layer` under this, opened when it is first needed. A process that was
        forked opens one of its own."""
        own = self._owns.get(identity())
        if own is None or own.layer is None:
            return self._open()
        return own.layer

    def _own(self) -> _Own:
        """What this process has. Nothing in it is shared with the process that this was forked
        from: there a thread may have held the lock that is not here."""
        process = identity()
        own = self._owns.setdefault(process, _Own())
        for other in list(self._owns):
            if other != process:
                self._owns.pop(other, None)
        return own

    def after_fork(self) -> None:
        """Gives up what the parent has, in a child: the library touches nothing of it there."""
        self._owns.clear()

    def _open(self) -> Layer:
        own = self._own()
        with own.lock:
            if self._closed:
                raise StopConsumer
            if own.layer is None:
                own.layer = Layer(on_log=_log, **self._options)
            return own.layer

    async def close(self):
        """Closes the connection. All calls of `receive`, now and later, raise StopConsumer.

        Undelivered messages are lost. Closing again is fine.
        """
        own = self._own()
        with own.lock:
            self._closed = True
        if own.layer is not None:
            try:
                await own.layer.close()
            except TimedOutError as error:
                logger.warning("The layer is closed, and did not end in good order: %s", error)

    # --- names ------------------------------------------------------------------------------

    def require_valid_channel_name(self, name, receive=False):
        """True, or TypeError."""
        return self._require_valid("channel", self.channel_name_regex, name)

    def require_valid_group_name(self, name):
        """True, or TypeError."""
        return self._require_valid("group", self.group_name_regex, name)

    def _require_valid(self, kind, pattern, name) -> bool:
        if (
            isinstance(name, str)
            and len(name) < self.MAX_NAME_LENGTH
            and pattern.fullmatch(name)
            and name.isascii()
        ):
            return True
        mark = ", and one '!'" if kind == "channel" else ""
        raise TypeError(
            f"{name!r} is no {kind} name: that is a str of fewer than {self.MAX_NAME_LENGTH} ASCII "
            f"letters, digits, hyphens, underscores and periods{mark}"
        )

    # As Channels named them before 4.3, which deprecates these of its own.
    valid_channel_name = require_valid_channel_name
    valid_group_name = require_valid_group_name

    def _specific(self, channel) -> None:
        self.require_valid_channel_name(channel)
        if "!" not in channel:
            raise NormalChannelError(
                f"{channel!r} is a normal channel, as a Channels worker would read it. Over "
                "RabbitMQ there are only the channels that new_channel() makes, and groups"
            )

    # --- what Channels calls ----------------------------------------------------------------

    async def new_channel(self, prefix=""):
        """A new channel name of this process."""
        layer = self.layer
        try:
            return layer.new_channel(prefix)
        except ClosedError:
            raise StopConsumer from None
        except InvalidError as error:
            raise TypeError(str(error)) from error

    async def send(self, channel, message):
        """Sends to a channel. Raises ChannelFull where it is at capacity; that a message got lost
        for another reason is logged."""
        self._specific(channel)
        _check_message(message)
        try:
            await self.layer.send(channel, message)
        except FullError as error:
            raise ChannelFull(str(error)) from None
        except ClosedError:
            raise StopConsumer from None
        except NoChannelError as error:
            logger.info("A message to %s was lost: %s", channel, error)
        except LOGGED as error:
            logger.warning("A message to %s was perhaps not sent: %s", channel, error)

    async def group_send(self, group, message):
        """Sends to all members of a group. That some did not get it is logged, never raised."""
        self.require_valid_group_name(group)
        _check_message(message)
        try:
            await self.layer.group_send(group, message)
        except ClosedError:
            raise StopConsumer from None
        except FullError as error:
            logger.warning("A message to group %s did not reach all: %s", group, error)
        except LOGGED as error:
            logger.warning("A message to group %s was perhaps not sent: %s", group, error)

    async def receive(self, channel):
        """The first message that arrives on a channel of this process. One that is cancelled has
        taken nothing."""
        self._specific(channel)
        try:
            message = await self.layer.receive(channel)
        except (ClosedError, DiscardedError):
            raise StopConsumer from None
        return message.data

    async def group_add(self, group, channel):
        """Adds a channel of this process to a group. While there is no connection it is logged that
        the group is joined later, on reconnection."""
        self.require_valid_group_name(group)
        self._specific(channel)
        try:
            await self.layer.group_add(group, channel)
        except ClosedError:
            raise StopConsumer from None
        except LOGGED as error:
            logger.warning("Group %s is joined by %s later: %s", group, channel, error)

    async def group_discard(self, group, channel):
        """Removes a channel of this process from a group."""
        self.require_valid_group_name(group)
        self._specific(channel)
        try:
            self.layer.group_discard(group, channel)
        except ClosedError:
            raise StopConsumer from None


def _check_message(message) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not {type(message).__name__}")
    for key in RESERVED:
        if key in message:
            raise InvalidError(f"a message must not hold the key {key}: the layer adds it")


def _log(level, id, target, text) -> None:
    logger = logging.getLogger(target.replace("::", "."))
    logger.log(LEVELS[level], "%s", text, extra={"channel_layer_id": id})
