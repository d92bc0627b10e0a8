#!/bin/bash
# Compiles the C and C++ tests against the committed header, and runs each program on both
# brokers: run.sh [PROGRAM [CASE...]]. Needs the debug library, and in CHANNEL_LAYER_TEST_AMQP the
# URL of a RabbitMQ node (`make test STAGES="build c"` provides both).
#
# A folder tests/c/NAME is one program, linked with the harness, which runs on both brokers. It
# prints `ok CASE`, `not ok CASE` or `skip CASE (why)` for each case and closes with `N passed,
# N failed`. What it leaves out of that - by a crash, a time-out, a wrong count - is a failure
# here. A file tests/c/NAME.c or NAME.cpp is a test by itself: its exit status is the result.
#
# CHANNEL_LAYER_C_TEST_BROKERS is which of "memory rabbitmq" to run on; both if it is not set.
# CHANNEL_LAYER_C_TEST_UNDER is a command that runs the programs, such as valgrind with its options.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

target=${CARGO_TARGET_DIR:-target}
library=$target/debug
output=${CHANNEL_LAYER_TEST_OUTPUT:-$target}/c-tests
limit=${CHANNEL_LAYER_C_TEST_SECONDS:-300}
example_limit=$((limit * 2 / 5))
read -ra cc <<<"${CC:-cc}"
read -ra cxx <<<"${CXX:-c++}"
read -ra more <<<"${CFLAGS:-}"
read -ra more_to_link <<<"${LDFLAGS:-}"
read -ra under <<<"${CHANNEL_LAYER_C_TEST_UNDER:-}"
read -ra brokers <<<"${CHANNEL_LAYER_C_TEST_BROKERS:-memory rabbitmq}"
strict=(-Wall -Wextra -Werror)
c=("${cc[@]}" -std=c11 "${strict[@]}")
cpp=("${cxx[@]}" -std=c++17 "${strict[@]}")
flags=(-O1 -g -pthread -Iinclude -Itests/c "${more[@]}")

if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    echo "tests/c: CHANNEL_LAYER_TEST_AMQP names no broker; start this by 'make test STAGES=c'" >&2
    exit 2
fi
if [ ! -e "$library/libchannel_layer.so" ]; then
    echo "tests/c: there is no $library/libchannel_layer.so; run 'make build' first" >&2
    exit 2
fi
for broker in "${brokers[@]}"; do
    if [ "$broker" != memory ] && [ "$broker" != rabbitmq ]; then
        echo "tests/c: CHANNEL_LAYER_C_TEST_BROKERS names '$broker'; there are: memory rabbitmq" >&2
        exit 2
    fi
done
mkdir -p "$output" || exit 1

passed=0
failed=0
skipped=0
ok() {
    passed=$((passed + 1))
    echo "ok $*"
}
not_ok() {
    failed=$((failed + 1))
    echo "not ok $*"
}

check() { # check NAME COMMAND...: one test, which is that the command succeeds
    local name=$1
    shift
    if "$@"; then ok "$name"; else not_ok "$name"; fi
}

check_on_brokers() { # check_on_brokers NAME PROGRAM: its argument is the broker, none for memory
    local broker argument
    for broker in "${brokers[@]}"; do
        argument=()
        [ "$broker" = memory ] || argument=("$CHANNEL_LAYER_TEST_AMQP")
        check "$1_on_$broker" timeout -k 10 "$example_limit" "${under[@]}" "$2" "${argument[@]}"
    done
}

compile() { # compile SOURCE OBJECT
    local command=("${c[@]}")
    [[ $1 != *.cpp ]] || command=("${cpp[@]}")
    "${command[@]}" "${flags[@]}" -c "$1" -o "$2"
}

link() { # link PROGRAM OBJECT...
    local program=$1 linker=("${cc[@]}")
    shift
    [[ " $* " != *.cpp.o\ * ]] || linker=("${cxx[@]}")
    "${linker[@]}" "${flags[@]}" "$@" -o "$program" \
        -L"$library" -lchannel_layer -lm -Wl,-rpath,"$(cd "$library" && pwd)" "${more_to_link[@]}"
}

build() { # build PROGRAM SOURCE...: compiles the sources side by side, then links
    local program=$1 source object objects=() jobs=() status=0
    shift
    for source in "$@"; do
        object=$output/${source#tests/c/}.o
        mkdir -p "$(dirname "$object")" || return
        objects+=("$object")
        compile "$source" "$object" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || status=1
    done
    [ "$status" -eq 0 ] && link "$program" "${objects[@]}"
}

run() { # run NAME HOST PROGRAM [CASE...]
    local name=$1 host=$2 log=$output/${1// /-}.log closing ran_ok ran_not_ok status
    shift 2
    echo "---- $name"
    CHANNEL_LAYER_TEST_HOST=$host timeout -k 10 "$limit" "${under[@]}" "$@" 2>&1 </dev/null |
        tee "$log"
    status=${PIPESTATUS[0]}
    ran_ok=$(grep -c '^ok ' "$log")
    ran_not_ok=$(grep -c '^not ok ' "$log")
    passed=$((passed + ran_ok))
    failed=$((failed + ran_not_ok))
    skipped=$((skipped + $(grep -c '^skip ' "$log")))
    closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        not_ok "$name ends within $limit s"
    elif [ "$status" -gt 128 ]; then
        not_ok "$name ends by itself: signal $((status - 128)) ended it"
    elif [ "$closing" != "$ran_ok passed, $ran_not_ok failed" ]; then
        not_ok "$name counts its cases: it said '$closing'," \
            "and printed 'ok' $ran_ok times, 'not ok' $ran_not_ok times"
    elif [ "$ran_ok" -eq 0 ] && [ "$ran_not_ok" -eq 0 ]; then
        not_ok "$name runs a case"
    elif [ "$status" -ne 0 ] && [ "$ran_not_ok" -eq 0 ]; then
        not_ok "$name succeeds: it ended with status $status and no failed case"
    elif [ "$status" -eq 0 ] && [ "$ran_not_ok" -ne 0 ]; then
        not_ok "$name reports its failures: it ended with status 0"
    fi
}

wanted=${1:-}
[ $# -eq 0 ] || shift

if [ -z "$wanted" ]; then
    header_alone='#include "channel_layer.h"'
    # ISO C has no empty translation unit.
    check "header_is_pure_c11" "${c[@]}" -pedantic -Iinclude -fsyntax-only -x c - \
        <<<"$header_alone"$'\nextern int nothing;'
    check "header_is_pure_cpp17" "${cpp[@]}" -pedantic -Iinclude -fsyntax-only -x c++ - \
        <<<"$header_alone"
    # What the README shows must be what works.
    readme=$output/readme
    if tests/c/extract_readme_example.sh >"$readme.c" && compile "$readme.c" "$readme.o" &&
        link "$readme" "$readme.o"; then
        ok "example_of_the_readme_compiles_and_links"
        check_on_brokers example_of_the_readme "$readme"
    else
        not_ok "example_of_the_readme_compiles_and_links"
    fi
fi

# What the examples show must be what happens: each checks itself.
if [ -z "$wanted" ]; then
    for source in bindings/c/examples/*.c; do
        name=example_$(basename "${source%.c}")
        if compile "$source" "$output/$name.o" && link "$output/$name" "$output/$name.o"; then
            check_on_brokers "$name" "$output/$name"
        else
            not_ok "${name}_compiles_and_links"
        fi
    done
fi

programs=0
for path in tests/c/*; do
    file=$(basename "$path")
    name=${file%.*}
    if [ -n "$wanted" ] && [ "$wanted" != "$name" ]; then
        continue
    fi
    # Not $file alone, which is the folder of the objects.
    program=$output/$file.run
    if [ -d "$path" ]; then
        programs=$((programs + 1))
        if build "$program" tests/c/harness.c "$path"/*.c; then
            for broker in "${brokers[@]}"; do
                host=memory://$name
                [ "$broker" = memory ] || host=$CHANNEL_LAYER_TEST_AMQP
                run "$name on $broker" "$host" "$program" "$@"
            done
        else
            not_ok "$name compiles and links"
        fi
    elif [[ $file =~ \.(c|cpp)$ ]] && [ "$name" != harness ]; then
        programs=$((programs + 1))
        if build "$program" "$path"; then
            check "$file" timeout -k 10 "$limit" "${under[@]}" "$program"
        else
            not_ok "$file compiles and links"
        fi
    fi
done
if [ "$programs" -eq 0 ]; then
    not_ok "there is a program to run: $wanted"
fi

echo "---- all C tests"
echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
[ "$failed" -eq 0 ]
