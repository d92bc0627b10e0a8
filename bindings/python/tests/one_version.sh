#!/bin/bash
# The tests of the Python binding on one interpreter: one_version.sh PYTHON NAME [PYTEST ARGUMENT...]
#
# tests/bindings/README.md says what it finds in the environment. The packages go into the virtual
# environment NAME below the target folder; once they are there, nothing is asked of the network.
# Closes with "N passed, N failed".

set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1

. tests/bindings/environment.sh
interpreter=$1
environment_name=$2
shift 2
requirements=bindings/python/tests/requirements.txt
environment=$(PYTHON=$interpreter tests/interop/environment.sh "$environment_name" "$requirements") || exit 1
environment=$(cd "$environment" && pwd)
python=$environment/bin/python
results=$(mktemp) || exit 1
trap 'rm -f "$results"' EXIT

# What the wheel asks for, for a fresh environment. Another run may want them too.
wheels=$environment/wheels
exec 9>"$environment/wheels.lock"
flock 9
if [ ! -e "$wheels/complete" ]; then
    grep -E '^(msgpack|channels|Django)==' "$requirements" >"$environment/wheels.txt"
    timeout 300 "$python" -m pip download --quiet --disable-pip-version-check --dest "$wheels" \
        --requirement "$environment/wheels.txt" || exit 1
    touch "$wheels/complete"
fi
exec 9>&-

export CHANNEL_LAYER_LIBRARY=$CHANNEL_LAYER_TEST_LIBRARY
export CHANNEL_LAYER_TEST_WHEELS=$wheels
export PYTHONPATH=$PWD/bindings/python/src
export PYTHONDONTWRITEBYTECODE=1
timeout -k 10 600 "$python" -m pytest -c bindings/python/pyproject.toml -p no:cacheprovider \
    --junit-xml "$results" bindings/python/tests "$@"
status=$?
[ "$status" -lt 124 ] || echo # what was ended left its line open

"$python" - "$results" "$status" <<'END'
import sys
import xml.etree.ElementTree as tree

try:
    suite = tree.parse(sys.argv[1]).find(".//testsuite")
    total, failed, errors, skipped = (
        int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")
    )
except (FileNotFoundError, xml.etree.ElementTree.ParseError):  # it was ended before it could write them
    total, failed, errors, skipped = 1, 1, 0, 0
passed = total - failed - errors - skipped
print(f"{passed} passed, {failed + errors} failed" + (f", {skipped} skipped" if skipped else ""))
sys.exit(int(sys.argv[2]) or (0 if passed > 0 and failed + errors == 0 else 1))
END
