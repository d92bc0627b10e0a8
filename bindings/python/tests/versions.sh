#!/bin/bash
# The tests of the Python binding on every version of Python that it is for and that is found here:
#
#   versions.sh [PYTEST ARGUMENT...]           all of them, in some minutes
#   versions.sh --default [PYTEST ARGUMENT...] the default Python (PYTHON, or python3), and in short
#                                              the oldest version, which is what CI runs
#   versions.sh --list                         prints the versions: those of pyproject.toml
#
# A version is looked for as pythonX.Y on PATH and among pyenv's. Without CHANNEL_LAYER_TEST_AMQP it
# starts a RabbitMQ node for itself. Closes with a table and "N passed, N failed".

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
logs=$(mkdir -p "$target/test-logs" && cd "$target/test-logs" && pwd) || exit 1
CHANNEL_LAYER_TEST_LIBRARY=${CHANNEL_LAYER_TEST_LIBRARY:-$(cd "$target/debug" && pwd)} || exit 1
if [ -z "${CHANNEL_LAYER_TEST_API:-}" ]; then
    CHANNEL_LAYER_TEST_API=$logs/api.json
    "$default" tests/bindings/api.py >"$CHANNEL_LAYER_TEST_API" || exit 1
fi
export CHANNEL_LAYER_TEST_LIBRARY CHANNEL_LAYER_TEST_API

version_of() { # version_of INTERPRETER: as "3.11"; nothing where it does not run
    "$1" -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null
}

find_python() { # find_python VERSION: prints an interpreter of it, the newest of pyenv's
    local candidate pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions
    while read -r candidate; do
        if [ "$(version_of "$candidate")" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done < <(
        echo "python$1"
        find "$pyenv" -maxdepth 1 -name "$1.*" -printf '%p/bin/python\n' 2>/dev/null | sort -rV
    )
    return 1
}

table=()
passed=0
failed=0
run_on() { # run_on VERSION INTERPRETER ENVIRONMENT [PYTEST ARGUMENT...]
    local version=$1 log=$logs/python-$1.log began=$SECONDS line
    shift
    echo "==== Python $version: $1"
    "$here/one_version.sh" "$@" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]}
    line=$(tail -n 1 "$log")
    if ! [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
        line="0 passed, 1 failed (it did not run)"
        [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]
    fi
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
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
    oldest=${versions[0]}
    if [ "$oldest" = "$own" ]; then
        :
    elif interpreter=$(find_python "$oldest"); then
        # The table of cases has one line for each, which is the default Python's.
        unset CHANNEL_LAYER_TEST_TABLE
        run_on "$oldest" "$interpreter" "python-venv-$oldest" -m "not slow" "$@"
    else
        table+=("$oldest: not found here")
    fi
else
    for version in "${versions[@]}"; do
        if [ "$version" = "$own" ]; then
            run_on "$version" "$default" python-venv "$@"
        elif interpreter=$(find_python "$version"); then
            run_on "$version" "$interpreter" "python-venv-$version" "$@"
        else
            table+=("$version: not found here")
        fi
    done
fi

echo
echo "==== by version of Python"
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
