#!/bin/sh
# Runs the tests of the Go binding: go vet, gofmt, go test -race, with further arguments for go test.
# tests/bindings/README.md says what it finds in the environment. Its last line counts the tests.
set -eu
cd "$(dirname "$0")/.."
. ../../tests/bindings/environment.sh

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
. tests/environment.sh

if grep -n '^replace' go.mod; then
    echo "go.mod names folders of one machine"
    exit 1
fi

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
    echo "gofmt would change: $unformatted"
    exit 1
fi
go vet ./...
status=0
# In one package one after the other: the bounds on time are for a machine that does one thing.
go test -race -count=1 -v -timeout 600s "$@" ./... >"$scratch/output" 2>&1 || status=$?
grep -v -e '^=== ' "$scratch/output" || true

# A test that has subtests is not one more.
awk -v status="$status" '
    $1 == "---" { outcome[$3] = $2; sub(":", "", outcome[$3]) }
    END {
        for (name in outcome) {
            parent = name
            while (sub("/[^/]*$", "", parent)) { parents[parent] = 1 }
        }
        for (name in outcome) {
            if (!(name in parents)) { count[outcome[name]]++ }
        }
        # What ended before it could say so, or did not compile, has failed too.
        if (status != 0 && count["FAIL"] == 0) { count["FAIL"] = 1 }
        printf "%d passed, %d failed", count["PASS"], count["FAIL"]
        if (count["SKIP"] > 0) { printf ", %d skipped", count["SKIP"] }
        printf "\n"
        exit !(status == 0 && count["FAIL"] == 0 && count["PASS"] > 0)
    }' "$scratch/output"
