#!/bin/sh
# Prints the first C example of README.md: what stands between "```c" and "```".
#
# Usage: extract_readme_example.sh [README.md]
set -eu

readme=${1:-$(dirname "$0")/../../README.md}
[ -r "$readme" ] || {
    echo "extract_readme_example.sh: cannot read $readme" >&2
    exit 1
}
awk '
    /^```c[ \t]*$/ && !begun { begun = 1; next }
    /^```[ \t]*$/ && begun   { ended = 1; exit }
    begun                    { print }
    END {
        if (!ended) {
            print "extract_readme_example.sh: README.md has no whole ```c block" > "/dev/stderr"
            exit 1
        }
    }
' "$readme"
