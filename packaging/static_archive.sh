#!/bin/sh
# Makes one object of the static library that cargo has built: static_archive.sh FILE.a
#
# rustc puts all crates and the standard library into it, with LLVM's bitcode beside the machine code and
# with 160 global names of Rust's own. Two such libraries of Rust in one program clash, and half of the
# file is of use to rustc alone. What is left is what the exported functions need, with their names.

set -eu

archive=$1
objcopy=${OBJCOPY:-objcopy}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Before anything else reads it: where binutils have LLVM's plugin, they would take the bitcode for the
# object.
"$objcopy" --remove-section=.llvmbc --remove-section=.llvmcmd "$archive" "$folder/all.a"
"${NM:-nm}" --extern-only --defined-only "$folder/all.a" 2>/dev/null |
    awk '$2 == "T" && $3 ~ /^layer_/ { print $3 }' | LC_ALL=C sort -u >"$folder/exports"
if [ ! -s "$folder/exports" ]; then
    echo "static_archive.sh: $archive exports no layer_*" >&2
    exit 1
fi
# Groups are dissolved: a linker would take this object's member of one for that of another library,
# which it cannot see.
# shellcheck disable=SC2046  # a word for each name
"${LD:-ld}" -r --gc-sections --force-group-allocation $(sed 's/^/-u /' "$folder/exports") "$folder/all.a" \
    -o "$folder/channel_layer.o"
"$objcopy" --keep-global-symbols="$folder/exports" "$folder/channel_layer.o"
# D: no dates, no users, so that the same objects give the same bytes.
"${AR:-ar}" rcsD "$folder/one.a" "$folder/channel_layer.o"
chmod 644 "$folder/one.a"
# Not written over: cargo has another link to the file.
mv -f "$folder/one.a" "$archive"
