"""Where the package runs: which library it loads, subinterpreters, gevent."""

import os
import shutil
import subprocess
import sys

import pytest

from channel_layer import _library
from conftest import WAIT


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        timeout=2 * WAIT,
        capture_output=True,
        text=True,
        check=False,
    )


# --- the library ----------------------------------------------------------------------------

LOADED = "from channel_layer import _library; print(_library.path)"


@pytest.mark.parametrize("named", ["the folder", "the file", "a file of another name"])
def test_the_library_is_loaded_from_a_file_or_a_folder(named, tmp_path):
    library = tmp_path / ("mine.so" if named == "a file of another name" else _library.NAME)
    shutil.copy(os.environ["CHANNEL_LAYER_TEST_LIBRARY"] + "/libchannel_layer.so", library)
    given = tmp_path if named == "the folder" else library
    done = run(LOADED, CHANNEL_LAYER_LIBRARY=str(given))
    assert (done.stdout.strip(), done.stderr) == (str(library), "")


def test_a_library_that_is_not_there_is_reported_with_the_variable(tmp_path):
    done = run(LOADED, CHANNEL_LAYER_LIBRARY=str(tmp_path))
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError") and "CHANNEL_LAYER_LIBRARY" in error
    assert str(tmp_path / _library.NAME) in error


# --- subinterpreters ------------------------------------------------------------------------

IN_A_SUBINTERPRETER = """
import sys

try:
    import _interpreters as interpreters
    kinds = [("isolated",), ("legacy",)]
except ImportError:
    import _xxsubinterpreters as interpreters
    kinds = [()]
for kind in kinds:
    other = interpreters.create(*kind)
    interpreters.run_string(other, '''
import sys
sys.path[:] = %r
try:
    import channel_layer
except ImportError as error:
    print("refused:", error, flush=True)
else:
    print("imported", flush=True)
''' % sys.path)
    interpreters.destroy(other)
import channel_layer
print("imported", channel_layer.version())
"""


def test_a_subinterpreter_is_refused_in_words_and_the_main_one_goes_on():
    done = run(IN_A_SUBINTERPRETER)
    *others, last = done.stdout.splitlines()
    assert done.returncode == 0 and last.startswith("imported "), done
    assert others, done
    for each in others:
        assert each.startswith("refused:") and "subinterpreter" in each, done


# --- gevent ---------------------------------------------------------------------------------

PATCHED = """
from gevent import monkey

monkey.patch_all()

import gevent
import channel_layer

layer = channel_layer.Layer(host="memory://gevent", timeout=60)
ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.005)

gevent.spawn(tick)

def meanwhile(call):
    '''What a call returns; other greenlets must run while it waits.'''
    before = ticks
    try:
        return call()
    finally:
        assert ticks - before > 5, (call, ticks - before)

def later(function, *arguments):
    gevent.spawn_later(0.2, function, *arguments)

layer.blocking.wait_ready(20)
channel = layer.new_channel()
later(layer.blocking.send, channel, {"n": 1})
assert meanwhile(lambda: layer.blocking.receive(channel, 20)) == {"n": 1}
later(layer.blocking.send, channel, {"n": 2})
assert meanwhile(lambda: layer.blocking.receive(channel)) == {"n": 2}
meanwhile(lambda: layer.poll(0.2))

# Many greenlets that send and receive at once.
channels = [layer.new_channel() for _ in range(20)]

def talk(own, other):
    layer.blocking.send(other, {"to": other})
    return layer.blocking.receive(own, 20)["to"] == own

jobs = [gevent.spawn(talk, a, b) for a, b in zip(channels, channels[1:] + channels[:1])]
gevent.joinall(jobs, timeout=20)
assert all(job.value for job in jobs), jobs

# Nobody listens there.
away = channel_layer.Layer(host="amqp://127.0.0.1:1/", timeout=0.2)
for call in (
    lambda: away.blocking.send("q!c", {}),
    lambda: away.blocking.send("q!c", "{}"),
    lambda: away.blocking.group_send("g", {}),
    lambda: away.blocking.group_add("g", away.new_channel()),
    lambda: away.blocking.wait_ready(0.2),
    lambda: layer.blocking.receive(channel, 0.2),
):
    try:
        meanwhile(call)
    except (channel_layer.DisconnectedError, channel_layer.TimedOutError):
        pass
    else:
        raise AssertionError(call)
away.blocking.close()
layer.blocking.close()
print("done")
"""
HALF_PATCHED = """
from gevent import monkey

monkey.patch_all(select=False)

import channel_layer

layer = channel_layer.Layer(host="memory://gevent")
try:
    layer.blocking.receive(layer.new_channel(), 1)
except RuntimeError as error:
    print(error)
"""


def test_calls_that_block_let_other_greenlets_run():
    done = run(PATCHED)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_calls_that_block_are_refused_where_gevent_has_patched_without_select():
    done = run(HALF_PATCHED)
    assert "gevent" in done.stdout and "select" in done.stdout, done
    assert done.returncode == 0, done.stderr
