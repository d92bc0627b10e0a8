#!/bin/bash
# The C API over TLS, against RabbitMQ nodes that it starts itself: run.sh [TEST...]. Needs the
# debug library (`make test STAGES="build tls"` provides it).

set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
library=$target/debug
read -ra cc <<<"${CC:-cc}"

if [ ! -e "$library/libchannel_layer.so" ]; then
    echo "tests/tls: there is no $library/libchannel_layer.so; run 'make build' first" >&2
    exit 2
fi

# The process with a layer is the one that also talks to Python.
"${cc[@]}" -std=c11 -Wall -Wextra -Werror -O1 -g -pthread -Iinclude tests/interop/peer.c \
    -o "$target/tls-peer" -L"$library" -lchannel_layer -Wl,-rpath,"$(cd "$library" && pwd)"

export CHANNEL_LAYER_TEST_PEER=$target/tls-peer
exec timeout -k 10 600 "${PYTHON:-python3}" tests/tls/test_tls.py --verbose "$@"
