#!/bin/bash
# Runs the tests of the wire on a big-endian machine, s390x, which QEMU plays: run.sh
#
# It takes QEMU, a C compiler that links for s390x, and the standard library of Rust for it. The
# tests that try random cases try fewer than elsewhere; PROPTEST_CASES says how many.

set -euo pipefail
cd "$(dirname "$0")/../.."

tests/deps.sh big-endian
cargo=${CARGO:-cargo}
machine=s390x-unknown-linux-gnu
target=${CARGO_TARGET_DIR:-target}
case $target in
/*) ;;
*) target=$PWD/$target ;;
esac
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$machine" ]; then
    echo "big-endian: there is no standard library of Rust for $machine;" \
        "'rustup target add $machine' brings it" >&2
    exit 1
fi
export CARGO_TARGET_DIR=$target/big-endian
export CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER=s390x-linux-gnu-gcc
export CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_RUNNER="qemu-s390x -L /usr/s390x-linux-gnu"
export PROPTEST_CASES=${PROPTEST_CASES:-32}
cd tests/big_endian
exec "$cargo" test --locked --lib --target "$machine"
