#!/bin/sh
# relative_path.sh FROM TO: prints the way from one absolute folder to another. It does not look at
# the disk, since neither need exist yet.

set -eu
for folder in "$1" "$2"; do
    case $folder/ in
    */../* | */./*) ;;
    /*) continue ;;
    esac
    echo "relative_path.sh: '$folder' is to be an absolute path, without '.' and '..'" >&2
    exit 1
done
from=$(printf '%s\n' "$1" | sed -e 's|//*|/|g' -e 's|/$||')
to=$(printf '%s\n' "$2" | sed -e 's|//*|/|g' -e 's|/$||')
up=""
while :; do
    case $to/ in
    "$from"/*) break ;;
    esac
    from=${from%/*}
    up=$up../
done
down=${to#"$from"}
down=${down#/}
echo "$up${down:-.}"
