#!/bin/bash
# Builds the wheel, installs it into a fresh environment outside the tree, and uses it there.

set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
wheel=$("${PYTHON:-python3}" "$root/bindings/python/build_wheel.py" "$CHANNEL_LAYER_TEST_LIBRARY" "$scratch")
"${PYTHON:-python3}" -m venv "$scratch/venv"
cd "$scratch"
unset CHANNEL_LAYER_LIBRARY PYTHONPATH LD_LIBRARY_PATH
venv/bin/python -m pip install --quiet --disable-pip-version-check "$wheel"
venv/bin/python -m pip --disable-pip-version-check check
venv/bin/python - <<'END'
import pathlib
import channel_layer
from channel_layer import _library

assert pathlib.Path(_library.path).parent == pathlib.Path(channel_layer.__file__).parent
with channel_layer.Layer(host="memory://wheel") as layer:
    channel = layer.new_channel()
    layer.blocking.send(channel, {"n": 1})
    assert layer.blocking.receive(channel, 5).data == {"n": 1}
print("the wheel works")
END
