"""CONFIG of the backend for Django: what is wrong in it is said when the layer is made, and by
Django's system check."""

import subprocess
import sys

import pytest
from channels.exceptions import InvalidChannelLayerError
from django.core.checks import registry

import certificates
from channel_layer import InvalidError, State
from channel_layer._config_check import check_names
from channel_layer.django import ConfigError, RabbitmqChannelLayer
from conftest import ROOT, WAIT

BAD_PEM = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n"
WRONG = {
    "an unknown option": ({"no_such_option": 1}, "no_such_option"),
    "an unknown option that is None": ({"no_such_option": None}, "no_such_option"),
    "an unknown option of any type": ({"no_such_option": [1]}, "no_such_option"),
    "the log": ({"on_log": print}, "on_log"),
    "a host": ({"host": "http://a"}, "host"),
    "a number": ({"expiry": "soon"}, "expiry"),
    "a type": ({"timeout": [1]}, "timeout"),
    "a capacity": ({"local_capacity": 0}, "local_capacity"),
    "a boolean capacity": ({"local_capacity": True}, "local_capacity"),
    "capacities by channel, as of channels_redis": ({"channel_capacity": {"a": 1}}, "channel_cap"),
    "another dispatch": ({"dispatch": "thread"}, "dispatch"),
    "a function": ({"on_state": 1}, "on_state"),
    "a default": ({"default": 1}, "default"),
    "a default that does not exist": ({"default": "channel_layer.nothing"}, "default"),
    "a type of message": ({"on_disconnect": 1}, "on_disconnect"),
    "an empty type of message": ({"on_reconnect": ""}, "on_reconnect"),
    "a key without certificate": ({"tls_key_file": "/dev/null"}, "tls_cert_file"),
    "TLS without encryption": ({"host": "amqp://a", "tls_ca_file": "/dev/null"}, "amqps"),
    "a file that is not there": ({"host": "amqps://a", "tls_ca_file": "/no/file"}, "/no/file"),
    "a file without certificates": (
        {"host": "amqps://a", "tls_ca_file": "/dev/null"},
        "tls_ca_file",
    ),
    "text without certificates": ({"host": "amqps://a", "tls_ca_pem": "none"}, "tls_ca_pem"),
    "a damaged certificate": ({"host": "amqps://a", "tls_ca_pem": BAD_PEM}, "tls_ca_pem"),
    "a host that no certificate is for": (
        {"host": "amqps://1.2.3", "tls_ca_file": __file__},
        "host",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_config_raises_when_the_layer_is_made(what):
    config, named = WRONG[what]
    with pytest.raises(ConfigError, match=named) as raised:
        RabbitmqChannelLayer(**{"host": "memory://config", **config})
    assert isinstance(raised.value, InvalidChannelLayerError)
    assert isinstance(raised.value, InvalidError)


@pytest.mark.parametrize(
    "wrong", [{"expiry": "soon"}, {"local_capacity": 0}, {"default": 1}, {"timeout": [1]}]
)
def test_an_unknown_option_is_named_before_a_wrong_value(wrong):
    with pytest.raises(ConfigError, match="no_such_option"):
        RabbitmqChannelLayer(**{"host": "memory://config", **wrong}, no_such_option=1)


def test_every_option_of_the_library_is_known():
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.split("<!-- options -->")[1].split("<!-- end of options -->")[0]
    names = [row.split("`")[1] for row in table.splitlines() if row.startswith("| `")]
    assert len(names) > 20
    check_names(set(names) - {"host"})  # which is a parameter of the backend


def test_a_right_config_opens_nothing():
    with certificates.Authority() as authority:
        layer = RabbitmqChannelLayer(
            host="amqps://user:password@nowhere.invalid/", default="channel_layer.django.plain",
            tls_ca_file=authority.file, timeout=0.5, heartbeat="10", stall_after=None,
        )  # fmt: skip
    assert layer._owns == {}


# --- Django's system check ------------------------------------------------------------------

OURS = "channel_layer.django.RabbitmqChannelLayer"
LAYERS = {
    "good": {"BACKEND": OURS, "CONFIG": {"host": "memory://good"}},
    "other": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"no_such_option": 1}},
    "wrong": {"BACKEND": OURS, "CONFIG": {"no_such_option": 1}},
    "test": {"BACKEND": OURS, "TEST_CONFIG": {"expiry": "soon"}},
    "pem": {"BACKEND": OURS, "CONFIG": {"host": "amqps://a", "tls_ca_pem": BAD_PEM}},
    "list": {"BACKEND": OURS, "CONFIG": [1]},
    "typo": {"BACKEND": "channel_layer.django.RabbitMQChannelLayer"},
    "empty": {},
}
CHECK = """
import sys
import django
from django.conf import settings
from django.core import checks

installed, layers = eval(sys.argv[1])
settings.configure(INSTALLED_APPS=installed, CHANNEL_LAYERS=layers)
django.setup()
for problem in checks.run_checks():
    print(problem.id, problem.msg)
"""


def check(installed, layers):
    """What the checks of a Django site say: its lines."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, repr((installed, layers))],
        timeout=3 * WAIT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("app", ["channel_layer", "channel_layer.django"])
def test_the_system_check_names_the_layer_and_what_is_wrong_in_it(app):
    lines = check([app], LAYERS)
    for start, alias, what in (
        ("channel_layer.E003", "'wrong'", "no_such_option"),
        ("channel_layer.E003", "'test'", "TEST_CONFIG: option 'expiry'"),
        ("channel_layer.E003", "'pem'", "tls_ca_pem"),
        ("channel_layer.E001", "'list'", "CONFIG"),
        ("channel_layer.E002", "'typo'", "RabbitMQChannelLayer"),
        ("channel_layer.E001", "'empty'", "BACKEND"),
    ):
        assert [each for each in lines if alias in each and start in each and what in each], lines
    assert len(lines) == 6, lines


def test_the_system_check_finds_nothing_in_a_right_site():
    assert check(["channel_layer"], {"default": LAYERS["good"]}) == []
    assert check(["channel_layer"], {}) == []
    assert len(check(["channel_layer"], [1])) == 1


def test_the_check_is_registered_where_the_backend_is_imported():
    names = [each.__name__ for each in registry.registry.registered_checks]
    assert names.count("check_channel_layers") == 1


async def test_state_and_generation_can_be_had(new):
    layer = new()
    await layer.layer.wait_ready(WAIT)
    assert layer.state() is State.READY
    assert layer.generation() == 1
    await layer.close()
    assert layer.state() is State.CLOSED
