#!/bin/bash
# Prints the folder of a virtual environment with the Python packages of a requirements file, below
# the target folder; makes it if it is not there: environment.sh [NAME REQUIREMENTS]

set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${CARGO_TARGET_DIR:-target}/${1:-interop-venv}
requirements=${2:-tests/interop/requirements.txt}

# Stages that run beside each other share environments: whoever comes second waits, and finds it made.
mkdir -p "$(dirname "$environment")"
exec 9>"$environment.lock"
flock 9
# The copy is made last, so that an installation that broke off is begun again.
if ! cmp -s "$requirements" "$environment/requirements.txt" ||
    ! "$environment/bin/python" --version >/dev/null 2>&1; then
    rm -rf "$environment"
    "${PYTHON:-python3}" -m venv "$environment"
    timeout 300 "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$requirements" >&2
    cp "$requirements" "$environment/requirements.txt"
fi
echo "$environment"
