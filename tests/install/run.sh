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

# By the header, and not by what makes the pages and the symbols file.
functions=$(sed 's|//.*||' include/channel_layer.h | grep -o '\blayer_[a-z_]*(' | tr -d '(' | LC_ALL=C sort -u)
layout() {
    same "$({
        echo "include/channel_layer.h"
        find bindings/cpp/include -name '*.hpp' -printf 'include/%P\n'
        echo "lib/cmake/ChannelLayer/ChannelLayerConfig.cmake"
        echo "lib/cmake/ChannelLayer/ChannelLayerConfigVersion.cmake"
        echo "lib/libchannel_layer.a"
        echo "lib/libchannel_layer.so -> libchannel_layer.so.0"
        echo "lib/libchannel_layer.so.0 -> libchannel_layer.so.$version"
        echo "lib/libchannel_layer.so.$version"
        echo "lib/pkgconfig/channel_layer.pc"
        printf 'share/man/man3/%s.3\n' channel_layer $functions
    } | LC_ALL=C sort)" "$(tree "$root/usr/local")"
}
check "what is installed, and nothing else" layout
check "the SONAME is libchannel_layer.so.0" same libchannel_layer.so.0 "$(dynamic SONAME "$so")"
check "the header is the committed one" cmp include/channel_layer.h \
    "$root/usr/local/include/channel_layer.h"

readable() { # whoever installs may have a strict umask
    local kept
    kept=$(umask)
    umask 077
    install_to "$stage/strict" >/dev/null
    umask "$kept"
    ! find "$stage/strict" -mindepth 1 ! -type l ! -perm -444 | grep .
}
check "all can read it, whatever the umask" readable
rm -rf "$stage/strict"

exports() {
    local names
    names=$(nm -D --defined-only "$so" | awk '{ print $3 }' | LC_ALL=C sort)
    # Exactly those that the header declares: one more is a leak, one less cannot be linked.
    same "$functions" "$names" && ! grep -v '^layer_' <<<"$names"
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

size() { # size FILE LIMIT
    local bytes
    bytes=$(stat -c %s "$1")
    echo "$(basename "$1") has $bytes bytes"
    [ "$bytes" -lt "$2" ]
}
check "it is smaller than 6 MB" size "$so" 6000000
check "and the static library smaller than 14 MB" size "$lib/libchannel_layer.a" 14000000
has_symbols() { # has_symbols FILE
    readelf -SW "$1" 2>/dev/null | grep '\.debug_line\b' >/dev/null
}
check "both are stripped" eval '! has_symbols "$so" && ! has_symbols "$lib/libchannel_layer.a"'
with_symbols() {
    make --no-print-directory install-debug DESTDIR="$stage/debug" >/dev/null &&
        has_symbols "$stage/debug/usr/local/lib/libchannel_layer.so" &&
        has_symbols "$stage/debug/usr/local/lib/libchannel_layer.a"
}
check "make install-debug keeps the symbols" with_symbols
check "and installs the same files" same "$(tree "$root")" "$(tree "$stage/debug")"
rm -rf "$stage/debug"

static_exports() {
    same "$functions" "$(nm --extern-only --defined-only "$lib/libchannel_layer.a" | awk 'NF == 3 { print $3 }' |
        LC_ALL=C sort)"
}
check "the static library has the global names of the header and no others" static_exports
no_bitcode() {
    ! readelf -SW "$lib/libchannel_layer.a" 2>/dev/null | grep llvm
}
check "and no bitcode" no_bitcode

# What of glibc it needs at least: the newest version of a symbol that it asks for.
floor_of() { # floor_of FILE
    objdump -T "$1" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -uV | tail -n 1
}
floor=$(floor_of "$so")
documented() {
    echo "it needs glibc $floor"
    grep -F "glibc $floor or newer" docs/portability.md && grep -F "glibc $floor or newer" README.md
}
check "the glibc that it needs is the one in the documents" documented

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

# --- man pages ------------------------------------------------------------------------------

man=$root/usr/local/share/man/man3
lint() {
    # The date of a page is that of SOURCE_DATE_EPOCH, which a distribution sets.
    (cd "$stage/dated" && mandoc -T lint -W warning ./*.3)
}
mkdir "$stage/dated"
awk -v folder="$stage/dated" -v version="$version" -v date=2000-01-01 -f packaging/man_pages.awk \
    include/channel_layer.h README.md >"$stage/pages"
check "mandoc finds nothing wrong with the man pages" lint
shown() { # shown PAGE: as it is read, without the backspaces that make letters bold
    mandoc -T ascii "$man/$1.3" | sed 's/.\x08//g'
}
overview() { # what it is made of is all there
    local text word
    text=$(shown channel_layer)
    for word in $(sed -n 's/^| `\([a-z_]*\)` |.*/\1/p' README.md) \
        $(grep -o '\bLAYER_[A-Z_]* = [0-9]*' include/channel_layer.h | cut -d ' ' -f 1) $functions; do
        grep -qw -- "$word" <<<"$text" || { echo "it does not speak of $word" && return 1; }
    done
}
check "the overview has every option, constant and function" overview
signature() {
    same "$(grep -A 4 '^layer_status_t layer_new_channel(' include/channel_layer.h | sed 's/^ *//')" \
        "$(shown layer_new_channel | grep -A 4 'layer_new_channel(const' |
            sed 's/^ *//')"
}
check "the page of a function has its signature" signature
no_half_page() { # that the header is read is not taken for granted
    ! awk -v folder="$stage/dated" -v version=1 -f packaging/man_pages.awk Makefile README.md \
        2>"$stage/said" && grep -q "the header is not written as" "$stage/said"
}
check "no page is made of a header that cannot be read" no_half_page

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

beside() { # another library of Rust that was optimised as a whole, as ours is
    cp tests/install/beside.c tests/install/beside.rs "$outside"
    (cd "$outside" && "${RUSTC:-rustc}" --edition 2024 -O -C lto=fat --crate-type staticlib beside.rs &&
        "${cc[@]}" -std=c11 -Wall -Wextra -Werror beside.c libbeside.a -o after "${flags[@]}" &&
        "${cc[@]}" -std=c11 -Wall -Wextra -Werror beside.c "${flags[@]}" libbeside.a -o before)
}
check "it links before and after another library of Rust" beside
check "and both work" says "hello and 11" timeout 60 "$outside/after"
check "in either order" says "hello and 11" timeout 60 "$outside/before"

two_copies() {
    cp tests/install/two_copies.c "$outside"
    (cd "$outside" && "${cc[@]}" -std=c11 -Wall -Wextra -Werror two_copies.c "${flags[@]}" -o two_copies)
}
check "a program with the static library can load the shared one" two_copies
check "memory:// says that there are two" says other_copy timeout 60 "$outside/two_copies" "$so"
check "and nothing where there is one" says "" timeout 60 "$outside/two_copies"

# --- CMake ----------------------------------------------------------------------------------

cp tests/install/outside.cpp tests/install/cmake/CMakeLists.txt "$outside"
with_cmake() { # with_cmake FOLDER PREFIX_PATH [OPTION...]
    local folder=$1 prefix=$2
    shift 2
    (cd "$outside" && CC=${CC:-} CXX=${CXX:-} cmake -S . -B "$folder" "-DCMAKE_PREFIX_PATH=$prefix" \
        -DC_SOURCE=outside.c -DCXX_SOURCE=outside.cpp -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF \
        -DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF "$@") >"$stage/cmake.log" 2>&1
}
builds_with_cmake() { # builds_with_cmake FOLDER PREFIX_PATH [OPTION...]
    if ! with_cmake "$@" || ! cmake --build "$outside/$1" >>"$stage/cmake.log" 2>&1; then
        cat "$stage/cmake.log"
        return 1
    fi
}
# The tree is moved first: whatever the files say, it is not where it was installed to.
mkdir "$stage/moved"
cp -a "$root/usr/local" "$stage/moved/tree"
check "CMake finds it in a tree that was moved, and programs in C and C++ build" \
    builds_with_cmake build "$stage/moved/tree" "-DWANTED=${version%.*}"
check "it is the version that was installed" grep -F -- "-- found version $version" "$stage/cmake.log"
for language in c cpp; do
    check "the program in $language with the shared library asks for its SONAME" \
        same libchannel_layer.so.0 "$(dynamic NEEDED "$outside/build/${language}_shared" | grep channel_layer)"
    check "and runs" says "sent and received" timeout 60 "$outside/build/${language}_shared"
    check "the program in $language with the static library does not" \
        same "" "$(dynamic NEEDED "$outside/build/${language}_static" | grep channel_layer)"
    check "and runs on its own" says "sent and received" timeout 60 "$outside/build/${language}_static"
done
refuses() { # refuses WANTED TEXT
    ! with_cmake "refused$RANDOM" "$stage/moved/tree" "-DWANTED=$1" && grep -F "$2" "$stage/cmake.log"
}
check "CMake refuses a version that is newer" refuses "${version%%.*}.99" "version: $version"
check "and one of another major number" refuses "$((${version%%.*} + 1)).0" "version: $version"
check "and a range that does not hold it" refuses "0.0.1...<$version" "version: $version"
check "and one that is exact and another" refuses "0.0.1;EXACT" "version: $version"
check "and a component, since there are none" refuses "COMPONENTS;tls" "there is no component 'tls'"
check "it takes a range that holds it" with_cmake range "$stage/moved/tree" "-DWANTED=0.0.1...<1.0"
check "and an exact version" with_cmake exact "$stage/moved/tree" "-DWANTED=$version;EXACT"
rm "$stage/moved/tree/lib/libchannel_layer.a"
check "CMake says what is missing of a tree that is not whole" refuses "" "libchannel_layer.a is missing"

# --- another place --------------------------------------------------------------------------

other=$stage/other
libdir=/opt/layer/lib/multiarch
check "make install takes PREFIX and LIBDIR" install_to "$other" PREFIX=/opt/layer LIBDIR=$libdir
check "the library is in LIBDIR" test -e "$other$libdir/libchannel_layer.so"
check "pkg-config follows" same \
    "-I$other/opt/layer/include -L$other$libdir -lchannel_layer" \
    "$(pc "$other" $libdir --cflags --libs | sed 's/ *$//')"

check "and so does CMake" with_cmake elsewhere "$other/opt/layer" \
    "-DChannelLayer_DIR=$other$libdir/cmake/ChannelLayer" "-DWANTED=$version;EXACT"
strange=$stage/strange
check "make install takes folders that have no parent in common" install_to "$strange" \
    PREFIX=/one LIBDIR=/two/lib INCLUDEDIR=/three/include MANDIR=/four/man
check "and CMake follows" with_cmake strange "$strange/two" "-DWANTED=$version"

touch "$lib/libother.so" "$lib/libchannel_layer.so.9.0.0"
ln -s libchannel_layer.so.9.0.0 "$lib/libchannel_layer.so.9"
check "make uninstall succeeds" make --no-print-directory uninstall DESTDIR="$root"
check "and leaves what is not its own, another version too" same "lib/libchannel_layer.so.9 -> libchannel_layer.so.9.0.0
lib/libchannel_layer.so.9.0.0
lib/libother.so" "$(tree "$root/usr/local")"

no_folder() { # a folder that is the library's alone goes with it
    ! find "$root" -type d -iname 'channel*layer' | grep .
}
check "and no folder of its own" no_folder

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
tagged() {
    [[ $(make --no-print-directory wheel | tail -n 1) == *"-manylinux_${floor/./_}_"* ]]
}
check "the tag of the wheel says which glibc it needs" tagged

# --- debian ---------------------------------------------------------------------------------

# What `make deb` and `make check-deb` would find out, and takes no time.
changelog_version() {
    local first
    first=$(sed -n '1s/^channel-layer (\(.*\)-[0-9]*) .*/\1/p' debian/changelog)
    same "${version/-/\~}" "$first"
}
check "debian/changelog begins with this version" changelog_version
symbols() {
    same "$functions" "$(sed -n 's/^ \(layer_[a-z_]*\)@Base .*/\1/p' debian/libchannel-layer0.symbols |
        LC_ALL=C sort)" ||
        { echo "one that is new has the line ' NAME@Base $version' in debian/libchannel-layer0.symbols" && false; }
}
check "debian's symbols are the functions of the header" symbols
soname_package() {
    grep -Fx "libchannel_layer.so.0 libchannel-layer0 #MINVER#" debian/libchannel-layer0.symbols
}
check "the package is named for the SONAME" soname_package
packed() { # each installed file is in one package: debhelper's lists hold it, or its folder
    local debian_root=$stage/debian path pattern found
    install_to "$debian_root" PREFIX=/usr LIBDIR=/usr/lib/triplet >/dev/null || return
    while read -r path; do
        found=0
        for pattern in $(cat debian/*.install); do
            # shellcheck disable=SC2053  # it is a pattern
            [[ usr/$path != $pattern && usr/$path != $pattern/* ]] || found=$((found + 1))
        done
        [ "$found" -eq 1 ] || { echo "usr/$path is in $found of debian/*.install" && return 1; }
    done < <(cd "$debian_root/usr" && find . ! -type d -printf '%P\n')
}
check "each installed file is in one Debian package" packed
crates() { # they are what is indented there
    same "$("${PYTHON:-python3}" packaging/linked_crates.py | sed 's/^/  /')" "$(grep '^  ' debian/copyright)"
}
check "debian/copyright has the crates that are linked" crates

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
