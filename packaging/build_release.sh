#!/bin/sh
# Builds the release profile so that the same source gives the same bytes wherever it is built:
# build_release.sh [CARGO ARGUMENT...]
#
# rustc and the C compiler of crate `ring` write the paths of what they compile into debug
# information and into the texts of panics. Those of this machine are replaced by names that are the
# same on each: of this folder, of the target folder, of cargo's home and of the Rust sources.
# Needed beside that: the same compilers, and the crates of Cargo.lock from the same registry.
# RUSTFLAGS and CFLAGS of the environment are kept.

set -eu
cd "$(dirname "$0")/.."

source=$(pwd -P)
target=${CARGO_TARGET_DIR:-target}
case $target in
/*) ;;
*) target=$source/$target ;;
esac
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustc=${RUSTC:-rustc}
commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')

# Where two match, rustc and gcc take the last: the target folder is often within the source folder.
rust_flags=""
c_flags=${CFLAGS:-}
separator=$(printf '\037') # what cargo has for flags that may hold blanks
for word in ${RUSTFLAGS:-}; do
    rust_flags=$rust_flags${rust_flags:+$separator}$word
done
rename() { # rename FOLDER NAME
    rust_flags=$rust_flags${rust_flags:+$separator}--remap-path-prefix=$1=$2
    c_flags="$c_flags${c_flags:+ }'-ffile-prefix-map=$1=$2'"
}
rename "$cargo_home" /cargo
rename "$source" /channel-layer
rename "$target" /channel-layer/target
rename "$("$rustc" --print sysroot)/lib/rustlib/src/rust" "/rustc/$commit"

# The C flags are quoted, as folders may have blanks in their names.
export CARGO_ENCODED_RUSTFLAGS="$rust_flags" CFLAGS="$c_flags" CC_SHELL_ESCAPED_FLAGS=1
# shellcheck disable=SC2086  # it may be words, as "cargo +stable"
exec ${CARGO:-cargo} build --locked --release "$@"
