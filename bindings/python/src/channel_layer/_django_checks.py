"""The system check of Django for CHANNEL_LAYERS."""

from __future__ import annotations

from django import conf
from django.core.checks import Error, register
from django.utils.module_loading import import_string


def register_check(backend) -> None:
    """Has `manage.py check`, `runserver` and `migrate` say what is wrong in the CONFIG of each
    entry of CHANNEL_LAYERS whose BACKEND is this class, or one made of it."""

    def check_channel_layers(app_configs=None, **kwargs):
        layers = getattr(conf.settings, "CHANNEL_LAYERS", {})
        if not isinstance(layers, dict):
            return [Error("CHANNEL_LAYERS is not a dict", id="channel_layer.E001")]
        problems = []
        for alias, entry in layers.items():
            problems += _problems_of(alias, entry, backend)
        return problems

    register(check_channel_layers, "channel_layer")


def _problems_of(alias, entry, backend):
    where = f"CHANNEL_LAYERS[{alias!r}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("BACKEND"), str):
        yield Error(f"{where} has no BACKEND that is a str", id="channel_layer.E001")
        return
    try:
        kind = import_string(entry["BACKEND"])
    except ImportError as error:
        yield Error(
            f"{where}: BACKEND {entry['BACKEND']!r} cannot be imported: {error}",
            id="channel_layer.E002",
        )
        return
    if not (isinstance(kind, type) and issubclass(kind, backend)):
        return  # what its CONFIG may hold is not known here
    for key in ("CONFIG", "TEST_CONFIG"):
        config = entry.get(key, {})
        if not isinstance(config, dict):
            yield Error(f"{where}: {key} is not a dict", id="channel_layer.E001")
            continue
        try:
            kind(**config)  # which opens no connection
        except (TypeError, ValueError) as error:
            yield Error(f"{where}: {key}: {error}", id="channel_layer.E003")
