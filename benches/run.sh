#!/usr/bin/env bash
# Measures the library beside librabbitmq, on one broker, and prints the ratio pair by pair.
# README.md says what is measured and how to read it.
set -euo pipefail
export LC_ALL=C # a number is 0.5, not 0,5

# The peer as it was measured when the library was designed gave 26,000 to 51,000 messages/s. Where
# it gives less, the machine is busy or too small, and a ratio would say nothing about the library.
peer_at_least=26000

usage() {
    cat <<'END'
usage: benches/run.sh [-n PAIRS] [-s SECONDS] [-m throughput|latency|both|fanout]

Runs each of the two programs PAIRS times (default 5) for SECONDS (default 5), in turn.
CHANNEL_LAYER_TEST_AMQP names the broker; without it a private one is started.
Ends with 0; 3 when the figure is void; 1 or 2 when something failed.
END
}

pairs=5
seconds=5
modes=both
while getopts n:s:m:h option; do
    case $option in
        n) pairs=$OPTARG ;;
        s) seconds=$OPTARG ;;
        m) modes=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if ! [[ $# -eq 0 && $pairs =~ ^[1-9][0-9]*$ && $seconds =~ ^[0-9]+(\.[0-9]+)?$ &&
    $modes =~ ^(throughput|latency|both|fanout)$ ]]; then
    usage >&2
    exit 2
fi

cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
build=$target/benches

# Built before the broker starts, so that the two do not fight for the processors.
make --silent --no-print-directory release >&2
mkdir -p "$build"
cc=(${CC:-cc} -std=c11 -O2 -Wall -Wextra -pthread)
"${cc[@]}" -Iinclude benches/throughput.c -o "$build/throughput" \
    -L"$target/release" -lchannel_layer -Wl,-rpath,"$target/release" -lm
"${cc[@]}" -Iinclude benches/fanout.c -o "$build/fanout" \
    -L"$target/release" -lchannel_layer -Wl,-rpath,"$target/release" -lm
if [[ $modes == fanout ]]; then
    for members in 10 1000 100000; do
        "$build/fanout" "$members"
    done
    exit
fi
# shellcheck disable=SC2046 # flags are words
"${cc[@]}" benches/peer_librabbitmq.c -o "$build/peer_librabbitmq" \
    $(pkg-config --cflags --libs librabbitmq) -lm

if [[ -z ${CHANNEL_LAYER_TEST_AMQP:-} ]]; then
    exec "${PYTHON:-python3}" tests/fixture/rabbitmq.py run -- \
        benches/run.sh -n "$pairs" -s "$seconds" -m "$modes"
fi

results=$build/results.jsonl
: >"$results"

# What the named field of a line of our own JSON holds.
field() {
    sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\).*/\1/p"
}

median() {
    sort -n | awk '
        { a[NR] = $1 }
        END {
            m = int((NR + 1) / 2)
            print (NR % 2) ? a[m] : (a[m] + a[m + 1]) / 2
        }'
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", (b > 0) ? a / b : 0 }'
}

# Runs one program and sets `line` to what it printed. No subshell around it, so that its failure
# ends this script.
run() {
    line=$("$build/$1" --seconds "$seconds" "${@:2}")
    echo "$line" >>"$results"
}

# Runs the pairs with the option, prints a table of the fields (FIELD=TITLE each), and sets
# `peer_medians` and `broker`.
# The order within a pair changes from pair to pair: what drifts then drifts for both.
compare() {
    local options=$1 pair each name program
    shift
    local -A values=()
    printf '%-8s' pair
    for each; do
        printf '%15s%15s%8s' "layer ${each#*=}" "peer ${each#*=}" ratio
    done
    printf '\n'
    for ((pair = 1; pair <= pairs; pair++)); do
        local order=(throughput peer_librabbitmq)
        ((pair % 2)) || order=(peer_librabbitmq throughput)
        local -A lines=()
        for program in "${order[@]}"; do
            # shellcheck disable=SC2086 # none or one word
            run "$program" $options
            lines[$program]=$line
        done
        broker=$(field broker <<<"${lines[peer_librabbitmq]}")
        printf '%-8s' "$pair"
        for each; do
            name=${each%=*}
            local ours theirs both
            ours=$(field "$name" <<<"${lines[throughput]}")
            theirs=$(field "$name" <<<"${lines[peer_librabbitmq]}")
            both=$(ratio "$ours" "$theirs")
            values[$name.ours]+="$ours"$'\n'
            values[$name.theirs]+="$theirs"$'\n'
            values[$name.ratio]+="$both"$'\n'
            printf '%15s%15s%8s' "$ours" "$theirs" "$both"
        done
        printf '\n'
    done
    peer_medians=()
    printf '%-8s' median
    for each; do
        name=${each%=*}
        local medians=() side
        for side in ours theirs ratio; do
            medians+=("$(printf %s "${values[$name.$side]}" | median)")
        done
        printf '%15s%15s%8.2f' "${medians[@]}"
        peer_medians+=("${medians[1]}")
    done
    printf '\n\n'
}

echo "$(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg) before," \
    "librabbitmq $(pkg-config --modversion librabbitmq)"
status=0
if [[ $modes != latency ]]; then
    echo "Messages confirmed and consumed per second, $pairs pairs of $seconds s:"
    compare '' per_second=msg/s cpu_us_per_message=CPU-us
    if awk -v p="${peer_medians[0]}" -v least="$peer_at_least" 'BEGIN { exit !(p < least) }'; then
        echo "VOID: the peer's median of ${peer_medians[0]}/s is under $peer_at_least/s:" \
            "this machine was too slow or too busy for a figure."
        echo
        status=3
    fi
fi
if [[ $modes != throughput ]]; then
    echo "Microseconds from send to arrival, one message at a time, $pairs pairs of $seconds s:"
    compare --latency p50_us=p50 p99_us=p99
fi
# Load of others shows here: the three programs of a run make 2 to 3.
echo "Broker: RabbitMQ $broker. Load after: $(cut -d' ' -f1-3 /proc/loadavg). Each run: $results"
exit "$status"
