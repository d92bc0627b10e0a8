#!/bin/bash
# Builds the pages of docs/, and holds them against the library: run.sh [TEST...], as
# test_docs.Examples. Needs the debug library, and in CHANNEL_LAYER_TEST_AMQP the URL of a RabbitMQ
# node (`make test STAGES="build docs"` provides both); starts one more for TLS.

set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    echo "tests/docs: CHANNEL_LAYER_TEST_AMQP names no broker; start this by 'make test STAGES=docs'" >&2
    exit 2
fi
if [ ! -e "${CARGO_TARGET_DIR:-target}/debug/libchannel_layer.so" ]; then
    echo "tests/docs: there is no debug library; run 'make build' first" >&2
    exit 2
fi

CHANNEL_LAYER_TEST_INTEROP=$(tests/interop/environment.sh)/bin/python
export CHANNEL_LAYER_TEST_INTEROP
# Here, since the tests bound what they run by less than a download may take.
tests/interop/environment.sh docs-venv docs/site/requirements.txt >/dev/null
exec timeout -k 10 300 "${PYTHON:-python3}" tests/docs/test_docs.py "$@"
