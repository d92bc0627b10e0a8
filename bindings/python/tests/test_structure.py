"""How the package is built: its imports, and that what owns something of C exists once."""

import ast
import asyncio
import copy
import enum
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

import channel_layer
from channel_layer import Message, _completion, _handle, _library
from channel_layer._unique import Unique
from conftest import WAIT

PACKAGE = Path(channel_layer.__file__).parent


def imports_of(name):
    """The modules of the package that a module imports, anywhere in it: in functions, and for
    type checkers alone, too."""
    source = (PACKAGE / f"{name}.py").read_text("utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            if node.module is None:
                found.update(each.name for each in node.names)
            else:
                found.add(node.module.split(".")[0])
    return found


def cycle_in(imports):
    """Modules that import each other in a circle, or None."""
    done = set()

    def walk(name, above):
        if name in above:
            return above[above.index(name) :]
        if name in done:
            return None
        for each in sorted(imports[name]):
            found = walk(each, [*above, name])
            if found:
                return found
        done.add(name)
        return None

    for name in sorted(imports):
        found = walk(name, [])
        if found:
            return found
    return None


def test_no_module_imports_itself_by_way_of_others():
    names = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    imports = {name: imports_of(name) & names for name in names}
    assert imports["layer"] >= {"_handle", "_loops", "blocking", "receiver"}
    assert cycle_in(imports) is None
    assert cycle_in({**imports, "_library": imports["_library"] | {"layer"}}) is not None


# --- what exists once -----------------------------------------------------------------------


def classes():
    """All classes of the package that are written out."""
    found = set()
    for module in pkgutil.iter_modules(channel_layer.__path__):
        of = importlib.import_module(f"channel_layer.{module.name}")
        found.update(
            each
            for _, each in inspect.getmembers(of, inspect.isclass)
            if each.__module__ == of.__name__ and not issubclass(each, enum.Enum)
        )
    return found


def owns(each):
    """Whether objects of a class have something to free, close or give back."""
    source = inspect.getsource(each)
    return "__del__" in vars(each) or "_free(" in source or "os.close" in source


OWNERS = sorted((each for each in classes() if owns(each)), key=lambda each: each.__name__)
STANDING_FOR_ONE = sorted(
    (each for each in classes() if issubclass(each, Unique) and each is not Unique),
    key=lambda each: each.__name__,
)
DUPLICATIONS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda each: pickle.loads(pickle.dumps(each)),
}


@pytest.fixture
async def made(layer):
    """Makes an object of a class: those that need arguments have a line here."""
    receivers = []

    def make(each):
        if each is channel_layer.Receiver:
            receivers.append(layer.handle(layer.new_channel(), lambda message: None))
            return receivers[-1]
        makers = {
            channel_layer.Layer: lambda: layer,
            channel_layer.blocking.Blocking: lambda: layer.blocking,
            _handle.Handle: lambda: layer._handle,
            _handle.Config: lambda: _handle.Config({}, layer._handle.hooks),
            _handle.Hooks: lambda: layer._handle.hooks,
            type(layer._loops): lambda: layer._loops,
        }
        return makers.get(each, each)()

    yield make
    for receiver in receivers:
        receiver.cancel()


def test_every_class_that_owns_something_of_c_refuses_copies_or_is_a_message():
    assert {_handle.Handle, _handle.Config, _library.Failure, _completion.Wake, Message} <= set(
        OWNERS
    )
    assert [each for each in OWNERS if not issubclass(each, Unique)] == [Message]


@pytest.mark.parametrize("how", DUPLICATIONS)
@pytest.mark.parametrize("kind", STANDING_FOR_ONE, ids=lambda each: each.__name__)
async def test_what_exists_once_refuses_to_be_duplicated(kind, how, made, layer):
    one = made(kind)
    assert type(one) is kind
    with pytest.raises(TypeError, match=f"{kind.__name__} cannot be copied"):
        DUPLICATIONS[how](one)
    channel = layer.new_channel()
    await layer.send(channel, {"n": 1})
    assert await asyncio.wait_for(layer.receive(channel), 20) == {"n": 1}


@pytest.mark.parametrize("how", DUPLICATIONS)
def test_a_duplicate_of_a_message_is_a_dict_of_its_own(how, layer):
    channel = layer.new_channel()
    layer.blocking.send(channel, {"type": "x", "a": [1, {"b": b"\0"}]})
    message = layer.blocking.receive(channel, 20)
    duplicate = DUPLICATIONS[how](message)
    assert type(duplicate) is dict and duplicate == {"type": "x", "a": [1, {"b": b"\0"}]}
    duplicate["type"] = "y"
    assert message["type"] == message.type == "x"
    shared = duplicate["a"] is message["a"]
    assert shared is (how == "copy")
    packed = message.packed
    del message
    assert duplicate["a"] == [1, {"b": b"\0"}]
    assert packed


# --- a message is a mapping -----------------------------------------------------------------


@pytest.fixture
def message(layer):
    channel = layer.new_channel()
    layer.blocking.send(channel, {"type": "chat", "n": 1, "more": [1, 2]})
    return layer.blocking.receive(channel, 20)


def test_a_message_has_all_that_a_mapping_has(message):
    same = {"type": "chat", "n": 1, "more": [1, 2]}
    assert isinstance(message, Mapping)
    assert sorted(message) == sorted(message.keys()) == ["more", "n", "type"]
    assert len(message) == 3 and list(reversed(message)) == list(reversed(list(message)))
    assert dict(message) == dict(message.items()) == {**message} == message.data == same
    assert 1 in message.values() and "n" in message and "x" not in message
    assert message["n"] == message.get("n") == 1
    assert message.get("x") is None and message.get("x", 7) == 7
    with pytest.raises(KeyError, match="x"):
        message["x"]
    with pytest.raises(TypeError):
        message["n"] = 2


def test_a_message_equals_a_dict_and_another_message_and_has_no_hash(message, layer):
    same = {"type": "chat", "n": 1, "more": [1, 2]}
    assert message == same and same == message and not message != same
    assert message != {**same, "n": 2} and message != [1] and message != None  # noqa: E711
    channel = layer.new_channel()
    layer.blocking.send(channel, message)  # it can be sent on
    assert layer.blocking.receive(channel, 20) == message
    with pytest.raises(TypeError, match="unhashable"):
        hash(message)


def test_a_message_shows_its_channel_and_its_content(message):
    assert message.channel in repr(message) and repr(message.data) in repr(message)


def test_a_message_whose_receive_came_to_nothing_can_be_dropped():
    name = f"memory://{uuid.uuid4().hex}"
    with channel_layer.Layer(host=name) as layer, pytest.raises(channel_layer.TimedOutError):
        layer.blocking.receive(layer.new_channel(), 0)


# --- a message that is freed ----------------------------------------------------------------

TAKEN = """
import copy, gc, pickle, sys
import channel_layer
layer = channel_layer.Layer(host="memory://freed")
channel = layer.new_channel()
layer.blocking.send(channel, {"type": "chat", "n": 1})
message = layer.blocking.receive(channel, 20)
"""
READS = """
def reads(m):
    def raises(read):
        try:
            read(m)
        except channel_layer.InvalidError:
            return True
    READS = [
        lambda m: m.packed, lambda m: m.data, lambda m: m.json, lambda m: m.channel,
        lambda m: m.group, lambda m: m.type, lambda m: m["n"], len, list, repr, copy.copy,
        copy.deepcopy, pickle.dumps,
    ]
    print([bool(raises(read)) for read in READS].count(True), "of", len(READS), flush=True)
"""
FREED = {
    "first of cyclic garbage": """
class Reader:
    def __init__(self, message):
        self.message, self.me = message, self
    def __del__(self):
        reads(self.message)
Reader(message)
del message
gc.collect()
""",
    "by a call of its finalizer": """
message.__del__()
reads(message)
message.__del__()
del message
gc.collect()
""",
    "before it had a message": """
reads(channel_layer.Message())
""",
}


@pytest.mark.parametrize("how", FREED)
def test_a_freed_message_is_not_read_and_not_freed_again(how):
    done = subprocess.run(
        [sys.executable, "-c", TAKEN + READS + FREED[how]],
        timeout=WAIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "13 of 13\n", "")


def test_what_was_decoded_of_a_message_outlives_it(message):
    data = message.data
    message.__del__()
    assert message["type"] == "chat" and message == data


def test_a_message_is_not_made_of_a_number():
    with pytest.raises(TypeError):
        channel_layer.Message(1)
