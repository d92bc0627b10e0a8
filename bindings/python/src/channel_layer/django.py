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

import contextvars
import datetime
import decimal
import logging
import threading
import uuid
import warnings

from channels.exceptions import (
    ChannelFull,
    InvalidChannelLayerError,
    MessageTooLarge,
    StopConsumer,
)
from channels.layers import BaseChannelLayer
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from ._config_check import check_names
from ._django_checks import register_check
from ._notices import Notices
from ._process import identity, in_forked_child
from ._ssl_context import authorities_of
from ._throttle import Throttle
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
    Stat,
    State,
    TimedOutError,
    TooLargeError,
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


# Whether a record of ours is being logged: what a handler sends meanwhile logs nothing in its turn,
# or a handler that sends each record to a group would go on for ever.
_is_logging = contextvars.ContextVar("channel_layer_is_logging", default=False)


class ConfigError(InvalidChannelLayerError, InvalidError):
    """CONFIG has an option that does not exist, or a value that is not allowed."""


class ForeignChannelError(InvalidError, AssertionError):
    """`receive` of a channel that another process owns.

    channels_rabbitmq and channels_redis raise AssertionError.
    """


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
        self.notices = None
        self.throttle = Throttle()
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

    `default(value)`, or the dotted path of such a function: returns what is sent instead of a value
    that messages cannot hold, or raises TypeError. `channel_layer.django.plain` is a ready one.

    `on_disconnect`, `on_reconnect`: the type of a message that each consumer of the process gets
    when the layer has lost its connection, and when it is ready again, with the key "generation".
    Between the two, messages may have been missed.

    A CONFIG that is wrong raises ConfigError. Nothing is opened until the first call.

    A process that was forked, as by a server that loads the site before its workers, opens a layer
    of its own when it first needs one. One that was forked after `close` raises StopConsumer, as
    its parent does.
    """

    extensions = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

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
        default=None,
        on_disconnect=None,
        on_reconnect=None,
        on_state=None,
        on_isolation=None,
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

        _checked(check_names, options)
        self._default = _function("default", default, by_path=True)
        self._on_state = _function("on_state", on_state)
        self._on_isolation = _function("on_isolation", on_isolation)
        self.on_disconnect = _message_type("on_disconnect", on_disconnect)
        self.on_reconnect = _message_type("on_reconnect", on_reconnect)
        options.update(
            host=host,
            remote_capacity=UNBOUNDED if remote_capacity is None else remote_capacity,
            expiry=LONGEST_EXPIRY if expiry is None else expiry,
            local_expiry=local_expiry,
            group_expiry="never" if group_expiry is None else group_expiry,
            groups_exchange=groups_exchange,
        )
        if prefetch_count is None:
            if type(local_capacity) is not int or local_capacity < 1:
                raise ConfigError(f"local_capacity is a number above 0, not {local_capacity!r}")
            options["local_capacity"] = 0
            options["prefetch_count"] = min(local_capacity, LARGEST_PREFETCH)
        else:
            options["local_capacity"] = local_capacity
            options["prefetch_count"] = prefetch_count
        if ssl_context is not None:
            for name in ("tls_ca_file", "tls_ca_pem"):
                if options.get(name) is not None:
                    raise ConfigError(f"CONFIG has both ssl_context and {name}")
            _check_hosts_of_context(host)
            options["tls_ca_pem"] = authorities_of(ssl_context)
        _checked(Layer.check, **options)
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
                own.notices, on_state = self._watch_state()
                own.layer = Layer(
                    on_log=_log,
                    on_state=on_state,
                    on_isolation=self._on_isolation,
                    default=self._default,
                    **self._options,
                )
            return own.layer

    def _watch_state(self):
        """Who gives consumers the notices of a layer, if any are wanted, and what is called with
        each change of its state."""
        if self.on_disconnect is None and self.on_reconnect is None:
            return None, self._on_state
        notices = Notices(self.on_disconnect, self.on_reconnect)

        def on_state(state, generation):
            notices.state_changed(state, generation)
            if self._on_state is not None:
                self._on_state(state, generation)

        return notices, on_state

    def state(self) -> State:
        """The state of the layer of this process now. The first call opens it."""
        return State.CLOSED if self._closed else self.layer.state()

    def generation(self) -> int:
        """How many connections to receive by there were so far, in this process: where it has
        grown, messages may have been missed."""
        return self.layer.stat(Stat.GENERATION)

    async def close(self):
        """Closes the connection. All calls of `receive`, now and later, raise StopConsumer.

        Undelivered messages are lost. Closing again is fine.
        """
        own = self._own()
        with own.lock:
            self._closed = True
        if own.layer is not None:
            await self._end(own)

    async def flush(self):
        """Ends the channels, memberships and messages of this process; its calls of `receive` that
        wait raise StopConsumer. The next call opens another layer, with another queue and new
        channel names. Other processes keep theirs."""
        own = self._own()
        layer = own.layer
        if self._closed:
            raise StopConsumer
        if layer is not None:
            await self._end(own)
            with own.lock:
                if own.layer is layer and not self._closed:
                    own.layer = None

    async def _end(self, own) -> None:
        try:
            await own.layer.close()
        except TimedOutError as error:
            _log_own(
                logging.WARNING, "The layer is closed, and did not end in good order: %s", error
            )
        for (level, text), count in own.throttle.drain().items():
            like = text % (("...",) * text.count("%s"))
            _log_own(level, "%d more records were held back: %s", count, like, held_back=count)

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

    def valid_channel_name(self, channel_name, receive=False):
        """Deprecated as Channels 4.3 has it: `require_valid_channel_name`."""
        _deprecated("valid_channel_name", "require_valid_channel_name")
        return self.require_valid_channel_name(channel_name)

    def valid_group_name(self, group_name):
        """Deprecated as Channels 4.3 has it: `require_valid_group_name`."""
        _deprecated("valid_group_name", "require_valid_group_name")
        return self.require_valid_group_name(group_name)

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
        """Sends to a channel. Raises ChannelFull where it is at capacity, MessageTooLarge; that a
        message got lost for another reason is logged."""
        self._specific(channel)
        _check_message(message)
        layer = self.layer
        try:
            await layer.send(channel, message)
        except FullError as error:
            raise ChannelFull(str(error)) from None
        except TooLargeError as error:
            raise MessageTooLarge(str(error)) from None
        except ClosedError:
            raise StopConsumer from None
        except NoChannelError as error:
            self._log(layer, logging.INFO, "A message to %s was lost: %s", channel, error)
        except LOGGED as error:
            self._log(
                layer, logging.WARNING, "A message to %s was perhaps not sent: %s", channel, error
            )

    async def group_send(self, group, message):
        """Sends to all members of a group. That some did not get it is logged, never raised; only
        MessageTooLarge is."""
        self.require_valid_group_name(group)
        _check_message(message)
        layer = self.layer
        try:
            await layer.group_send(group, message)
        except TooLargeError as error:
            raise MessageTooLarge(str(error)) from None
        except ClosedError:
            raise StopConsumer from None
        except FullError as error:
            self._log(
                layer,
                logging.WARNING,
                "A message to group %s did not reach all: %s",
                group,
                error,
            )
        except LOGGED as error:
            self._log(
                layer,
                logging.WARNING,
                "A message to group %s was perhaps not sent: %s",
                group,
                error,
            )

    async def receive(self, channel):
        """The first message that arrives on a channel of this process. One that is cancelled has
        taken nothing. A message that cannot be decoded is logged and dropped."""
        self._specific(channel)
        layer, notices = self.layer, self._own().notices
        while True:
            try:
                message = await layer._next(channel, None, notices)
            except (ClosedError, DiscardedError):
                raise StopConsumer from None
            except InvalidError as error:  # the name is a valid one
                raise ForeignChannelError(str(error)) from None
            if isinstance(message, dict):
                return message
            try:
                return message.data
            except InvalidError as error:  # a consumer must not end of what a peer sends
                self._log(layer, logging.WARNING, "A message to %s was dropped: %s", channel, error)

    async def group_add(self, group, channel):
        """Adds a channel of this process to a group. While there is no connection it is logged that
        the group is joined later, on reconnection."""
        self.require_valid_group_name(group)
        self._specific(channel)
        layer = self.layer
        try:
            await layer.group_add(group, channel)
        except ClosedError:
            raise StopConsumer from None
        except LOGGED as error:
            self._log(
                layer, logging.WARNING, "Group %s is joined by %s later: %s", group, channel, error
            )

    async def group_discard(self, group, channel):
        """Removes a channel of this process from a group."""
        self.require_valid_group_name(group)
        self._specific(channel)
        try:
            self.layer.group_discard(group, channel)
        except ClosedError:
            raise StopConsumer from None

    def _log(self, layer, level, text, *arguments) -> None:
        """Logs what became of a call, at most once per second for each kind; StopConsumer where
        that is because the layer was closed meanwhile."""
        if layer.state() == State.CLOSED:
            raise StopConsumer
        throttle, kind = self._own().throttle, (level, text)
        if _is_logging.get():
            throttle.hold_back(kind)
            return
        held_back = throttle.admit(kind)
        if held_back:
            text, arguments = text + " (%d more like this were held back)", (*arguments, held_back)
        if held_back is not None:
            _log_own(level, text, *arguments, held_back=held_back)


def plain(value):
    """A `default` for CONFIG: text for a UUID, a Decimal and a string that Django translates
    lazily, ISO 8601 for dates and times, seconds for a timedelta. The receiver gets that."""
    if isinstance(value, (uuid.UUID, decimal.Decimal, Promise)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):  # of which a datetime is one
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    raise TypeError("it is no UUID, Decimal, lazy string, date, time or timedelta")


def _checked(check, *arguments, **options) -> None:
    try:
        check(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _function(name, given, by_path=False):
    """A function out of CONFIG, or None."""
    what = "a function or the dotted path of one" if by_path else "a function"
    if by_path and isinstance(given, str):
        try:
            given = import_string(given)
        except ImportError as error:
            raise ConfigError(f"{name} is {what}: {error}") from error
    if given is None or callable(given):
        return given
    raise ConfigError(f"{name} is {what}, not {given!r}")


def _message_type(name, given):
    if given is None or (isinstance(given, str) and given):
        return given
    raise ConfigError(f"{name} is the type of a message, a str, not {given!r}")


def _deprecated(old, new) -> None:
    warnings.warn(f"{old} is deprecated, use {new} instead.", DeprecationWarning, stacklevel=3)


def _check_message(message) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not {type(message).__name__}")
    for key in RESERVED:
        if key in message:
            raise InvalidError(f"a message must not hold the key {key}: the layer adds it")


def _log(level, id, target, text) -> None:
    of = logging.getLogger(target.replace("::", "."))
    _log_to(of, LEVELS[level], "%s", text, extra={"channel_layer_id": id})


def _log_own(level, text, *arguments, held_back=0) -> None:
    _log_to(logger, level, text, *arguments, extra={"channel_layer_held_back": held_back})


def _log_to(of, level, text, *arguments, **more) -> None:
    token = _is_logging.set(True)
    try:
        of.log(level, text, *arguments, **more)
    finally:
        _is_logging.reset(token)


register_check(RabbitmqChannelLayer)
