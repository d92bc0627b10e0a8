#!/bin/bash
# What `make lint` and the stages `fmt` and `clippy` check: lint.sh [format|clippy]; both without an
# argument. `lint.sh mend` is `make fmt`: it formats what the first would complain of.
#
# Everything is looked at even after something was found, so that one run shows all there is to mend.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

cargo=${CARGO:-cargo}
status=0
check() { # check COMMAND...
    if ! command -v "$1" >/dev/null; then
        echo "lint: $1 is missing; 'make deps' installs it" >&2
        status=1
    elif ! "$@"; then
        status=1
    fi
}

# Neither can be content because it looked at nothing.
mapfile -t c_files < <(make --no-print-directory c-sources)
mapfile -t shell_files < <(git ls-files -z --cached --others --exclude-standard |
    xargs -0 grep -lE '^#(!/bin/(ba)?sh$| shellcheck shell=)')
if [ ${#c_files[@]} -eq 0 ] || [ ${#shell_files[@]} -eq 0 ]; then
    echo "lint.sh: no C or no shell files were found; this needs a git checkout" >&2
    exit 1
fi

# In the version that the tests of the binding name, and without all else that they need.
ruff() {
    local pinned=${CHANNEL_LAYER_TEST_OUTPUT:-${CARGO_TARGET_DIR:-target}}/ruff.txt environment
    mkdir -p "$(dirname "$pinned")" &&
        grep '^ruff==' bindings/python/tests/requirements.txt >"$pinned" &&
        environment=$(tests/interop/environment.sh lint-venv "$pinned") || return
    "$environment/bin/ruff" "$@" --no-cache --config bindings/python/pyproject.toml bindings/python
}

check_format() {
    check "$cargo" fmt --all --check
    check "$cargo" fmt --manifest-path fuzz/Cargo.toml --check
    check clang-format --dry-run -Werror "${c_files[@]}"
    check ruff format --check
    check ruff check
    check rubocop --config bindings/ruby/.rubocop.yml --format quiet bindings/ruby
    check shellcheck --external-sources --severity warning "${shell_files[@]}"
}

# Several runs, so that features which one asks for do not count for the others.
check_clippy() {
    check "$cargo" clippy --locked --workspace --exclude channel-layer-pure --all-targets -- -D warnings
    check "$cargo" clippy --locked --lib --tests --features tracing -- -D warnings
    check "$cargo" clippy --locked --all-targets --package channel-layer-pure -- -D warnings
}

mend() {
    check "$cargo" fmt --all
    check "$cargo" fmt --manifest-path fuzz/Cargo.toml
    check clang-format -i "${c_files[@]}"
    check ruff format
}

case ${1:-all} in
format) check_format ;;
clippy) check_clippy ;;
all)
    check_format
    check_clippy
    ;;
mend) mend ;;
*)
    echo "lint.sh: there is no '$1'; there are: format clippy mend" >&2
    exit 2
    ;;
esac
exit "$status"
