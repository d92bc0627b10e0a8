#!/bin/bash
# The C tests and the list of behaviours under tools that find what tests cannot see, on both
# brokers: run.sh [PART...]. `make sanitize` starts it beside a RabbitMQ node.
#
#     valgrind  memcheck: memory that is freed, not set or lost
#     address   AddressSanitizer and LeakSanitizer: the same, faster, and the edges of stack objects
#     thread    ThreadSanitizer: races
#     loom      every order of the atomic operations of our own (tests/sanitize/loom)
#
# Each part first proves itself: bugs of its kind that are planted (planted/) must be found, and
# nothing else. All but loom write a report for each process to target/sanitize-PART/reports, and
# report.py counts what is in them. address and thread build the library with the compiler's
# sanitizers, which takes RUSTC_BOOTSTRAP=1; thread builds Rust's standard library so too, and asks
# rustup for its source where it is not there.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

all=(valgrind address thread loom)
target=${CARGO_TARGET_DIR:-target}
cargo=${CARGO:-cargo}
python=${PYTHON:-python3}
read -ra cc <<<"${CC:-cc}"
here=$PWD/tests/sanitize
chosen=("$@")
[ ${#chosen[@]} -gt 0 ] || chosen=("${all[@]}")

for part in "${chosen[@]}"; do
    if [[ " ${all[*]} " != *" $part "* ]]; then
        echo "sanitize: there is no part '$part'; there are: ${all[*]}" >&2
        exit 2
    fi
done
if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    echo "sanitize: CHANNEL_LAYER_TEST_AMQP names no broker; start this by 'make sanitize'" >&2
    exit 2
fi
host=$(rustc --version --verbose | sed -n 's/^host: //p')
sysroot=$(rustc --print sysroot)

# --- what the parts share -------------------------------------------------------------------

results=$target/sanitize-summary.txt
mkdir -p "$target" && : >"$results" || exit 1

sum_up() {
    echo "$*"
    echo "$*" >>"$results"
}

# Runs the C tests on one broker, and says what they and the tool counted.
c_tests() { # c_tests PART BROKER
    local part=$1 broker=$2 log=$target/sanitize-$1/$2.log reports=$target/sanitize-$1/reports/$2
    local cases findings status=0
    reports_into "$part" "$reports"
    CHANNEL_LAYER_C_TEST_BROKERS=$broker tests/c/run.sh >"$log" 2>&1 || status=1
    # What failed, and whatever the programs had to say with it.
    grep -A3 '^not ok ' "$log"
    cases=$(tail -n 1 "$log")
    findings=$("$python" "$here/report.py" "$part" "$reports") || status=1
    # All but the last line are the findings themselves.
    sed '$d' <<<"$findings"
    sum_up "$part on $broker: cases: $cases; $(tail -n 1 <<<"$findings")"
    [ "$status" -eq 0 ] || sum_up "    ^ FAILED, see $log and $reports"
    return "$status"
}

# Builds the planted bugs, with what tests/c/run.sh is given.
build_planted() { # build_planted PART LIBRARY
    local cflags ldflags
    read -ra cflags <<<"${CFLAGS:-}"
    read -ra ldflags <<<"${LDFLAGS:-}"
    # Apart, since what links need not be what compiles.
    "${cc[@]}" -std=c11 -Wall -Wextra -Werror -O1 -g -pthread -Iinclude "${cflags[@]}" \
        -c "$here/planted/planted.c" -o "$target/sanitize-$1/planted.o" &&
        "${cc[@]}" -g -pthread "${cflags[@]}" "$target/sanitize-$1/planted.o" \
            -o "$target/sanitize-$1/planted" \
            -L"$2" -lchannel_layer -Wl,-rpath,"$(cd "$2" && pwd)" "${ldflags[@]}"
}

# The same calls in order: nothing is to be found, and the tool is to have run.
planted_none() { # planted_none PART
    local reports=$target/sanitize-$1/reports/none under status=0 findings
    reports_into "$1" "$reports"
    read -ra under <<<"${CHANNEL_LAYER_C_TEST_UNDER:-}"
    timeout 120 "${under[@]}" "$target/sanitize-$1/planted" none || status=1
    findings=$("$python" "$here/report.py" "$1" "$reports") || status=1
    if [ "$status" -ne 0 ]; then
        echo "$findings"
        echo "$1: what has no bug is not reported as clean"
    fi
    return "$status"
}

# A bug must be found, and be found where it is.
planted() { # planted PART BUG KIND FUNCTION
    local reports=$target/sanitize-$1/reports/$2 under
    reports_into "$1" "$reports"
    read -ra under <<<"${CHANNEL_LAYER_C_TEST_UNDER:-}"
    # It may well crash: what counts is the report.
    timeout 120 "${under[@]}" "$target/sanitize-$1/planted" "$2" >/dev/null 2>&1
    if "$python" "$here/report.py" "$1" "$reports" --expect "$3" "$4"; then
        found+=("$2")
    else
        echo "$1: the planted bug $2 is not found"
        missed+=("$2")
    fi
}

# Where the tool writes its reports from now on; what an earlier run left there is gone.
reports_into() { # reports_into PART FOLDER
    rm -rf "$2"
    mkdir -p "$2"
    local path
    path=$(cd "$2" && pwd)/$1
    case $1 in
    valgrind)
        export CHANNEL_LAYER_C_TEST_UNDER="$memcheck --log-file=$path.%p"
        ;;
    address)
        export ASAN_OPTIONS="log_path=$path:detect_stack_use_after_return=1:strict_init_order=1"
        ;;
    thread)
        # A child that forked has threads of its own. What was found decides, not the exit status.
        export TSAN_OPTIONS="log_path=$path:suppressions=$here/thread.supp:print_suppressions=1"
        TSAN_OPTIONS+=":die_after_fork=0:exitcode=0:history_size=4:second_deadlock_stack=1"
        ;;
    esac
}

# The planted bugs of a part, then the C tests on each broker.
run_part() { # run_part PART LIBRARY BUG KIND FUNCTION...
    local part=$1 library=$2 status=0 found=() missed=() broker soname
    shift 2
    # The name that programs ask for, which cargo does not know of.
    soname=$(readelf -d "$library/libchannel_layer.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]$/\1/p')
    ln -sfn libchannel_layer.so "$library/${soname:?the library has no SONAME}" || return
    echo "---- $part: planted bugs"
    build_planted "$part" "$library" && planted_none "$part" || return
    while [ $# -gt 0 ]; do
        planted "$part" "$1" "$2" "$3"
        shift 3
    done
    sum_up "$part finds what was planted: ${found[*]:-nothing}; missed: ${missed[*]:-none}"
    [ ${#missed[@]} -eq 0 ] || status=1
    for broker in memory rabbitmq; do
        echo "---- $part: C tests on $broker"
        c_tests "$part" "$broker" || status=1
    done
    return "$status"
}

# --- parts ----------------------------------------------------------------------------------

memcheck="valgrind --tool=memcheck --fair-sched=yes --trace-children=yes --num-callers=40
    --leak-check=full --show-leak-kinds=definite,possible
    --errors-for-leak-kinds=definite,possible --suppressions=$here/valgrind.supp
    --show-error-list=yes"
memcheck=$(tr -s ' \n' ' ' <<<"$memcheck")

part_valgrind() (
    valgrind --version || return
    export CARGO_TARGET_DIR=$target
    export CHANNEL_LAYER_TEST_SLOWDOWN=${CHANNEL_LAYER_TEST_SLOWDOWN:-20}
    export CHANNEL_LAYER_TEST_RACES=${CHANNEL_LAYER_TEST_RACES:-1000}
    export CHANNEL_LAYER_C_TEST_SECONDS=3600
    make --no-print-directory build || return
    run_part valgrind "$target/debug" \
        freed-userdata "Invalid read" on_message \
        freed-message "Invalid read" layer_message_data \
        leaked-userdata "definitely lost" allocate_userdata \
        leaked-message "definitely lost" layer_receive_next
)

part_address() (
    export CHANNEL_LAYER_TEST_SLOWDOWN=${CHANNEL_LAYER_TEST_SLOWDOWN:-5}
    export CHANNEL_LAYER_TEST_RACES=${CHANNEL_LAYER_TEST_RACES:-5000}
    export CHANNEL_LAYER_C_TEST_SECONDS=1200
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
    export CARGO_TARGET_DIR=$target/sanitize-address
    "$cargo" build --locked --target "$host" || return
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/$host
    export CFLAGS="-fsanitize=address -fno-omit-frame-pointer" LDFLAGS="-fsanitize=address"
    run_part address "$CARGO_TARGET_DIR/debug" \
        freed-userdata heap-use-after-free on_message \
        freed-message heap-use-after-free layer_message_data \
        leaked-userdata "memory leaks" allocate_userdata \
        leaked-message "memory leaks" layer_receive_next
)

part_thread() (
    if [ ! -e "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] &&
        ! rustup component add rust-src; then
        echo "sanitize: the part thread needs the source of Rust's standard library, which is the" \
            "component rust-src of the toolchain in $sysroot" >&2
        return 1
    fi
    export CHANNEL_LAYER_TEST_SLOWDOWN=${CHANNEL_LAYER_TEST_SLOWDOWN:-10}
    export CHANNEL_LAYER_TEST_RACES=${CHANNEL_LAYER_TEST_RACES:-5000}
    export CHANNEL_LAYER_C_TEST_SECONDS=1800
    export RUSTC_BOOTSTRAP=1
    export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    export CARGO_TARGET_DIR=$target/sanitize-thread CARGO_PROFILE_DEV_DEBUG=line-tables-only
    # With its atomics instrumented, a lock of the standard library is one to the sanitizer too.
    "$cargo" build --locked --target "$host" -Zbuild-std=std,panic_unwind || return
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/$host
    # gcc's own runtime is another version; that of the toolchain has to be the only one.
    local runtime=$sysroot/lib/rustlib/$host/lib/librustc-stable_rt.tsan.a
    if [ ! -e "$runtime" ]; then
        echo "sanitize: there is no $runtime" >&2
        return 1
    fi
    export CFLAGS="-fsanitize=thread"
    export LDFLAGS="-fno-sanitize=thread -Wl,--whole-archive $runtime -Wl,--no-whole-archive
        -Wl,--export-dynamic -lm"
    LDFLAGS=$(tr -s ' \n' ' ' <<<"$LDFLAGS")
    run_part thread "$CARGO_TARGET_DIR/debug" \
        raced-count "data race" count_without_lock \
        raced-bytes "data race" layer_send
)

part_loom() (
    export CARGO_TARGET_DIR=$target/sanitize-loom
    "$cargo" run --locked --release --manifest-path "$here/loom/Cargo.toml" |
        tee "$target/sanitize-loom/loom.log"
    local status=${PIPESTATUS[0]}
    sum_up "loom: $(tail -n 1 "$target/sanitize-loom/loom.log")"
    return "$status"
)

# --- the run --------------------------------------------------------------------------------

failures=0
for part in "${chosen[@]}"; do
    began=$SECONDS
    mkdir -p "$target/sanitize-$part"
    echo
    echo "==== $part"
    if ! "part_$part" </dev/null; then
        failures=$((failures + 1))
        sum_up "$part: FAILED"
    fi
    sum_up "    $((SECONDS - began)) s"
done

echo
echo "==== summary"
cat "$results"
if [ "$failures" -ne 0 ]; then
    echo "make sanitize: $failures of ${#chosen[@]} parts failed, after $SECONDS s"
    exit 1
fi
echo "make sanitize: all ${#chosen[@]} parts are in order, after $SECONDS s"
