#!/bin/bash
# The tests of the Python binding on every version of Python that it is for and that is found here:
#
#   versions.sh [PYTEST ARGUMENT...]           all of them, in some minutes
#   versions.sh --default [PYTEST ARGUMENT...] the default Python (PYTHON, or python3), and in short
#                                              the oldest that is found, which is what CI runs
#   versions.sh --list                         prints the versions: those of pyproject.toml
#
# A version is looked for as pythonX.Y on PATH and among pyenv's; it must be able to make virtual
# environments. Without CHANNEL_LAYER_TEST_AMQP it starts a RabbitMQ node for itself. Closes with a
# table and "N passed, N failed", where tests were skipped with ", N skipped" too.

set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.." || exit 1
default=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-target}

mapfile -t versions < <(
    sed -n 's/^ *"Programming Language :: Python :: \(3\.[0-9]*\)",$/\1/p' bindings/python/pyproject.toml
)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${versions[@]}"
    exit
fi

if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    exec "$default" tests/fixture/rabbitmq.py run -- "$here/versions.sh" "$@"
fi
logs=${CHANNEL_LAYER_TEST_OUTPUT:-$target}/test-logs
logs=$(mkdir -p "$logs" && cd "$logs" && pwd) || exit 1
CHANNEL_LAYER_TEST_LIBRARY=${CHANNEL_LAYER_TEST_LIBRARY:-$(cd "$target/debug" && pwd)} || exit 1
if [ -z "${CHANNEL_LAYER_TEST_API:-}" ]; then
    CHANNEL_LAYER_TEST_API=$logs/api.json
    "$default" tests/bindings/api.py >"$CHANNEL_LAYER_TEST_API" || exit 1
fi
export CHANNEL_LAYER_TEST_LIBRARY CHANNEL_LAYER_TEST_API

version_of() { # version_of INTERPRETER: as "3.11"; nothing where it does not run
    "$1" -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null
}

find_python() { # find_python VERSION: `found`, the newest of pyenv's; or `lacks`, why there is none
    local candidate pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions
    found=
    lacks="not found here"
    while read -r candidate; do
        [ "$(version_of "$candidate")" = "$1" ] || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 </dev/null; then
            found=$candidate
            return
        fi
        lacks="found, but cannot make environments: $candidate lacks ensurepip or venv"
    done < <(
        echo "python$1"
        find "$pyenv" -maxdepth 1 -name "$1.*" -printf '%p/bin/python\n' 2>/dev/null | sort -rV
    )
    return 1
}

table=()
passed=0
failed=0
skipped=0
run_on() { # run_on VERSION INTERPRETER ENVIRONMENT [PYTEST ARGUMENT...]
    local version=$1 log=$logs/python-$1.log began=$SECONDS line
    shift
    echo "==== Python $version: $1"
    "$here/one_version.sh" "$@" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]}
    line=$(tail -n 1 "$log")
    local counts='^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?'
    if ! [[ $line =~ $counts ]]; then
        line="0 passed, 1 failed (it did not run)"
        [[ $line =~ $counts ]]
    fi
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    skipped=$((skipped + ${BASH_REMATCH[4]:-0}))
    if [ "$status" -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ]; then
        failed=$((failed + 1))
        line="$line, and status $status"
    fi
    table+=("$version: $line, in $((SECONDS - began)) s")
}

own=$(version_of "$default")
if [ "${1:-}" = --default ]; then
    shift
    run_on "$own" "$default" python-venv "$@"
    for version in "${versions[@]}"; do
        [ "$version" != "$own" ] || break
        if find_python "$version"; then
            # The table of cases has one line for each, which is the default Python's.
            unset CHANNEL_LAYER_TEST_TABLE
            run_on "$version" "$found" "python-venv-$version" -m "not slow" "$@"
            break
        fi
        table+=("$version: $lacks")
    done
else
    for version in "${versions[@]}"; do
        if [ "$version" = "$own" ]; then
            run_on "$version" "$default" python-venv "$@"
        elif find_python "$version"; then
            run_on "$version" "$found" "python-venv-$version" "$@"
        else
            table+=("$version: $lacks")
        fi
    done
fi

echo
echo "==== by version of Python"
printf '%s\n' "${table[@]}"
closing="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || closing="$closing, $skipped skipped"
echo "$closing"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
