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
import os
import shutil
import ssl
import tempfile
import threading
import weakref

from channels.exceptions import ChannelFull, StopConsumer
from channels.layers import BaseChannelLayer

from ._library import quick
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
from .message import take_packed, unpack

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
LONGEST_LOCAL_EXPIRY = 1500  # seconds; RabbitMQ ends who holds an ack for 30 minutes
LARGEST_PREFETCH = 65535
# A message that these meet was not taken by the broker, or nobody knows: it is logged, no more.
LOGGED = (BusyError, DisconnectedError, RefusedError, TimedOutError, UnconfirmedError)


class NormalChannelError(RuntimeError, TypeError):
    """A channel without '!', of which Channels says "normal": there is no process it belongs to.

    channels_rabbitmq raises RuntimeError, the Channels specification wants TypeError.
    """


def _version(version, lowest) -> bool:
    """Whether a bound of a context's TLS versions leaves out what the library would use."""
    return version not in (lowest, ssl.TLSVersion.MINIMUM_SUPPORTED) and version > lowest


def tls_files_of(context: ssl.SSLContext):
    """The PEM text of the authorities that a context trusts, or None for the system's.

    The library has TLS of its own. What of a context it cannot do alike is refused, lest a
    connection be less safe than it was meant to be.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    problem = None
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        problem = "the broker's certificate and host name are always verified"
    elif _version(context.minimum_version, ssl.TLSVersion.TLSv1_2):
        problem = "TLS 1.2 cannot be excluded"
    elif context.maximum_version not in (
        ssl.TLSVersion.MAXIMUM_SUPPORTED,
        ssl.TLSVersion.TLSv1_3,
    ):
        problem = "TLS 1.3 cannot be excluded"
    elif context.verify_flags & (ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN):
        problem = "revocation lists are not read"
    if problem is not None:
        raise ValueError(f"ssl_context asks for what cannot be had: {problem}")
    authorities = context.get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in authorities) or None


def _file_in_folder_of(owner, text: str) -> str:
    """A file that lives as long as its owner: it is read again for each connection."""
    folder = tempfile.mkdtemp(prefix="channel-layer-")
    path = os.path.join(folder, "authorities.pem")
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    process = os.getpid()

    def remove():
        if os.getpid() == process:  # not in a forked child: the parent still needs it
            shutil.rmtree(folder, ignore_errors=True)

    weakref.finalize(owner, remove)
    return path


class RabbitmqChannelLayer(BaseChannelLayer):
    """Channels over RabbitMQ, for any number of event loops and threads of a process at once.

    CONFIG without `prefetch_count` means what it means to channels_rabbitmq 4.0.1: RabbitMQ has
    `local_capacity` messages under way to this process, and each is acked as it is received. With
    `prefetch_count` it means what it means to 0.0.2: `local_capacity` messages wait in memory, and
    `prefetch_count` more may be under way.

    `ssl_context`: its authorities are taken over. A client certificate cannot be read out of it:
    give `tls_cert_file` and `tls_key_file`.
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
            group_expiry=group_expiry,
            groups_exchange=groups_exchange,
        )
        if prefetch_count is None:
            if not isinstance(local_capacity, int) or local_capacity < 1:
                raise ValueError(f"local_capacity is a number above 0, not {local_capacity!r}")
            options["local_capacity"] = 0
            options["prefetch_count"] = min(local_capacity, LARGEST_PREFETCH)
            # Theirs keeps in memory what nobody receives, unless told otherwise.
            options["local_expiry"] = LONGEST_LOCAL_EXPIRY if local_expiry is None else local_expiry
        else:
            options["local_capacity"] = local_capacity
            options["prefetch_count"] = prefetch_count
            options["local_expiry"] = local_expiry
        if ssl_context is not None:
            if options.get("tls_ca_file") is not None:
                raise ValueError("CONFIG has both ssl_context and tls_ca_file")
            authorities = tls_files_of(ssl_context)
            if authorities is not None:
                options["tls_ca_file"] = _file_in_folder_of(self, authorities)
        self._options = options
        self._layer = None
        self._layer_process = None
        self._lock = threading.Lock()
        self._closed = False
        _all.add(self)

    # --- the layer of this process ----------------------------------------------------------

    @property
    def layer(self) -> Layer:
        """The `channel_layer.Layer` under this, opened when it is first needed. A process that was
        forked opens one of its own."""
        if self._layer is None or self._layer_process != os.getpid():
            self._open()
        return self._layer

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                raise StopConsumer
            if self._layer is None or self._layer_process != os.getpid():
                self._layer = Layer(on_log=_log, **self._options)
                self._layer_process = os.getpid()

    def _forget_parent(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here any more."""
        self._lock = threading.Lock()

    async def close(self):
        """Closes the connection. All calls of `receive`, now and later, raise StopConsumer.

        Undelivered messages are lost. Closing again is fine.
        """
        with self._lock:
            self._closed = True
            layer = self._layer if self._layer_process == os.getpid() else None
        if layer is not None:
            try:
                await layer.close()
            except TimedOutError as error:
                logger.warning("The layer is closed, and did not end in good order: %s", error)

    # --- names ------------------------------------------------------------------------------

    def valid_channel_name(self, name, receive=False):
        """True, or TypeError."""
        if not (
            isinstance(name, str)
            and len(name) < self.MAX_NAME_LENGTH
            and self.channel_name_regex.match(name)
            and name.isascii()
        ):
            raise TypeError(self.invalid_name_error.format("Channel"))
        return True

    def valid_group_name(self, name):
        """True, or TypeError."""
        if not (
            isinstance(name, str)
            and len(name) < self.MAX_NAME_LENGTH
            and self.group_name_regex.match(name)
            and name.isascii()
        ):
            raise TypeError(self.invalid_name_error.format("Group"))
        return True

    def _specific(self, channel) -> None:
        self.valid_channel_name(channel)
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
        self.valid_group_name(group)
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
            message = await self.layer._take(channel)
        except (ClosedError, DiscardedError):
            raise StopConsumer from None
        try:
            return unpack(take_packed(message))
        finally:
            quick.layer_message_free(message)

    async def group_add(self, group, channel):
        """Adds a channel of this process to a group. While there is no connection it is logged that
        the group is joined later, on reconnection."""
        self.valid_group_name(group)
        self._specific(channel)
        try:
            await self.layer.group_add(group, channel)
        except ClosedError:
            raise StopConsumer from None
        except LOGGED as error:
            logger.warning("Group %s is joined by %s later: %s", group, channel, error)

    async def group_discard(self, group, channel):
        """Removes a channel of this process from a group."""
        self.valid_group_name(group)
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


_all = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._forget_parent()


os.register_at_fork(after_in_child=_after_fork)
