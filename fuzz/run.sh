#!/bin/bash
# Runs the fuzzers one after the other: run.sh, with these in the environment:
#
#     FUZZ_SECONDS   how long each runs (600); 0 only runs the committed corpora
#     TARGET         one of them alone
#     MINIMISE=yes   afterwards puts the smallest corpus of the same coverage in place of the
#                    committed one, for what was found to be kept
#
# What is new goes into the target folder, an input that breaks something into fuzz/artifacts.
# Exits with 1 where there is one. Works with a stable toolchain.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

seconds=${FUZZ_SECONDS:-600}
targets=(wire options names json amqp c_api)
max_files=50

if [ -n "${TARGET:-}" ]; then
    if [[ " ${targets[*]} " != *" $TARGET "* ]]; then
        echo "fuzz: there is no target '$TARGET'; there are: ${targets[*]}" >&2
        exit 2
    fi
    targets=("$TARGET")
fi
if ! [[ $seconds =~ ^[0-9]+$ ]]; then
    echo "fuzz: SECONDS is '$seconds'; it must be a whole number" >&2
    exit 2
fi
if ! "${CARGO:-cargo}" fuzz --version >/dev/null 2>&1; then
    echo "fuzz: cargo-fuzz is missing; install it by: cargo install cargo-fuzz --locked" >&2
    exit 2
fi

# The sanitizer and the coverage are switches that a stable compiler keeps for itself else.
export RUSTC_BOOTSTRAP=1
# cargo-fuzz has a target folder of its own.
unset CARGO_TARGET_DIR
triple=$(rustc -vV | sed -n 's/^host: //p')
work=fuzz/target/work
mkdir -p "$work" || exit 2

# With overflows and other assertions checked, on top of AddressSanitizer.
"${CARGO:-cargo}" fuzz build --debug-assertions ${TARGET:+"$TARGET"} || exit 2

# A thread of the library that is about to end holds memory: the C API's target looks for leaks of
# its own kind, callbacks that are never destroyed.
leaks() {
    if [ "$1" = c_api ]; then echo 0; else echo 1; fi
}

run_target() { # run_target NAME ARGUMENT...: runs the fuzzer with these arguments of libFuzzer
    local name=$1
    shift
    mkdir -p "fuzz/artifacts/$name"
    "fuzz/target/$triple/release/$name" -artifact_prefix="fuzz/artifacts/$name/" \
        -detect_leaks="$(leaks "$name")" -timeout=180 -rss_limit_mb=4096 -max_len=4096 "$@"
}

findings=0
summary=()
for name in "${targets[@]}"; do
    log=$work/$name.log
    new=$work/corpus/$name
    mkdir -p "$new"
    before=$(find "fuzz/artifacts/$name" -type f 2>/dev/null | wc -l)
    arguments=()
    dictionary=fuzz/dictionaries/$name.dict
    [ ! -e "$dictionary" ] || arguments+=("-dict=$dictionary")
    if [ "$seconds" -eq 0 ]; then
        arguments+=(-runs=0)
    else
        arguments+=("-max_total_time=$seconds")
    fi
    echo "==== $name, $seconds s; the log is $log"
    began=$(date +%s)
    run_target "$name" "${arguments[@]}" -print_final_stats=1 "$new" "fuzz/corpus/$name" \
        >"$log" 2>&1
    status=$?
    took=$(($(date +%s) - began))
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    found=$(($(find "fuzz/artifacts/$name" -type f | wc -l) - before))
    line="$name: ${executions:-?} executions in $took s, coverage ${covered:-?}, $found findings"
    if [ "$status" -ne 0 ]; then
        findings=$((findings + 1))
        line="$line"$'\n'"    ^ FAILED with status $status; see the end of $log"
        tail -n 40 "$log"
    elif [ "${executions:-0}" -eq 0 ]; then
        findings=$((findings + 1))
        line="$line"$'\n'"    ^ FAILED: nothing was executed, see $log"
    elif [ "${MINIMISE:-}" = yes ]; then
        # The fewest files of the same coverage; of these no more than a commit should hold.
        small=$work/small/$name
        rm -rf "$small"
        mkdir -p "$small"
        run_target "$name" -set_cover_merge=1 "$small" "fuzz/corpus/$name" "$new" >"$work/$name.merge" 2>&1 ||
            exit 2
        # The seeds that were written by hand stay, as they say what they are.
        find "fuzz/corpus/$name" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
        room=$((max_files - $(find "fuzz/corpus/$name" -type f | wc -l)))
        find "$small" -type f -size -2k -printf '%s %p\n' | sort -n | tail -n "$room" |
            while read -r _ path; do cp "$path" "fuzz/corpus/$name/$(basename "$path")"; done
    fi
    summary+=("$line")
done

echo
printf '%s\n' "${summary[@]}"
[ "$findings" -eq 0 ]
