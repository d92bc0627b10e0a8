"""CONFIG's `ssl_context`, against nodes that speak TLS."""

import asyncio
import logging
import multiprocessing
import os
import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import certificates
import rabbitmq
from channel_layer.django import RabbitmqChannelLayer
from conftest import WAIT, in_thread, soon


class World:
    """An authority, another one, and two nodes: one of them wants to see a client's certificate."""

    def __init__(self, stack):
        self.authority = stack.enter_context(certificates.Authority())
        self.stranger = stack.enter_context(certificates.Authority("another authority"))
        self.client = self.authority.client()
        server = self.authority.server()
        self.open = rabbitmq.Node(tls=rabbitmq.Tls(server))
        stack.callback(self.open.close)
        self.strict = rabbitmq.Node(
            tls=rabbitmq.Tls(server, clients_from=self.authority.file, required=True)
        )
        stack.callback(self.strict.close)
        with ThreadPoolExecutor() as pool:
            list(pool.map(rabbitmq.Node.start, (self.open, self.strict)))

    def context(self):
        return ssl.create_default_context(cafile=self.authority.file)


@pytest.fixture(scope="module")
def world():
    with ExitStack() as stack:
        yield World(stack)


@pytest.fixture
async def new():
    layers = []

    def open_one(node, context, **config):
        layer = RabbitmqChannelLayer(host=node.tls_url("asgi"), ssl_context=context, **config)
        layers.append(layer)
        return layer

    yield open_one
    for layer in layers:
        await layer.close()


async def assert_works(layer):
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    assert await soon(layer.receive(channel)) == {"n": 1}


async def warning_of_a_send(layer, caplog):
    """What is logged of a message that nobody takes."""
    await layer.send(await layer.new_channel(), {})
    (record,) = (each for each in caplog.records if each.name == "channel_layer.django")
    assert record.levelno == logging.WARNING
    return record.getMessage()


async def test_the_authorities_of_a_context_are_trusted(world, new):
    await assert_works(new(world.open, world.context()))


async def test_authorities_given_as_text_are_trusted(world, new):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.file.read_text("ascii"))
    await assert_works(new(world.open, context))


async def test_an_authority_that_the_system_has_in_a_folder_is_trusted_without_a_context(
    world, new, tmp_path, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    shutil.copy(world.authority.file, tmp_path / "authority.pem")
    subprocess.run(["openssl", "rehash", tmp_path], timeout=WAIT, check=True)
    await assert_works(new(world.open, None))
    with pytest.raises(ValueError, match="leave ssl_context out"):
        new(world.open, ssl.create_default_context())


async def test_authorities_given_as_text_by_option_are_trusted(world, new):
    text = world.authority.file.read_text("ascii")
    await assert_works(new(world.open, None, tls_ca_pem=text))


@pytest.mark.parametrize("whose", ["another authority's", "the system's"])
async def test_no_other_authority_is_trusted(whose, world, new, caplog):
    context = (
        None if whose == "the system's" else ssl.create_default_context(cafile=world.stranger.file)
    )
    assert "trusted CA" in await warning_of_a_send(new(world.open, context), caplog)


async def test_the_context_serves_after_a_reconnection_too(world, new):
    layer = new(world.open, world.context())
    await assert_works(layer)
    await in_thread(world.open.restart)
    await layer.layer.wait_ready(WAIT)
    await assert_works(layer)


async def test_a_client_certificate_in_a_context_is_asked_for_in_the_log(world, new, caplog):
    context = world.context()
    context.load_cert_chain(world.client.file, world.client.key)
    text = await warning_of_a_send(new(world.strict, context), caplog)
    assert "client certificate" in text and "tls_cert_file" in text and "tls_key_file" in text


async def test_a_client_certificate_is_shown_from_its_files(world, new):
    files = {"tls_cert_file": world.client.file, "tls_key_file": world.client.key}
    await assert_works(new(world.strict, world.context(), **files))


def _in_child(layer, pipe):
    asyncio.run(assert_works(layer))
    pipe.send(os.getpid())


async def test_a_forked_process_has_the_context_too(world, new):
    layer = new(world.open, world.context())
    await assert_works(layer)
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)
    child = fork.Process(target=_in_child, args=(layer, sending))
    child.start()
    assert await in_thread(receiving.poll, WAIT) and receiving.recv() == child.pid
    await in_thread(child.join, WAIT)
    assert child.exitcode == 0
    await assert_works(layer)


# --- what is refused ------------------------------------------------------------------------


def unverified(context):
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def nameless(context):
    context.check_hostname = False


def without_the_newest(context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def the_newest_alone(context):
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def the_highest_alone(context):
    context.minimum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED


def without_the_newest_by_option(context):
    context.options |= ssl.OP_NO_TLSv1_3


def the_newest_alone_by_option(context):
    context.options |= ssl.OP_NO_TLSv1_2


def revocable(context):
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.filterwarnings("ignore:ssl.OP_NO_")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unverified, "always verified"),
        (nameless, "always verified"),
        (without_the_newest, "TLS 1.3"),
        (without_the_newest_by_option, "TLS 1.3"),
        (the_newest_alone, "TLS 1.2"),
        (the_highest_alone, "TLS 1.2"),
        (the_newest_alone_by_option, "TLS 1.2"),
        (revocable, "revocation"),
    ],
)
def test_what_a_context_cannot_have_is_refused(change, words, world):
    context = world.context()
    RabbitmqChannelLayer(host="amqps://localhost/", ssl_context=context)
    change(context)
    with pytest.raises(ValueError, match=words):
        RabbitmqChannelLayer(host="amqps://localhost/", ssl_context=context)


def test_a_context_whose_authorities_cannot_be_read_is_refused(world, tmp_path):
    """test_ssl_context.py has what can be read, by where the system's are."""
    of_a_folder = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_a_folder.load_verify_locations(capath=str(tmp_path))
    of_the_server_alone = ssl.create_default_context(cafile=world.authority.server().file)
    for context, words in ((of_a_folder, "folder"), (of_the_server_alone, "no authorities")):
        with pytest.raises(ValueError, match=words) as caught:
            RabbitmqChannelLayer(host="amqps://localhost/", ssl_context=context)
        assert "tls_ca_file" in str(caught.value)


@pytest.mark.parametrize(
    "host", ["amqp://me:secret@localhost/", "amqps://localhost/,amqp://me:secret@localhost/", None]
)
def test_a_host_without_encryption_is_refused(host):
    with pytest.raises(ValueError, match="not encrypted") as caught:
        RabbitmqChannelLayer(host=host, ssl_context=ssl.create_default_context())
    assert "secret" not in str(caught.value)


def test_authorities_from_two_places_are_refused(world):
    for name in ("tls_ca_file", "tls_ca_pem"):
        with pytest.raises(ValueError, match=f"both ssl_context and {name}"):
            RabbitmqChannelLayer(
                host="amqps://localhost/",
                ssl_context=world.context(),
                **{name: world.authority.file},
            )


def test_what_is_no_context_is_a_type_error():
    with pytest.raises(TypeError, match="ssl_context is an ssl.SSLContext, not bool"):
        RabbitmqChannelLayer(host="amqps://localhost/", ssl_context=True)
