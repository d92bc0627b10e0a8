#!/bin/bash
# The tests of the C++ binding: run.sh
#
# tests/bindings/README.md says what it finds in the environment.
# Each program prints `ok NAME` or `not ok NAME` for a test; this closes with the sum of them.

set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1

. tests/bindings/environment.sh
binding=$PWD/bindings/cpp
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
read -r -a cxx <<<"${CXX:-g++}"
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Werror)
linked=(-L "$CHANNEL_LAYER_TEST_LIBRARY" -lchannel_layer "-Wl,-rpath,$CHANNEL_LAYER_TEST_LIBRARY")
passed=0 failed=0

ok() {
    echo "ok $1"
    passed=$((passed + 1))
}

not_ok() {
    echo "not ok $1"
    failed=$((failed + 1))
}

# compile NAME SOURCE ARGUMENT... into $scratch/NAME; what the compiler says is kept beside it.
compile() {
    local name=$1 source=$2
    shift 2
    "${cxx[@]}" "${warnings[@]}" -pthread -Iinclude -I"$binding/include" "$source" \
        -o "$scratch/$name" "${linked[@]}" "$@" >"$scratch/$name.log" 2>&1
}

standalone=-DCHANNEL_LAYER_ASIO_STANDALONE

# Each header alone, those for users in each standard. Users' warnings are on, since header code is
# theirs.
headers() {
    local header part parts included lost
    alone() { # alone HEADER STANDARD [OPTION]
        local name=$1_compiles_alone_in_$2${3:+_with_$3}
        printf '#include "%s"\nint main() {}\n' "$1" >"$scratch/alone.cpp"
        if "${cxx[@]}" "${warnings[@]}" -Wshadow "-std=$2" ${3:+"$3"} -fsyntax-only -Iinclude \
            -I"$binding/include" "$scratch/alone.cpp"; then
            ok "$name"
        else
            not_ok "$name"
        fi
    }
    for header in channel_layer.hpp channel_layer_json.hpp; do
        alone "$header" c++17
        alone "$header" c++20
    done
    alone channel_layer/asio.hpp c++20 "$standalone"
    # What needs no more than the library; channel_layer.hpp includes these.
    mapfile -t parts < <(printf '%s\n' "$binding"/include/channel_layer/*.hpp | grep -v /asio.hpp)
    for part in "${parts[@]}"; do
        alone "${part#"$binding/include/"}" c++17
    done

    local name=channel_layer.hpp_includes_each_of_its_parts
    included=$("${cxx[@]}" -std=c++17 -MM -Iinclude "$binding/include/channel_layer.hpp") || included=
    lost=$(for part in "${parts[@]}"; do [[ "$included" == *"/${part##*/}"* ]] || echo "$part"; done)
    if [ -z "$lost" ]; then
        ok "$name"
    else
        echo "not included: $lost"
        not_ok "$name"
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# The example of the README, as it stands there.
readme() {
    awk '/^```cpp$/ && !done { on = 1; next } /^```$/ { done = done || on; on = 0 } on' \
        "$binding/README.md" >"$scratch/readme.cpp"
    compile readme "$scratch/readme.cpp" -std=c++17
}

build() {
    local asio=$binding/tests/asio.cpp coroutines=$binding/tests/asio_coroutines.cpp
    case $1 in
    headers) headers >"$scratch/headers.log" 2>&1 ;;
    readme) readme ;;
    declarations)
        compile declarations "$binding/tests/declarations.cpp" -std=c++17 \
            "-DWRAPPER=\"$binding/include/channel_layer\""
        ;;
    behaviour) compile behaviour "$binding/tests/behaviour.cpp" -std=c++17 ;;
    cases)
        compile cases "$binding/tests/cases.cpp" -std=c++17 \
            "-DCASES=\"$PWD/tests/bindings/cases.json\""
        ;;
    load)
        compile load "$binding/tests/load.cpp" -std=c++17 "-DNODE=\"$PWD/tests/bindings/node.py\""
        ;;
    boost_asio) compile boost_asio "$asio" -std=c++17 -Wshadow ;;
    boost_coroutines) compile boost_coroutines "$coroutines" -std=c++20 -Wshadow ;;
    standalone_asio) compile standalone_asio "$asio" -std=c++17 -Wshadow "$standalone" ;;
    standalone_coroutines)
        compile standalone_coroutines "$coroutines" -std=c++20 -Wshadow "$standalone"
        ;;
    chat) compile chat "$chat" -std=c++17 ;;
    esac
}

# In this order all is built, one job for each processor, and run as soon as it is built: first what
# waits long when it runs, then what takes long to compile. A compiler takes up to a gigabyte.
chat=$binding/examples/chat.cpp
jobs=(load standalone_asio boost_asio behaviour standalone_coroutines cases headers
    boost_coroutines declarations readme)
[ ! -e "$chat" ] || jobs=(load chat "${jobs[@]:1}")
most=$(nproc) || most=2
[ "$most" -le 4 ] || most=4

# Each job writes a line when it has ended. The pipe is open for both, so that no writer waits.
mkfifo "$scratch/ended" || exit 1
exec {ended}<>"$scratch/ended"
(
    running=0
    for name in "${jobs[@]}"; do
        if [ "$running" -ge "$most" ]; then
            wait -n
            running=$((running - 1))
        fi
        {
            began=$SECONDS
            build "$name"
            echo "$name $? $((SECONDS - began))" >&"$ended"
        } &
        running=$((running + 1))
    done
    wait
) &

declare -A built=()
# await NAME: until it is built; whether that went well.
await() {
    local name status seconds
    while [ -z "${built[$1]:-}" ]; do
        if ! read -r -t 600 name status seconds <&"$ended"; then
            echo "the build of $1 has not ended"
            return 1
        fi
        built[$name]=$status
        echo "# $name: built in $seconds s"
    done
    [ "${built[$1]}" = 0 ]
}

# sum OUTPUT STATUS NAME: adds what a test program has told. One that ended early, or with another
# status than its closing line says, is a failure itself.
sum() {
    local line more lost
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1)
    more=${line%% passed*} lost=${line##*, } lost=${lost%% failed}
    if [ -z "$line" ]; then
        not_ok "$3 did not come to its end (status $2)"
        more=$(grep -c '^ok ' "$1") lost=$(grep -c '^not ok ' "$1")
    elif [ "$2" != 0 ] && [ "$lost" = 0 ]; then
        not_ok "$3 ended with status $2"
    fi
    passed=$((passed + more)) failed=$((failed + lost))
}

the_example_of_the_readme_runs() {
    awk '/^prints$/ { told = 1 } told && /^```$/ { if (on) exit; on = 1; next } on' \
        "$binding/README.md" >"$scratch/expected"
    [ -s "$scratch/expected" ] && [ "$(wc -l <"$scratch/readme.cpp")" -le 25 ] &&
        timeout -k 5 30 "$scratch/readme" "$CHANNEL_LAYER_TEST_AMQP" >"$scratch/output" &&
        diff "$scratch/expected" "$scratch/output" &&
        timeout -k 5 30 "$scratch/readme" >"$scratch/output" &&
        diff "$scratch/expected" "$scratch/output"
}

for job in "${jobs[@]}"; do
    await "$job"
    status=$? began=$SECONDS
    if [ "$job" = headers ]; then
        tee "$scratch/output" <"$scratch/headers.log"
        sum "$scratch/output" "$status" headers
    elif [ "$status" != 0 ]; then
        cat "$scratch/$job.log"
        not_ok "$job compiles"
    elif [ "$job" = chat ]; then
        timeout -k 5 180 python3 "$binding/tests/chat_test.py" "$scratch/chat" |
            tee "$scratch/output"
        sum "$scratch/output" "${PIPESTATUS[0]}" chat_test.py
    elif [ "$job" = readme ]; then
        # On a broker, and without an argument.
        if the_example_of_the_readme_runs; then
            ok the_example_of_the_readme_runs
        else
            not_ok the_example_of_the_readme_runs
        fi
    else
        timeout -k 5 300 "$scratch/$job" | tee "$scratch/output"
        sum "$scratch/output" "${PIPESTATUS[0]}" "$job"
    fi
    echo "# $job: ran for $((SECONDS - began)) s"
done
wait

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
