"""A site for a server that forks its workers after it has loaded the site.

`prefork_site:application`, or with a layer that the parent used before, `prefork_site:used()`. Each
request uses the layer that Channels made when this was imported, and tells what became of it.
"""

import json
import os

import django
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channel_layer.django.RabbitmqChannelLayer",
            "CONFIG": {"host": os.environ["CHANNEL_LAYER_TEST_AMQP"]},
        }
    }
)
django.setup()

layer = get_channel_layer()
loaded_by = os.getpid()


def application(_environment, start_response):
    assert get_channel_layer() is layer
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("prefork", channel)
    async_to_sync(layer.send)(channel, {"pid": os.getpid()})
    got = async_to_sync(layer.receive)(channel)
    async_to_sync(layer.group_discard)("prefork", channel)
    answer = {"loaded_by": loaded_by, "pid": os.getpid(), "channel": channel, "got": got}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


class Used:
    """The same, after one request that the parent has made to itself."""

    def __init__(self):
        self.parent = json.loads(b"".join(application({}, lambda *_: None)))

    def __call__(self, environment, start_response):
        answer = json.loads(b"".join(application(environment, start_response)))
        return [json.dumps({**answer, "parent": self.parent}).encode()]


def used():
    return Used()
