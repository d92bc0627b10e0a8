"""Layers that come and go, as many as in a day of connecting and closing."""

import process

SCENARIO = "10,000 layers opened, used and freed, four at once, in both dispatch modes"


def run(report, short):
    layers = 200 if short else 10000
    with process.broker(short) as (url, _):
        process.run(report, "layers_opened_and_closed", process.MEMORY, layers, limit=600,
                    label="memory")
        process.run(report, "layers_opened_and_closed", url, layers, limit=3600, label="rabbitmq")
