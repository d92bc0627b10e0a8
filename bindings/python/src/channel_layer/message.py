"""Messages: packing what is sent, and reading what was received."""

from __future__ import annotations

import ctypes

import msgpack

from ._library import Failure, check, quick
from .errors import InvalidError


def pack(message) -> bytes:
    """A dict as MessagePack; bytes are taken as MessagePack already.

    What the broker's other side could not read (a reserved key, a number beyond 64 bits, a set) is
    an error here or in the library.
    """
    if isinstance(message, dict):
        try:
            return msgpack.packb(message)
        except (ValueError, OverflowError) as problem:
            raise InvalidError(f"the message cannot be packed: {problem}") from problem
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is a dict, or bytes of MessagePack, not {type(message).__name__}")


def unpack(packed: bytes) -> dict:
    """A received message. Text of a foreign sender that is not UTF-8 keeps its bytes as surrogates,
    as Python has it for file names, so that nothing that arrives is lost."""
    return msgpack.unpackb(packed, strict_map_key=False, unicode_errors="surrogateescape")


def take_packed(message: int) -> bytes:
    """The MessagePack of a C message."""
    length = ctypes.c_size_t()
    data = quick.layer_message_data(message, ctypes.byref(length))
    return ctypes.string_at(data, length.value)


class Message:
    """A received message. It outlives its layer; `data` is the dict, decoded when first asked for.

    `message["key"]`, `message.get("key")` and `"key" in message` read `data`.
    """

    __slots__ = ("_data", "_message")

    def __init__(self, message: int) -> None:
        self._message = message
        self._data = None

    @property
    def packed(self) -> bytes:
        """The message as MessagePack."""
        return take_packed(self._message)

    @property
    def data(self) -> dict:
        """The message as a dict."""
        if self._data is None:
            self._data = unpack(self.packed)
        return self._data

    @property
    def json(self) -> str:
        """The message as JSON text; raises `InvalidError` where it holds what JSON cannot."""
        failure, json = Failure(), ctypes.c_char_p()
        check(quick.layer_message_json(self._message, ctypes.byref(json), failure.at), failure)
        return json.value.decode()

    @property
    def channel(self) -> str:
        """The full name of the channel that it was delivered on."""
        return quick.layer_message_channel(self._message).decode()

    @property
    def group(self):
        """The group that it was sent to, or None."""
        group = quick.layer_message_group(self._message)
        return None if group is None else group.decode()

    @property
    def type(self):
        """The value of the key "type" where it is a string without NUL, else None."""
        kind = quick.layer_message_type(self._message)
        return None if kind is None else kind.decode("utf-8", "surrogateescape")

    def __getitem__(self, key):
        return self.data[key]

    def __contains__(self, key):
        return key in self.data

    def get(self, key, default=None):
        return self.data.get(key, default)

    def __repr__(self) -> str:
        return f"<channel_layer.Message on {self.channel}: {self.data!r}>"

    def __del__(self, free=quick.layer_message_free) -> None:
        free(self._message)
