#!/bin/bash
# Brokers that refuse a message, a right or a layer, on RabbitMQ nodes that it starts itself:
# run.sh [FILE[.CLASS[.TEST]]...]. Needs the debug library, which `make test STAGES="build refusals"`
# provides.

# shellcheck source=tests/interop/peer.sh
. "$(dirname "$0")/../interop/peer.sh"

CHANNEL_LAYER_TEST_PEER=$(build tests/interop/peer.c refusals-peer)
CHANNEL_LAYER_TEST_STORM=$(build tests/refusals/storm.c refusals-storm)
export CHANNEL_LAYER_TEST_PEER CHANNEL_LAYER_TEST_STORM
export PYTHONPATH=tests/refusals:tests/fixture
[ $# -gt 0 ] || set -- test_refusals test_links test_private_exchange
exec timeout -k 10 1800 "${PYTHON:-python3}" -m unittest --verbose "$@"
