#!/bin/bash
# Builds the pages of docs/ into a folder: build.sh OUTPUT_FOLDER. Any warning is an error.
#
# Doxygen reads the header, Sphinx makes pages of that and of the guide. The Python packages go into
# a virtual environment of their own, below the target folder.

set -euo pipefail
cd "$(dirname "$0")/../.."

output=${1:?"usage: build.sh OUTPUT_FOLDER"}
if ! command -v doxygen >/dev/null; then
    echo "build.sh: doxygen is missing; the Debian package doxygen has it" >&2
    exit 1
fi
work=${CHANNEL_LAYER_TEST_OUTPUT:-${CARGO_TARGET_DIR:-target}}/docs-build
environment=$(tests/interop/environment.sh docs-venv docs/site/requirements.txt)
export PYTHON="$environment/bin/python"

"$PYTHON" docs/site/quotes.py --check
# What is left of an earlier build would be taken for a page.
rm -rf "$work" "$output"
mkdir -p "$work"
{
    cat docs/site/Doxyfile
    echo "OUTPUT_DIRECTORY = \"$work\""
} | doxygen -
CHANNEL_LAYER_DOCS_XML=$(cd "$work/xml" && pwd)
export CHANNEL_LAYER_DOCS_XML
"$environment/bin/sphinx-build" --quiet --fail-on-warning --keep-going --jobs auto \
    -c docs/site -d "$work/doctrees" docs "$output"
echo "The pages are in $output; begin with $output/index.html"
