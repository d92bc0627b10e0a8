# shellcheck shell=bash
# Sourced by run.sh of tests/interop, tests/tls and tests/refusals, whose C programs use the debug
# library: goes to the root of the tree, checks that the library is built, and defines `build`.

set -euo pipefail
suite=$(dirname "$0")
cd "$suite/../.."

target=${CARGO_TARGET_DIR:-target}
library=$target/debug
output=${CHANNEL_LAYER_TEST_OUTPUT:-$target}
read -ra cc <<<"${CC:-cc}"

if [ ! -e "$library/libchannel_layer.so" ]; then
    echo "$suite: there is no $library/libchannel_layer.so; run 'make build' first" >&2
    exit 2
fi

build() { # build SOURCE PROGRAM: prints the program's absolute path
    # Chained, since `set -e` does not reach into a command substitution.
    "${cc[@]}" -std=c11 -Wall -Wextra -Werror -O1 -g -pthread -Iinclude "$1" -o "$output/$2" \
        -L"$library" -lchannel_layer -Wl,-rpath,"$(cd "$library" && pwd)" &&
        echo "$(cd "$output" && pwd)/$2"
}
