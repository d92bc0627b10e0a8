#!/bin/bash
# Installs into a folder of its own, and looks at the result as a distribution and as a program
# that knows nothing of this tree would.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

stage=$(mktemp -d) || exit 1
trap 'rm -rf "$stage"' EXIT
outside=$stage/outside
mkdir "$outside"
read -ra cc <<<"${CC:-cc}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

passed=0
failed=0
check() { # check NAME COMMAND...: one test, which is that the command succeeds
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "not ok $name"
    fi
}

same() { # same EXPECTED GOT
    if [ "$1" != "$2" ]; then
        diff -u --label expected <(printf '%s\n' "$1") --label got <(printf '%s\n' "$2")
        return 1
    fi
}

install_to() { # install_to DESTDIR [VARIABLE=VALUE...]
    local destdir=$1
    shift
    make --no-print-directory install DESTDIR="$destdir" "$@"
}

tree() { # every file and link below a folder, by name
    (cd "$1" && find . \( -type f -o -type l \) -printf '%P%l\n' | sed 's/\(.*\.so[.0-9]*\)\(libchannel.*\)/\1 -> \2/' | LC_ALL=C sort)
}

dynamic() { # dynamic TAG FILE: the values of a tag of the dynamic section
    readelf -d "$2" | sed -n "s/.*($1).*\[\(.*\)\]$/\1/p"
}

# Asks as a program would that is to be built against the tree in $1.
pc() { # pc DESTDIR LIBDIR OPTION...
    local destdir=$1 libdir=$2
    shift 2
    PKG_CONFIG_SYSROOT_DIR=$destdir PKG_CONFIG_LIBDIR=$destdir$libdir/pkgconfig \
        pkg-config "$@" channel_layer
}

# Echoes nothing but what the program says: it must say it, and end with status 0.
says() { # says TEXT COMMAND...
    local expected=$1
    shift
    same "$expected" "$("$@")"
}

# --- the usual place ------------------------------------------------------------------------

root=$stage/root
check "make install succeeds" install_to "$root"
lib=$root/usr/local/lib
so=$lib/libchannel_layer.so.$version

layout() {
    same "include/channel_layer.h
lib/libchannel_layer.a
lib/libchannel_layer.so -> libchannel_layer.so.0
lib/libchannel_layer.so.0 -> libchannel_layer.so.$version
lib/libchannel_layer.so.$version
lib/pkgconfig/channel_layer.pc" "$(tree "$root/usr/local")"
}
check "what is installed, and nothing else" layout
check "the SONAME is libchannel_layer.so.0" same libchannel_layer.so.0 "$(dynamic SONAME "$so")"
check "the header is the committed one" cmp include/channel_layer.h \
    "$root/usr/local/include/channel_layer.h"

exports() {
    local names
    names=$(nm -D --defined-only "$so" | awk '{ print $3 }' | LC_ALL=C sort)
    # Exactly those that the header declares: one more is a leak, one less cannot be linked.
    same "$(sed 's|//.*||' include/channel_layer.h | grep -o '\blayer_[a-z_]*(' | tr -d '(' |
        LC_ALL=C sort -u)" "$names" &&
        ! grep -v '^layer_' <<<"$names"
}
check "it exports the functions of the header and no others" exports

nodelete() {
    readelf -d "$so" | grep 'FLAGS_1.*NODELETE' >/dev/null
}
check "it stays in memory after dlclose" nodelete

needs() { # only what every Linux machine with glibc has
    ! dynamic NEEDED "$so" | grep -vE '^(libgcc_s\.so\.1|lib(c|m|pthread|dl|rt|util)\.so\.[0-9]+|ld-linux-.*)$'
}
check "it needs only glibc and libgcc_s" needs

size() {
    local bytes
    cp "$so" "$stage/stripped.so" && strip --strip-unneeded "$stage/stripped.so" || return
    bytes=$(stat -c %s "$stage/stripped.so")
    echo "stripped, the library has $bytes bytes"
    [ "$bytes" -lt 6000000 ]
}
check "stripped it is smaller than 6 MB" size

# --- the same bytes wherever it is built ----------------------------------------------------

# What would differ between two machines: where the source, what was built of it, the crates and Rust
# are. Whoever has them where the names lead that packaging/build_release.sh gives has no difference.
places() {
    printf '%s\n' "$PWD/src/" "$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/" \
        "${CARGO_HOME:-$HOME/.cargo}/registry/" "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/" |
        grep -vE '^/(channel-layer/(src|target/release)|cargo/registry)/$'
}
names_a_place() { # names_a_place FILE: succeeds where it holds one of these paths
    grep --text --only-matching --fixed-strings --max-count 3 --file <(places) "$1" | sort -u
}
check "the library names no folder of this machine" eval ! names_a_place "$so"
check "nor does the static one" eval ! names_a_place "$lib/libchannel_layer.a"
would_be_seen() {
    { cat "$so" && echo "$PWD/src/lib.rs"; } >"$stage/planted.so"
    names_a_place "$stage/planted.so" >/dev/null
}
check "a folder in it would be seen" would_be_seen
rm -f "$stage/planted.so"

# --- pkg-config -----------------------------------------------------------------------------

check "pkg-config: the version is Cargo.toml's" same "$version" \
    "$(pc "$root" /usr/local/lib --modversion)"
check "pkg-config: flags" same \
    "-I$root/usr/local/include -L$root/usr/local/lib -lchannel_layer" \
    "$(pc "$root" /usr/local/lib --cflags --libs | sed 's/ *$//')"

# --- programs -------------------------------------------------------------------------------

# Built in a folder that holds nothing but its source, so that only the flags can find the library.
build_outside() { # build_outside PROGRAM FLAGS...
    local program=$1
    shift
    (cd "$outside" && "${cc[@]}" -std=c11 -Wall -Wextra -Werror outside.c -o "$program" "$@")
}
cp tests/install/outside.c "$outside"

read -ra flags < <(pc "$root" /usr/local/lib --cflags --libs)
check "a program builds with pkg-config's flags" build_outside shared "${flags[@]}"
check "it asks for the library by its SONAME" same libchannel_layer.so.0 \
    "$(dynamic NEEDED "$outside/shared" | grep channel_layer)"
check "and runs" says "sent and received" env LD_LIBRARY_PATH="$lib" timeout 60 "$outside/shared"

# The linker takes a shared library before a static one of the same name, so the flag is made to
# name the file. All others are pkg-config's.
read -ra flags < <(pc "$root" /usr/local/lib --static --cflags --libs |
    sed 's/-lchannel_layer\b/-l:libchannel_layer.a/')
check "a program links the static library" build_outside static "${flags[@]}"
check "it does not ask for the shared one" same "" \
    "$(dynamic NEEDED "$outside/static" | grep channel_layer)"
check "and runs on its own" says "sent and received" timeout 60 "$outside/static"

# --- another place --------------------------------------------------------------------------

other=$stage/other
libdir=/opt/layer/lib/multiarch
check "make install takes PREFIX and LIBDIR" install_to "$other" PREFIX=/opt/layer LIBDIR=$libdir
check "the library is in LIBDIR" test -e "$other$libdir/libchannel_layer.so"
check "pkg-config follows" same \
    "-I$other/opt/layer/include -L$other$libdir -lchannel_layer" \
    "$(pc "$other" $libdir --cflags --libs | sed 's/ *$//')"

touch "$root/usr/local/lib/libother.so"
check "make uninstall succeeds" make --no-print-directory uninstall DESTDIR="$root"
check "and leaves what is not its own" same "lib/libother.so" "$(tree "$root/usr/local")"

# --- the Python package ---------------------------------------------------------------------

# What the tests of the binding hold its wheel to, of the library that is installed.
wheel_works() {
    local wheel
    wheel=$(make --no-print-directory wheel | tail -n 1) || return
    CHANNEL_LAYER_TEST_WHEEL=$wheel CHANNEL_LAYER_TEST_API=unused \
        CHANNEL_LAYER_TEST_LIBRARY=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd) \
        bindings/python/tests/one_version.sh "${PYTHON:-python3}" python-venv -k test_wheel
}
check "make wheel builds one that works outside the tree" wheel_works

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
