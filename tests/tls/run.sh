#!/bin/bash
# The C API over TLS, against RabbitMQ nodes that it starts itself: run.sh [TEST...]. Needs the
# debug library (`make test STAGES="build tls"` provides it).

# shellcheck source=tests/interop/peer.sh
. "$(dirname "$0")/../interop/peer.sh"

# The process with a layer is the one that also talks to Python.
CHANNEL_LAYER_TEST_PEER=$(build tests/interop/peer.c tls-peer)
export CHANNEL_LAYER_TEST_PEER
exec timeout -k 10 600 "${PYTHON:-python3}" tests/tls/test_tls.py --verbose "$@"
