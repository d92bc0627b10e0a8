#!/bin/bash
# C and Python on one broker: run.sh [TEST...], as test_interop.Groups. Needs the debug library, and in
# CHANNEL_LAYER_TEST_AMQP the URL of a RabbitMQ node (`make test STAGES="build interop"` provides
# both). The Python package goes into a virtual environment of its own, below the target folder.

# shellcheck source=tests/interop/peer.sh
. "$(dirname "$0")/peer.sh"

if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    echo "tests/interop: CHANNEL_LAYER_TEST_AMQP names no broker;" \
        "start this by 'make test STAGES=interop'" >&2
    exit 2
fi

environment=$(tests/interop/environment.sh)
"$environment/bin/python" -m pip --disable-pip-version-check list

[ $# -gt 0 ] || set -- test_interop test_hostile test_statistics
CHANNEL_LAYER_TEST_PEER=$(build tests/interop/peer.c interop-peer)
export CHANNEL_LAYER_TEST_PEER
# What the packages log and warn of is shown with a failure, and else hides the results.
export PYTHONPATH=tests/interop
exec timeout -k 10 300 "$environment/bin/python" -W ignore -m unittest --buffer --verbose "$@"
