#!/bin/sh
# Gives the module another path: rename_module.sh PATH, as example.org/channel-layer/bindings/go. For
# `go get` PATH has to be where the repository is, and then this folder in it.
#
# go.mod alone says what the path is; Go wants it in each import, too.
set -eu
cd "$(dirname "$0")"

new=$1
old=$(sed -n 's/^module //p' go.mod)
grep -rlF "$old" --include=go.mod --include='*.go' --include=README.md . | while read -r file; do
    sed "s|$old|$new|g" "$file" >"$file.renamed"
    cat "$file.renamed" >"$file" # which keeps its mode
    rm "$file.renamed"
done
