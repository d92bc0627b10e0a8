#!/bin/bash
# Runs the tests, beside a RabbitMQ node whose URL is in CHANNEL_LAYER_TEST_AMQP: run.sh [STAGE...]
#
# `make test` starts it with such a node. Every stage runs even after one has failed, so that one
# run shows all there is to mend; the run fails if any did.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

stages=(fmt clippy rustdoc build rust fuzz counts doctest fixture benches mutants abi supply c cpp go fleet faults
    install demo docs python ruby cases interop tls refusals rabbitmq4)
# Parts of others, run only by name.
parts=(broker conformance)

cargo=${CARGO:-cargo}
python=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-target}
chosen=("$@")
[ ${#chosen[@]} -gt 0 ] || chosen=("${stages[@]}")

for name in "${chosen[@]}"; do
    if [[ " ${stages[*]} ${parts[*]} " != *" $name "* ]]; then
        echo "run.sh: there is no stage '$name'; there are: ${stages[*]} ${parts[*]}" >&2
        exit 2
    fi
done
if [[ " ${chosen[*]} " == *" cases "* ]]; then
    for name in cpp go ruby python; do
        if [[ " ${chosen[*]} " != *" $name "*"cases "* ]]; then
            echo "run.sh: stage 'cases' shows the stages cpp, go, ruby and python of the same run:" \
                "choose '$name' too, before it" >&2
            exit 2
        fi
    done
fi
if [ -z "${CHANNEL_LAYER_TEST_AMQP:-}" ]; then
    echo "run.sh: CHANNEL_LAYER_TEST_AMQP names no broker; start this by 'make test'" >&2
    exit 2
fi

. tests/output.sh
logs=${CHANNEL_LAYER_TEST_LOGS:-$CHANNEL_LAYER_TEST_OUTPUT/test-logs}
mkdir -p "$logs" || exit 1

# --- stages ---------------------------------------------------------------------------------

# Taken before any build, since each build writes the header anew where it differs.
header=include/channel_layer.h
cp "$header" "$logs/committed.h" || exit 1

stage_fmt() {
    tests/lint.sh format
}

stage_clippy() {
    tests/lint.sh clippy
}

stage_rustdoc() {
    RUSTDOCFLAGS="-D warnings" "$cargo" doc --locked --no-deps --document-private-items
}

stage_build() {
    make --no-print-directory build || return
    if ! diff -u "$logs/committed.h" "$header"; then
        echo "$header is not what build.rs makes of src/ffi; the build has written it anew:" \
            "look at the difference and commit it"
        return 1
    fi
}

stage_rust() {
    local status=0
    rust_by_its_runner || status=1
    # Without the library for C, which would then be another than the other stages test.
    "$cargo" test --locked --no-fail-fast --lib --features tracing tracing_log:: || status=1
    return "$status"
}

rust_by_its_runner() {
    if "$cargo" nextest --version >/dev/null 2>&1; then
        "$cargo" nextest run --locked --no-fail-fast -E 'not test(/fuzzing::tests::/)'
    else
        echo "no cargo-nextest here: cargo test runs the tests"
        "$cargo" test --locked --no-fail-fast --lib --bins --tests -- --skip fuzzing::tests::
    fi
}

# The tests in src/broker/rabbitmq alone.
stage_broker() {
    if "$cargo" nextest --version >/dev/null 2>&1; then
        "$cargo" nextest run --locked --no-fail-fast --lib -E 'test(/^broker::rabbitmq::/)'
    else
        "$cargo" test --locked --no-fail-fast --lib broker::rabbitmq::
    fi
}

# What the fuzzers call, with their corpora and with mutations that are the same in each run; by
# the test program of the stage `rust`, so that nothing more is built. `make fuzz` is the long run.
stage_fuzz() {
    "$cargo" test --locked --lib --no-fail-fast fuzzing::tests:: -- --nocapture --test-threads 2
}

# Instructions and allocations of floor 0, as they are recorded.
stage_counts() {
    "$python" benches/pure/test_counts.py
}

stage_doctest() {
    "$cargo" test --locked --doc
}

stage_fixture() {
    local status=0
    "$python" tests/fixture/test_output.py || status=1
    "$python" tests/fixture/test_rabbitmq.py || status=1
    return "$status"
}

# What turns measurements into claims; that they are claims of the results in the tree. `make bench`
# and `make scale` measure.
stage_benches() {
    local status=0
    "$python" benches/test_benches.py || status=1
    "$python" benches/scale/test_scale.py || status=1
    return "$status"
}

# The sample, the verdicts and the table of `make mutants`, which itself takes hours.
stage_mutants() {
    "$python" tests/mutants/test_mutants.py
}

# That programs which are built already go on working, and what would break them is seen.
stage_abi() {
    "$python" tests/abi/test_abi.py
}

# That the dependencies are of the kind that deny.toml allows, and all in the bill of materials.
stage_supply() {
    "$python" tests/supply/test_supply.py
}

stage_c() {
    tests/c/run.sh
}

# The list of behaviours alone.
stage_conformance() {
    tests/c/run.sh conformance
}

# What the bindings record of the cases that they share; none of an earlier run.
rm -rf "$logs/cases" && mkdir "$logs/cases" && table=$(cd "$logs/cases" && pwd) || exit 1

# The bindings, each by the usual runner of its language; tests/bindings says what all are tested with.
in_language() { # in_language FOLDER
    CHANNEL_LAYER_TEST_LIBRARY=$(cd "$target/debug" && pwd) || return
    CHANNEL_LAYER_TEST_API=$(cd "$logs" && pwd)/api.json || return
    export CHANNEL_LAYER_TEST_LIBRARY CHANNEL_LAYER_TEST_API
    # Written beside and moved, since another binding may be reading it.
    "$python" tests/bindings/api.py >"$CHANNEL_LAYER_TEST_API.$1" || return
    mv "$CHANNEL_LAYER_TEST_API.$1" "$CHANNEL_LAYER_TEST_API" || return
    export CHANNEL_LAYER_TEST_TABLE=$table/$1
    # A hundred where a binding is tested by itself; the time is better spent on other tests here.
    export CHANNEL_LAYER_TEST_EXITS=${CHANNEL_LAYER_TEST_EXITS:-20}
    rm -f "$CHANNEL_LAYER_TEST_TABLE"
    timeout -k 10 900 "bindings/$1/tests/run.sh"
}

stage_cpp() { in_language cpp; }
stage_go() { in_language go; }
stage_ruby() { in_language ruby; }
stage_python() { in_language python; }

# The table of what each binding made of each case, in this run.
stage_cases() {
    "$python" tests/bindings/test_table.py || return
    "$python" tests/bindings/table.py "$table"
}

# A process in each of these languages and a Django consumer, in one group.
stage_fleet() {
    "$python" tests/fleet/run.py
}

stage_interop() {
    tests/interop/run.sh
}

# The schedule and the oracle of the row `chaos`, which itself is too long; then all short rows, or those
# that CHANNEL_LAYER_FAULTS_ROWS names.
stage_faults() {
    local rows status=0
    read -ra rows <<<"${CHANNEL_LAYER_FAULTS_ROWS:-}"
    "$python" tests/faults/test_chaos.py || status=1
    "$python" tests/faults/run.py --short --jobs 3 "${rows[@]}" || status=1
    return "$status"
}

stage_tls() {
    tests/tls/run.sh
}

stage_refusals() {
    tests/refusals/run.sh
}

stage_install() {
    tests/install/run.sh
}

# That the first command of the README works, alone and between two processes.
stage_demo() {
    local passed=0 failed=0 host output
    for host in "" "$CHANNEL_LAYER_TEST_AMQP"; do
        if output=$(timeout -k 10 120 make --no-print-directory demo HOST="$host" 2>&1) &&
            [ -n "$output" ]; then
            passed=$((passed + 1))
        else
            echo "make demo HOST=$host ended with status $?"
            failed=$((failed + 1))
        fi
        echo "$output"
    done
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}

# The guide and the reference: that they can be built, and that what they show works.
stage_docs() {
    tests/docs/run.sh
}

# RabbitMQ 4.3 in full and 4.0 in short, as tests/rabbitmq4/run.sh says, which ends with status 3
# where this machine cannot run one of them.
stage_rabbitmq4() {
    CHANNEL_LAYER_FAULTS_ROWS="broker_killed cluster connection_reset routing_lost" \
        tests/rabbitmq4/run.sh 4.3 4.0-short
}

# --- counts ---------------------------------------------------------------------------------

# Each prints "PASSED FAILED SKIPPED" for the log of a runner.

count_rust() { # nextest's summary, or cargo test's results added up
    awk '
        function number(word) {
            return match($0, "[0-9]+ " word) ? substr($0, RSTART) + 0 : 0
        }
        /^ *Summary \[/ || /^test result: / {
            passed += number("passed")
            failed += number("failed") + number("timed out")
            skipped += number("skipped") + number("ignored")
        }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

count_chosen() { # as count_rust, where nothing is skipped but what was not chosen
    local passed failed
    read -r passed failed _ < <(count_rust "$1")
    echo "$passed $failed 0"
}

count_unittest() {
    awk '
        function number(word) {
            return match($0, word "=[0-9]+") ? substr($0, RSTART + length(word) + 1) + 0 : 0
        }
        /^Ran [0-9]+ tests? in / { ran += $2 }
        /^(OK|FAILED)( \(.*\))?$/ {
            failed += number("failures") + number("errors") + number("unexpected successes")
            skipped += number("skipped")
        }
        END { print ran - failed - skipped, failed + 0, skipped + 0 }' "$1"
}

count_closing_line() { # the last "N passed, N failed", perhaps with ", N skipped"
    awk '
        /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ {
            passed = $1; failed = $3; skipped = $5
        }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

count_faults() { # the unit tests of its harness, and the rows
    echo "$(count_unittest "$1") $(count_closing_line "$1")" |
        awk '{ print $1 + $4, $2 + $5, $3 + $6 }'
}

count_summary() { # the stages of other runs of this script, added up, and what these left out
    awk '
        /^==== summary$/ { summary = 1 }
        /^make test: / { summary = 0 }
        /^skipped: / { skipped++ }
        summary && /^[a-z0-9]+: [0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ {
            passed += $2; failed += $4; skipped += $6
        }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

# --- the run --------------------------------------------------------------------------------

summary=()
failures=0

# What waits more than it computes, or computes on one core, runs beside the stages before its own:
# a run takes two thirds of the time. The fixture ends all of it where this run is ended before.

is_chosen() {
    [[ " ${chosen[*]} " == *" $1 "* ]]
}

# By name, the process of each stage that was begun before its turn.
declare -A begun=()

begin_stage() { # begin_stage NAME [PROCESS]: run_stage says what became of it, in its turn
    {
        [ -z "${2:-}" ] || tail --pid="$2" -f /dev/null # it begins when that process has ended
        began=$SECONDS
        "stage_$1" >"$logs/$1.log" 2>&1 </dev/null
        status=$?
        echo "$((SECONDS - began))" >"$logs/$1.seconds"
        exit "$status"
    } &
    begun[$1]=$!
}

# By name, the stages that have had their turn.
declare -A had=()

has_had() { # has_had NAME...: whether each of them that is chosen has ended
    local name
    for name in "$@"; do
        if is_chosen "$name" && [ -z "${had[$name]:-}" ]; then
            return 1
        fi
    done
}

begin_stages() { # begin_stages NAME...: those of them that are yet to come, one after the other
    local name before=
    for name in "$@"; do
        if is_chosen "$name" && [ -z "${begun[$name]:-}${had[$name]:-}" ]; then
            begin_stage "$name" "$before"
        fi
        before=${begun[$name]:-$before}
    done
}

# To fetch and unpack the roots takes a minute each; their stage waits for that, or reports why a
# root could not be made.
begin_rabbitmq4_roots() {
    for version in 4.3 4.0; do
        tests/rabbitmq4/make_root.sh "$version"
    done >/dev/null 2>&1 </dev/null &
}

# A minute and a half, most of it on one core; `install` waits for it, or builds it and fails itself.
begin_release() {
    make --no-print-directory release >"$logs/release.log" 2>&1 </dev/null &
}

run_stage() { # run_stage NAME [COUNTER]
    local name=$1 counter=${2:-} began=$SECONDS status line passed failed skipped seconds
    echo
    echo "==== $name"
    if [ -n "${begun[$name]:-}" ]; then
        wait "${begun[$name]}"
        status=$?
        cat "$logs/$name.log"
        seconds="$(<"$logs/$name.seconds") s, beside others"
    else
        "stage_$name" 2>&1 </dev/null | tee "$logs/$name.log"
        status=${PIPESTATUS[0]}
        seconds="$((SECONDS - began)) s"
    fi
    # What this machine cannot run is reported as skipped, not as failed.
    if [ "$name" = rabbitmq4 ] && [ "$status" -eq 3 ]; then
        read -r passed failed skipped < <("$counter" "$logs/$name.log")
        summary+=("$name: $passed passed, $failed failed, $skipped skipped"
            "$(sed -n 's/^skipped: /    /p' "$logs/$name.log")")
        summary+=("    $seconds")
        return 0
    fi
    if [ -n "$counter" ]; then
        read -r passed failed skipped < <("$counter" "$logs/$name.log")
        if [ "$status" -eq 0 ] && [ "$passed" -eq 0 ] && [ "$name" != doctest ]; then
            echo "$name: no test ran"
            status=1
        fi
        line="$name: $passed passed, $failed failed"
        [ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
    elif [ "$status" -eq 0 ]; then
        line="$name: in order"
    else
        line="$name: not in order"
    fi
    if [ "$status" -ne 0 ]; then
        failures=$((failures + 1))
        # On a line of its own, so that the counts stay alone on theirs.
        line="$line"$'\n'"    ^ FAILED with status $status, see $logs/$name.log"
    fi
    summary+=("$line"$'\n'"    $seconds")
    return "$status"
}

! is_chosen rabbitmq4 || begin_rabbitmq4_roots
! is_chosen fixture || begin_stage fixture

for name in "${chosen[@]}"; do
    had[$name]=1
    case $name in
    fmt | clippy | rustdoc | build) ;;
    # They start nodes and wait, and take the library as it was built.
    *) begin_stages refusals tls ;;
    esac
    case $name in
    # The longest of all; while these run on one core, or compile.
    counts | c | cpp) begin_stages python ruby interop ;;
    # After `c` and `interop`, which build the same programs, and `faults`, which wants a quiet
    # machine.
    install | demo | docs) ! has_had c faults || begin_stages interop rabbitmq4 ;;
    esac
    case $name in
    broker) run_stage "$name" count_chosen ;;
    abi | benches | counts | fixture | interop | mutants | refusals | supply | tls) run_stage "$name" count_unittest ;;
    c | conformance | cpp | go | ruby | python | cases | fleet | install | demo | docs) run_stage "$name" count_closing_line ;;
    faults) run_stage "$name" count_faults ;;
    rabbitmq4) run_stage "$name" count_summary ;;
    rust | fuzz | doctest) run_stage "$name" count_rust ;;
    build)
        if ! run_stage build && [ ! -e "$target/debug/libchannel_layer.so" ]; then
            summary+=("the library was not built: the stages after that did not run")
            break
        fi
        ! is_chosen install || begin_release
        ;;
    *) run_stage "$name" ;;
    esac
done

echo
echo "==== summary"
printf '%s\n' "${summary[@]}"
if [ "$failures" -ne 0 ]; then
    echo "make test: $failures of ${#chosen[@]} stages failed, after $SECONDS s"
    exit 1
fi
forget_own_output
echo "make test: all ${#chosen[@]} stages are in order, after $SECONDS s"
