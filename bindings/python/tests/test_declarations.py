"""That the declarations are those of the header: names, types, numbers; no more and no less."""

import ctypes
import json
import os

import pytest

from channel_layer import _declarations, _library


@pytest.fixture(scope="module")
def header():
    with open(os.environ["CHANNEL_LAYER_TEST_API"], encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("what", ["functions", "callbacks"])
def test_signatures_are_those_of_the_header(header, what):
    ours = {
        name: {"result": result, "parameters": [list(each) for each in parameters]}
        for name, (result, parameters) in getattr(_declarations, what.upper()).items()
    }
    assert ours == header[what]


def test_enums_are_those_of_the_header(header):
    ours = {
        name: {"type": kind, "values": values}
        for name, (kind, values) in _declarations.ENUMS.items()
    }
    assert ours == header["enums"]


def test_constants_and_handles_are_those_of_the_header(header):
    assert _declarations.CONSTANTS == header["constants"]
    assert list(_declarations.HANDLES) == header["handles"]


def test_enums_travel_in_the_type_that_the_header_says(header):
    for name, enum in header["enums"].items():
        if name in _declarations.TYPES:
            assert _declarations.TYPES[name] is _declarations.TYPES[enum["type"]]


def test_every_function_is_loaded_with_its_types():
    for name, (result, parameters) in _declarations.FUNCTIONS.items():
        homes = [
            home
            for home in (_library.quick, _library.waiting)
            if getattr(home, name).argtypes is not None
        ]
        assert homes, name
        for home in homes:
            function = getattr(home, name)
            assert len(function.argtypes) == len(parameters)
            assert function.restype is _declarations.type_of(result, result=True)


def test_sizes_are_those_of_c():
    for text, size in (("int32_t", 4), ("uint32_t", 4), ("uint64_t", 8), ("size_t", 8)):
        assert ctypes.sizeof(_declarations.TYPES[text]) == size
