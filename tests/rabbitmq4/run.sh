#!/bin/bash
# Runs on RabbitMQ 4 what meets the broker: run.sh VERSION..., such as 4.3 or 4.0-short.
#
# Each version, with nodes of that RabbitMQ alone:
#   in full   the tests of src/broker/rabbitmq, all C tests, interop with Python, and the rows of
#             tests/faults that CHANNEL_LAYER_FAULTS_ROWS names, in their short form
#   in short  the tests of src/broker/rabbitmq and the conformance list
#
# Exit status 3: no test failed, but this machine cannot make the root of a version; a line
# `skipped: REASON` for each of those is at the end.

set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}

beside_a_node() { # beside_a_node VERSION STAGE...
    local version=$1 broker
    shift
    broker=$("$python" tests/rabbitmq4/server_version.py "$CHANNEL_LAYER_TEST_AMQP")
    echo "the broker says that it is $broker"
    # The Debian release of a version may move on to the next one.
    if [[ $broker != "RabbitMQ $version."* ]]; then
        echo "rabbitmq4: this is no RabbitMQ $version; see tests/rabbitmq4/make_root.sh" >&2
        exit 1
    fi
    export CHANNEL_LAYER_TEST_LOGS=$CHANNEL_LAYER_TEST_OUTPUT/test-logs/rabbitmq-$version
    # What differs between versions are answers, not races: a tenth of these shows as much.
    export CHANNEL_LAYER_TEST_RACES=${CHANNEL_LAYER_TEST_RACES:-500}
    export CHANNEL_LAYER_C_TEST_BROKERS=rabbitmq
    exec tests/run.sh "$@"
}

if [ "${1:-}" = --beside-a-node ]; then
    shift
    beside_a_node "$@"
fi
if [ $# -eq 0 ]; then
    echo "usage: run.sh VERSION[-short]..." >&2
    exit 2
fi

. tests/output.sh

result=0
skipped=()
for chosen in "$@"; do
    version=${chosen%-short}
    stages=(build broker)
    if [ "$chosen" != "$version" ]; then
        stages+=(conformance)
    else
        stages+=(c interop)
        [ -z "${CHANNEL_LAYER_FAULTS_ROWS:-}" ] || stages+=(faults)
    fi
    echo "######## RabbitMQ $version: ${stages[*]}"
    status=0
    said=$(tests/rabbitmq4/make_root.sh "$version" 2>&1 >/dev/null) || status=$?
    [ -z "$said" ] || echo "$said"
    if [ "$status" -eq 3 ]; then
        skipped+=("${said##*$'\n'}")
        continue
    elif [ "$status" -eq 0 ]; then
        CHANNEL_LAYER_RABBITMQ_SERVER=$PWD/tests/rabbitmq4/bin/$version/rabbitmq-server \
            "$python" tests/fixture/rabbitmq.py run -- \
            "$0" --beside-a-node "$version" "${stages[@]}" || status=$?
    fi
    # A signal ends all of it.
    [ "$status" -le 128 ] || exit "$status"
    [ "$status" -eq 0 ] || result=1
done
[ "$result" -ne 0 ] || forget_own_output
if [ "$result" -eq 0 ] && [ ${#skipped[@]} -gt 0 ]; then
    result=3
fi
[ ${#skipped[@]} -eq 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
exit "$result"
