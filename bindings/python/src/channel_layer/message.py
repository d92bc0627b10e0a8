"""Messages that were received."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping

import msgpack

from ._library import Failure, check, quick
from .errors import InvalidError, Status

OK, TIMEOUT = int(Status.OK), int(Status.TIMEOUT)


def unpack(packed: bytes) -> dict:
    """A received message. Text of a foreign sender that is not UTF-8 keeps its bytes as surrogates,
    as Python has it for file names, so that nothing that arrives is lost. `InvalidError`: it holds
    what Python cannot, which MessagePack allows and no layer sends, as a map as a key."""
    try:
        return msgpack.unpackb(packed, strict_map_key=False, unicode_errors="surrogateescape")
    except (TypeError, ValueError) as problem:
        # Of depth msgpack says nothing.
        text = str(problem) or type(problem).__name__
        raise InvalidError(f"the message cannot be decoded as a dict: {text}") from problem


class Message(Mapping):
    """A received message, as a mapping of its keys. It outlives its layer; `data` is the dict,
    decoded when first asked for.

    `copy`, `deepcopy` and `pickle` make a dict of it, which has no `channel` and `group`.
    """

    __slots__ = ("_cell", "_data")

    # Here and not in `__init__`: an object whose `__init__` has failed is finalized too.
    def __new__(cls):
        message = super().__new__(cls)
        message._cell = ctypes.c_void_p()
        message._data = None
        return message

    @classmethod
    def _owning(cls, pointer):
        """A message that owns a C message."""
        message = cls()
        message._cell.value = pointer
        return message

    def _pointer(self):
        """The C message; an error once it is freed, as in garbage that refers to itself, where the
        finalizers of other objects may run after that of this one."""
        if not self._cell:
            raise InvalidError("the message is freed")
        return self._cell

    @property
    def packed(self) -> bytes:
        """The message as MessagePack."""
        length = ctypes.c_size_t()
        data = quick.layer_message_data(self._pointer(), ctypes.byref(length))
        return ctypes.string_at(data, length.value)

    @property
    def data(self) -> dict:
        """The message as a dict; raises `InvalidError` where it holds what a dict cannot, as a
        foreign sender's map as a key. `packed` has the whole message then too."""
        if self._data is None:
            self._data = unpack(self.packed)
        return self._data

    @property
    def json(self) -> str:
        """The message as JSON text; raises `InvalidError` where it holds what JSON cannot."""
        failure, json = Failure(), ctypes.c_char_p()
        check(quick.layer_message_json(self._pointer(), ctypes.byref(json), failure.at), failure)
        return json.value.decode()

    @property
    def channel(self) -> str:
        """The full name of the channel that it was delivered on."""
        return quick.layer_message_channel(self._pointer()).decode()

    @property
    def group(self):
        """The group that it was sent to, or None."""
        group = quick.layer_message_group(self._pointer())
        return None if group is None else group.decode()

    @property
    def type(self):
        """The value of the key "type" where it is a string without NUL, else None."""
        kind = quick.layer_message_type(self._pointer())
        return None if kind is None else kind.decode("utf-8", "surrogateescape")

    def __getitem__(self, key):
        return self.data[key]

    def __iter__(self):
        return iter(self.data)

    def __reversed__(self):
        return reversed(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, key) -> bool:
        return key in self.data

    def __repr__(self) -> str:
        return f"<channel_layer.Message on {self.channel}: {self.data!r}>"

    # A copy of the pointer would be freed twice.
    def __copy__(self) -> dict:
        return dict(self.data)

    def __deepcopy__(self, memo) -> dict:
        return copy.deepcopy(self.data, memo)

    def __reduce__(self):
        return dict, (self.data,)

    def __reduce_ex__(self, _protocol):
        return self.__reduce__()

    def __del__(self, free=quick.layer_message_free) -> None:
        pointer, self._cell.value = self._cell.value, None
        free(pointer)


def take(handle, channel: bytes, milliseconds: int = 0, library=quick) -> Message | None:
    """Takes the first message of a channel, waiting for one; None where none came.

    Where a signal's handler raises once C has given the message away, it is put back, so that it is
    not lost.
    """
    message = handle.take_back(channel)
    if message is not None:
        return message
    message, failure = Message(), Failure()
    try:
        status = library.layer_receive_next(
            handle.pointer, channel, milliseconds, ctypes.byref(message._cell), failure.at
        )
        if status == OK:
            return message
        error = failure.error(status)
        if status != TIMEOUT:
            raise error
        return None
    except BaseException:
        if message._cell:
            handle.put_back(channel, message)
        raise
