"""Packs what is sent as MessagePack, and names the value that cannot be packed by its path."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack

from .errors import InvalidError

LOWEST, HIGHEST = -(2**63), 2**64 - 1  # what MessagePack has for an integer
MAX_DEPTH = 128  # maps and arrays within each other, the message itself included
CONTAINERS = (dict, list, tuple)
PLAIN = (str, bytes, bytearray, memoryview, int, float, type(None))


def pack(message, default=None) -> bytes:
    """A mapping as MessagePack; bytes are taken as MessagePack already.

    `default(value)` returns what is sent instead of a value that MessagePack does not have, or
    raises TypeError, as that of `json.dumps`. A value that cannot be packed is a TypeError, one out
    of range an InvalidError; both name it by its path in the message. What else the receivers could
    not read (a reserved key, a key that is not a str) the library refuses.
    """
    if isinstance(message, (dict, Mapping)):
        message = message if isinstance(message, dict) else dict(message)
        try:
            return msgpack.packb(message, default=default)
        except (TypeError, ValueError, OverflowError) as problem:
            # ValueError: depth, and text that is not Unicode. What `default` raises comes here too.
            _name_culprit(message, default, problem)
            if isinstance(problem, TypeError):
                raise
            raise InvalidError(f"the message cannot be packed: {problem}") from problem
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is a dict, or bytes of MessagePack, not {type(message).__name__}")


def _name_culprit(message: dict, default, problem) -> None:
    """Raises the error for the first value, in the order of the message, that cannot be packed."""
    kept = []  # what `default` made, so that no other object gets its id
    waiting = [(message, "message", 1, ())]
    while waiting:
        value, path, depth, above = waiting.pop()
        if not isinstance(value, (*CONTAINERS, *PLAIN)):
            value = _converted(value, path, default, problem)
            kept.append(value)
        if isinstance(value, CONTAINERS):
            if id(value) in above:
                raise InvalidError(f"{path} contains itself") from problem
            if depth > MAX_DEPTH:
                raise InvalidError(
                    f"{_shortened(path)}: maps and arrays nest deeper than {MAX_DEPTH}"
                ) from problem
            within = (*above, id(value))
            if isinstance(value, dict):
                for key in value:
                    _check_key(key, path, problem)
                children = [(each, f"{path}[{key!r}]") for key, each in value.items()]
            else:
                children = [(each, f"{path}[{at}]") for at, each in enumerate(value)]
            waiting.extend((each, at, depth + 1, within) for each, at in reversed(children))
        elif isinstance(value, int):
            if not LOWEST <= value <= HIGHEST:
                raise InvalidError(
                    f"{path} is an integer out of range; allowed is -2**63 to 2**64 - 1"
                ) from problem
        elif isinstance(value, str):
            _check_text(value, path, problem)


def _check_key(key, path: str, problem) -> None:
    if isinstance(key, str):
        _check_text(key, f"a key of {path}", problem)
    else:
        raise InvalidError(
            f"{path} has the key {key!r}, of type {_type_name(key)}; keys are str"
        ) from problem


def _check_text(value: str, path: str, problem) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as cause:
        raise InvalidError(f"{path} is not valid Unicode: {cause}") from problem


def _converted(value, path: str, default, problem):
    kind = _type_name(value)
    if default is None:
        raise TypeError(
            f"{path} is of type {kind}, which MessagePack does not have; convert it, or give the "
            "layer a `default` that does"
        ) from problem
    try:
        converted = default(value)
    except TypeError as cause:
        raise TypeError(
            f"{path} is of type {kind}, which `default` does not convert: {cause}"
        ) from cause
    if isinstance(converted, (*CONTAINERS, *PLAIN)):
        return converted
    raise TypeError(
        f"{path} is of type {kind}, and `default` makes a value of type {_type_name(converted)} of "
        "it, which MessagePack does not have either"
    ) from problem


def _type_name(value) -> str:
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:100]}...{path[-80:]}"
