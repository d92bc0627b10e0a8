"""The C programs that put load on the library through its C API: compiled once, when needed."""

import os
import shlex
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
OUTPUT = Path(os.environ.get("CHANNEL_LAYER_TEST_OUTPUT", TARGET)).resolve()


class BuildError(Exception):
    """A program does not compile, or the library is not there."""


def library_folder():
    """Where libchannel_layer.so is: target/debug, or what CHANNEL_LAYER_FAULTS_LIBRARY says."""
    return Path(os.environ.get("CHANNEL_LAYER_FAULTS_LIBRARY", TARGET / "debug")).resolve()


_built = {}
_building = threading.Lock()


def build(name, *sources, flags=(), shared=False, linked=True):
    """The path of the program made of tests/faults/programs/`name`.c and further `sources`
    (relative to the root), `linked` with the library; with `shared`, of a shared object."""
    with _building:
        key = (name, sources, tuple(flags), shared, linked)
        if key not in _built:
            _built[key] = _compile(name, sources, flags, shared, linked)
        return _built[key]


def _compile(name, sources, flags, shared, linked):
    library = library_folder()
    if not (library / "libchannel_layer.so").exists():
        raise BuildError(f"there is no {library}/libchannel_layer.so; run `make build` first")
    output = OUTPUT / "faults" / library.name
    output.mkdir(parents=True, exist_ok=True)
    program = output / (f"{name}.so" if shared else name)
    command = [
        *shlex.split(os.environ.get("CC", "cc")),
        "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-pthread",
        *(("-shared", "-fPIC") if shared else ()),
        f"-I{ROOT}/include", f"-I{ROOT}/tests/c",
        str(ROOT / "tests/faults/programs" / f"{name}.c"),
        *(str(ROOT / source) for source in sources),
        "-o", str(program),
        *((f"-L{library}", "-lchannel_layer", f"-Wl,-rpath,{library}") if linked else ()), "-lm",
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return program
