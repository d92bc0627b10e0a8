"""What the tests share: the brokers, layers that are closed in the end, and the repository's node
fixture."""

import asyncio
import os
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "fixture"))

import channel_layer  # noqa: E402
import rabbitmq  # noqa: E402
from channel_layer.django import RabbitmqChannelLayer  # noqa: E402

WAIT = 20  # seconds for what is sure to come


def pytest_collection_modifyitems(items):
    for item in items:
        if {"node", "world"} & set(item.fixturenames):  # RabbitMQ nodes of its own
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request):
    return request.param


@pytest.fixture
def host(broker):
    """The address of a broker; a `memory://` one is of this test alone."""
    if broker == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return os.environ["CHANNEL_LAYER_TEST_AMQP"]


@pytest.fixture
def amqp():
    return os.environ["CHANNEL_LAYER_TEST_AMQP"]


@pytest.fixture(scope="module")
def node():
    """A RabbitMQ node to be stopped and killed."""
    with rabbitmq.Node() as node:
        yield node


@pytest.fixture
def opened():
    """Opens layers; they are closed in the end."""
    layers = []

    def open_one(**options):
        layer = channel_layer.Layer(**options)
        layers.append(layer)
        return layer

    yield open_one
    for layer in layers:
        layer.blocking.close()


@pytest.fixture
def open_layer(opened, host):
    """Opens layers on the test's broker."""

    def open_one(**options):
        return opened(host=host, **options)

    return open_one


@pytest.fixture
def layer(opened):
    """A layer for what does not depend on the broker."""
    return opened(host=f"memory://{uuid.uuid4().hex}")


@pytest.fixture
async def new(host):
    """Opens backends for Django on the test's broker; they are closed in the end."""
    backends = []

    def open_one(**config):
        backend = RabbitmqChannelLayer(**{"host": host, **config})
        backends.append(backend)
        return backend

    yield open_one
    for backend in backends:
        await backend.close()


def unique(name):
    return f"{name}.{uuid.uuid4().hex[:12]}"


async def soon(awaitable):
    """What is sure to come."""
    return await asyncio.wait_for(awaitable, WAIT)


async def in_thread(function, *arguments):
    """A call that blocks, from within an event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
