#!/bin/bash
# Runs on RabbitMQ 4 what meets the broker: its Rust tests, the C tests, and interop with Python;
# then the named rows of tests/faults in their short form: run.sh [ROW...]
#
# Exit status 3 is make_root.sh's: this machine cannot run RabbitMQ 4, and the last line says why.

set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}

if [ "${1:-}" != --beside-a-node ]; then
    tests/rabbitmq4/make_root.sh >/dev/null
    export CHANNEL_LAYER_RABBITMQ_SERVER=$PWD/tests/rabbitmq4/bin/rabbitmq-server
    "$python" tests/fixture/rabbitmq.py run -- "$0" --beside-a-node
    if [ $# -gt 0 ]; then
        "$python" tests/faults/run.py --short "$@"
    fi
    exit
fi

version=$("$python" tests/rabbitmq4/server_version.py "$CHANNEL_LAYER_TEST_AMQP")
echo "the broker says that it is $version"
if [[ $version != "RabbitMQ 4."* ]]; then
    echo "rabbitmq4: these tests are for RabbitMQ 4" >&2
    exit 1
fi
export CHANNEL_LAYER_TEST_LOGS=${CARGO_TARGET_DIR:-target}/test-logs/rabbitmq4
# What differs between versions are answers, not races: a tenth of these shows as much.
export CHANNEL_LAYER_TEST_RACES=${CHANNEL_LAYER_TEST_RACES:-500}
export CHANNEL_LAYER_C_TEST_BROKERS=rabbitmq
exec tests/run.sh build broker c interop
