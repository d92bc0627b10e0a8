"""For INSTALLED_APPS: "channel_layer" has Django check CHANNEL_LAYERS as it starts."""

from __future__ import annotations

from django.apps import AppConfig


class ChannelLayerConfig(AppConfig):
    name = "channel_layer"
    verbose_name = "Channel layer"

    def ready(self) -> None:
        from . import django  # noqa: F401  (registers the check)
