#!/bin/sh
# Runs the tests of the Ruby binding; tests/bindings/README.md says what it finds in the environment.
set -u
cd "$(dirname "$0")/.." || exit 1
. ../../tests/bindings/environment.sh
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
status=0
{ timeout -k 5 600 ruby -w -I tests -e 'Dir["tests/test_*.rb"].sort.each { |file| require "./#{file}" }' \
    2>&1; echo "status=$?"; } | tee "$output"
status=$(sed -n 's/^status=//p' "$output" | tail -n 1)
# 60 runs, 300 assertions, 0 failures, 0 errors, 0 skips
line=$(sed -n 's/^\([0-9]*\) runs, [0-9]* assertions, \([0-9]*\) failures, \([0-9]*\) errors, \([0-9]*\) skips$/\1 \2 \3 \4/p' \
    "$output" | tail -n 1)
[ -n "$line" ] || { echo "0 passed, 1 failed"; exit 1; }
# shellcheck disable=SC2086 # four numbers
set -- $line
failed=$(($2 + $3))
passed=$(($1 - failed - $4))
echo "$passed passed, $failed failed, $4 skipped"
[ "$status" = 0 ] && [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
