#!/bin/bash
# Brokers that refuse a message, a right or a layer, on RabbitMQ nodes that it starts itself:
# run.sh [FILE[.CLASS[.TEST]]...]. Needs the debug library, which `make test STAGES="build refusals"`
# provides.

set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
library=$target/debug
read -ra cc <<<"${CC:-cc}"

if [ ! -e "$library/libchannel_layer.so" ]; then
    echo "tests/refusals: there is no $library/libchannel_layer.so; run 'make build' first" >&2
    exit 2
fi

build() { # build SOURCE PROGRAM
    "${cc[@]}" -std=c11 -Wall -Wextra -Werror -O1 -g -pthread -Iinclude "$1" -o "$2" \
        -L"$library" -lchannel_layer -Wl,-rpath,"$(cd "$library" && pwd)"
}

build tests/interop/peer.c "$target/refusals-peer"
build tests/refusals/storm.c "$target/refusals-storm"

CHANNEL_LAYER_TEST_PEER=$target/refusals-peer
CHANNEL_LAYER_TEST_STORM=$target/refusals-storm
export CHANNEL_LAYER_TEST_PEER CHANNEL_LAYER_TEST_STORM
export PYTHONPATH=tests/refusals:tests/fixture
[ $# -gt 0 ] || set -- test_refusals test_links
exec timeout -k 10 900 "${PYTHON:-python3}" -m unittest --verbose "$@"
