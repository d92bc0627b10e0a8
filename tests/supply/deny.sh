#!/bin/bash
# Holds the dependencies against deny.toml: deny.sh [CHECK...], which are licenses, bans and sources
# if it names none; CARGO_DENY_CONFIG is another file to hold them against, CARGO_DENY_MANIFEST the
# Cargo.toml of another crate.
#
# The check `advisories` fetches the database of RustSec, and what it says changes from day to day.
#
# A cargo-deny that is installed is used; else the one of requirements.txt, in a virtual environment
# below the target folder.

set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v cargo-deny >/dev/null; then
    environment=$(tests/interop/environment.sh supply-venv tests/supply/requirements.txt)
    PATH=$(cd "$environment/bin" && pwd):$PATH
fi
checks=("$@")
[ ${#checks[@]} -gt 0 ] || checks=(licenses bans sources)
exec cargo-deny --locked --workspace --manifest-path "${CARGO_DENY_MANIFEST:-Cargo.toml}" \
    --config "${CARGO_DENY_CONFIG:-deny.toml}" check --hide-inclusion-graph "${checks[@]}"
