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

# Each header alone, those for users in each standard. Users' warnings are on, since header code is
# theirs.
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
standalone=-DCHANNEL_LAYER_ASIO_STANDALONE
alone channel_layer/asio.hpp c++20 "$standalone"
# What needs no more than the library; channel_layer.hpp includes these.
mapfile -t parts < <(printf '%s\n' "$binding"/include/channel_layer/*.hpp | grep -v /asio.hpp)
for part in "${parts[@]}"; do
    alone "${part#"$binding/include/"}" c++17
done

name=channel_layer.hpp_includes_each_of_its_parts
included=$("${cxx[@]}" -std=c++17 -MM -Iinclude "$binding/include/channel_layer.hpp") || included=
lost=$(for part in "${parts[@]}"; do [[ "$included" == *"/${part##*/}"* ]] || echo "$part"; done)
if [ -z "$lost" ]; then
    ok "$name"
else
    echo "not included: $lost"
    not_ok "$name"
fi

programs=(declarations behaviour cases load boost_asio boost_coroutines standalone_asio
    standalone_coroutines)
# Two at once: half the time on two cores, and each takes up to half a gigabyte.
{
    compile declarations "$binding/tests/declarations.cpp" -std=c++17 \
        "-DWRAPPER=\"$binding/include/channel_layer\""
    compile behaviour "$binding/tests/behaviour.cpp" -std=c++20
    compile load "$binding/tests/load.cpp" -std=c++17 "-DNODE=\"$PWD/tests/bindings/node.py\""
    compile boost_asio "$binding/tests/asio.cpp" -std=c++17 -Wshadow
    compile boost_coroutines "$binding/tests/asio_coroutines.cpp" -std=c++20 -Wshadow
} &
compile cases "$binding/tests/cases.cpp" -std=c++17 "-DCASES=\"$PWD/tests/bindings/cases.json\""
compile standalone_asio "$binding/tests/asio.cpp" -std=c++17 -Wshadow "$standalone"
compile standalone_coroutines "$binding/tests/asio_coroutines.cpp" -std=c++20 -Wshadow "$standalone"
chat=$binding/examples/chat.cpp
[ ! -e "$chat" ] || compile chat "$chat" -std=c++17
wait

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

for program in "${programs[@]}"; do
    if [ ! -x "$scratch/$program" ]; then
        cat "$scratch/$program.log"
        not_ok "$program compiles"
        continue
    fi
    timeout -k 5 300 "$scratch/$program" | tee "$scratch/output"
    sum "$scratch/output" "${PIPESTATUS[0]}" "$program"
done

if [ -x "$scratch/chat" ]; then
    timeout -k 5 180 python3 "$binding/tests/chat_test.py" "$scratch/chat" | tee "$scratch/output"
    sum "$scratch/output" "${PIPESTATUS[0]}" chat_test.py
elif [ -e "$chat" ]; then
    cat "$scratch/chat.log"
    not_ok "chat compiles"
fi

# The example of the README, as it stands there, on a broker and without an argument.
name=the_example_of_the_readme_runs
awk '/^```cpp$/ && !done { on = 1; next } /^```$/ { done = done || on; on = 0 } on' \
    "$binding/README.md" >"$scratch/readme.cpp"
awk '/^prints$/ { told = 1 } told && /^```$/ { if (on) exit; on = 1; next } on' \
    "$binding/README.md" >"$scratch/expected"
if compile readme "$scratch/readme.cpp" -std=c++17 && [ -s "$scratch/expected" ] &&
    [ "$(wc -l <"$scratch/readme.cpp")" -le 25 ] &&
    timeout -k 5 30 "$scratch/readme" "$CHANNEL_LAYER_TEST_AMQP" >"$scratch/output" &&
    diff "$scratch/expected" "$scratch/output" &&
    timeout -k 5 30 "$scratch/readme" >"$scratch/output" &&
    diff "$scratch/expected" "$scratch/output"; then
    ok "$name"
else
    cat "$scratch/readme.log"
    not_ok "$name"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
