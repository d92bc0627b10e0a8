#!/bin/bash
# Tries the packages of `make deb` as their users would, in a Debian 12 that has never seen them: they
# are installed, programs are built and run with them on a broker, they are upgraded under a program
# that runs, removed and purged, and then nothing is left.
#
# Exit status 3 is make_root.sh's: this machine cannot make that Debian, and the last line says why.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

target=${CARGO_TARGET_DIR:-target}
packages=$target/deb
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
next=${version%.*}.$((${version##*.} + 1))
library=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH) || exit 1

if [ "${1:-}" != --beside-a-node ]; then
    if ! ls "$packages"/libchannel-layer0_"${version/-/\~}"-*.deb >/dev/null 2>&1; then
        echo "check-deb: there are no packages of $version in $packages; 'make deb' builds them" >&2
        exit 1
    fi
    clean=$(tests/deb/make_root.sh) || exit
    # What is mounted in a namespace of its own is gone when it ends, however that comes about.
    exec "${PYTHON:-python3}" tests/fixture/rabbitmq.py run -- \
        unshare --mount --propagation private "$0" --beside-a-node "$clean"
fi
clean=$2

scratch=$(mktemp -d) || exit 1
talker=""
end() {
    [ -z "$talker" ] || kill "$talker" 2>/dev/null
    umount --lazy "$scratch"
    rmdir "$scratch"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The clean root below, and in memory what is written to it.
mount -t tmpfs -o mode=755 tmpfs "$scratch" || exit 1
mkdir "$scratch/written" "$scratch/work" "$scratch/root" || exit 1
mount -t overlay overlay "$scratch/root" \
    -o "lowerdir=$clean,upperdir=$scratch/written,workdir=$scratch/work" || exit 1
root=$scratch/root
mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" || exit 1
mkdir "$root/tmp/packages" "$root/tmp/next" "$root/tmp/build" || exit 1
cp "$packages"/*.deb "$root/tmp/packages/" || exit 1

passed=0
failed=0
check() { # check NAME COMMAND...: one test, which is that the command succeeds
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "$output"
        echo "not ok $name"
    fi
}

same() { # same EXPECTED GOT
    if [ "$1" != "$2" ]; then
        diff -u --label expected <(printf '%s\n' "$1") --label got <(printf '%s\n' "$2")
        return 1
    fi
}

# In the root, with nothing of this machine's environment.
enter=(chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
    DEBIAN_FRONTEND=noninteractive "HOST=$CHANNEL_LAYER_TEST_AMQP")
inside() { # inside COMMAND...
    "${enter[@]}" "$@"
}

in_build() { # in_build SCRIPT: a line of shell, in the folder of the programs
    inside sh -euc "cd /tmp/build; $1"
}

prints() { # prints EXPECTED SCRIPT
    local expected=$1 got
    got=$(in_build "timeout 60 $2") || return
    same "$expected" "$got"
}

# All paths of the root but those that dpkg and ldconfig keep for themselves, and the programs'.
paths() {
    inside find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /var/log \) -prune -o -print |
        grep -vxE '/var/lib/dpkg(/(status|diversions|statoverride)-old|/lock.*)?|/var/cache/ldconfig/aux-cache' |
        LC_ALL=C sort
}

# --- lintian --------------------------------------------------------------------------------

check "lintian finds neither errors nor warnings" \
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$packages"/channel-layer_*.changes

# --- installed ------------------------------------------------------------------------------

before=$(paths)
installed() {
    inside sh -c 'dpkg --install /tmp/packages/*.deb' && inside dpkg --audit
}
check "the packages install, with nothing but what the root has" installed
check "their files are as they were packed" inside dpkg --verify libchannel-layer0 \
    libchannel-layer-dev python3-channel-layer
loader_finds() {
    inside ldconfig -p | grep "libchannel_layer.so.0 .* => /${library#usr/}/libchannel_layer.so.0"
}
check "the loader finds the library" loader_finds
check "each function has a man page" test "$(grep -c ' layer_.*@Base' debian/libchannel-layer0.symbols)" \
    = "$(find "$root/usr/share/man/man3" -name 'layer_*.3.gz' | wc -l)"
debug_symbols() {
    local id
    id=$(readelf -n "$root/$library/libchannel_layer.so.$version" | sed -n 's/.*Build ID: //p')
    [ -n "$id" ] && test -e "$root/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug"
}
check "the debug symbols are this build's" debug_symbols
bill_of_materials() {
    gzip -dcf "$root"/usr/share/doc/libchannel-layer0/channel_layer.cdx.json* |
        "${PYTHON:-python3}" -c '
import json, sys
bill = json.load(sys.stdin)
assert bill["metadata"]["component"]["version"] == sys.argv[1], bill["metadata"]
assert "lapin" in [each["name"] for each in bill["components"]]' "$version"
}
check "the package says what is linked into the library" bill_of_materials

# --- programs -------------------------------------------------------------------------------

awk '/^```c$/ && !done { on = 1; next } /^```$/ { done = done || on; on = 0 } on' \
    README.md >"$root/tmp/build/readme.c"
awk '/^```cpp$/ && !done { on = 1; next } /^```$/ { done = done || on; on = 0 } on' \
    bindings/cpp/README.md >"$root/tmp/build/readme.cpp"
awk '/^```python$/ && !done { on = 1; next } /^```$/ { done = done || on; on = 0 } on' \
    bindings/python/README.md >"$root/tmp/build/readme.py"
told() { # told FILE: what a README says that its program prints
    awk '/^prints$/ { told = 1 } told && /^```$/ { on = !on; if (!on) exit; next } told && on' "$1"
}
of_c='chat of group room: {"type":"chat","text":"hello"}'
of_cpp=$(told bindings/cpp/README.md)
of_python=$(told bindings/python/README.md)
cp tests/deb/talker.c tests/install/cmake/CMakeLists.txt "$root/tmp/build/" || exit 1

check "the C program of the README builds as it says there" \
    in_build "cc readme.c \$(pkg-config --cflags --libs channel_layer) -o by_pkg_config"
check "and runs" prints "$of_c" "./by_pkg_config \$HOST"
check "it builds with the static library" in_build \
    "cc readme.c \$(pkg-config --static --cflags --libs channel_layer |
        sed 's/-lchannel_layer/-l:libchannel_layer.a/') -o by_pkg_config_static"
check "and runs" prints "$of_c" "./by_pkg_config_static \$HOST"
check "the C++ program of its README builds with pkg-config" in_build \
    "g++ -std=c++17 readme.cpp -pthread \$(pkg-config --cflags --libs channel_layer) -o cpp_by_pkg_config"
check "and runs" prints "$of_cpp" "./cpp_by_pkg_config \$HOST"
check "both build with CMake" in_build \
    "cmake -S . -B cmake -DC_SOURCE=readme.c -DCXX_SOURCE=readme.cpp -DWANTED=${version%.*} &&
    cmake --build cmake"
for kind in shared static; do
    check "the C program by CMake runs, $kind" prints "$of_c" "cmake/c_$kind \$HOST"
    check "the C++ program by CMake runs, $kind" prints "$of_cpp" "cmake/cpp_$kind \$HOST"
done
check "the Python program of its README runs" prints "$of_python" "/usr/bin/python3 readme.py \$HOST"
check "Python knows the version, and loads the system's library" prints \
    "$version /$library/libchannel_layer.so.$version" \
    '/usr/bin/python3 -c "
import importlib.metadata
import channel_layer
paths = {line.split()[-1] for line in open(\"/proc/self/maps\") if \"channel_layer.so\" in line}
print(importlib.metadata.version(\"channel_layer\"), *paths)"'

# --- upgrade --------------------------------------------------------------------------------

check "packages of version $next are made" \
    tests/deb/next_version.sh "$packages" "$root/tmp/next" "$version" "$next"
check "a program for the upgrade builds" \
    in_build "cc talker.c \$(pkg-config --cflags --libs channel_layer) -o talker"
mkfifo "$scratch/to" "$scratch/from" || exit 1
"${enter[@]}" /tmp/build/talker "$CHANNEL_LAYER_TEST_AMQP" <"$scratch/to" >"$scratch/from" &
talker=$!
exec 7>"$scratch/to" 8<"$scratch/from"
talks() { # talks WORD: the program that runs sends it and gets it
    local got
    echo "$1" >&7
    read -r -t 30 got <&8 || return
    same "$1" "$got"
}
has_mapped() { # has_mapped TEXT: what the program that runs has of the library
    grep -F "$1" "/proc/$talker/maps"
}
check "the program runs" talks before
check "with the old library" has_mapped "/libchannel_layer.so.$version"
upgraded() {
    inside sh -c 'dpkg --install /tmp/next/*.deb' &&
        test ! -e "$root/$library/libchannel_layer.so.$version" &&
        test -e "$root/$library/libchannel_layer.so.$next"
}
check "the upgrade goes through and replaces the library" upgraded
check "the program that runs goes on" talks after
check "with the old library, whose file is gone" has_mapped "libchannel_layer.so.$version (deleted)"
check "programs that were built before run with the new one" prints "$of_c" "./by_pkg_config \$HOST"
check "and so do those that CMake built" prints "$of_cpp" "cmake/cpp_shared \$HOST"
check "and Python's" prints "$of_python" "/usr/bin/python3 readme.py \$HOST"
check "CMake finds the new version" in_build \
    "cmake -S . -B again -DC_SOURCE=readme.c -DCXX_SOURCE=readme.cpp -DWANTED=$next && cmake --build again"

# --- removal --------------------------------------------------------------------------------

names=(libchannel-layer0 libchannel-layer0-dbgsym libchannel-layer-dev python3-channel-layer)
needed() {
    ! inside dpkg --remove libchannel-layer0
}
check "the library is not removed from below what needs it" needed
check "the packages are removed" inside dpkg --remove "${names[@]}"
no_longer_starts() {
    ! in_build "./by_pkg_config \$HOST" 2>"$scratch/said" && grep "libchannel_layer.so.0" "$scratch/said"
}
check "programs no longer start" no_longer_starts
check "but one that runs goes on" talks removed
exec 7>&- 8<&-
ended() {
    wait "$talker"
    local status=$?
    talker=""
    same 0 "$status"
}
# Here and not in a subshell, since only this shell can wait for it.
if ended; then
    passed=$((passed + 1))
    echo "ok and ends in good order"
else
    failed=$((failed + 1))
    echo "not ok and ends in good order"
fi
check "the packages are purged" inside dpkg --purge "${names[@]}"
unknown() {
    ! inside dpkg-query --show '*channel-layer*'
}
check "dpkg knows none of them" unknown
forgotten() {
    ! inside ldconfig -p | grep channel_layer
}
check "the loader has forgotten the library" forgotten
check "nothing is left" same "$before" "$(paths)"
seen() {
    touch "$root/usr/include/planted" &&
        ! same "$before" "$(paths)" >/dev/null &&
        rm "$root/usr/include/planted"
}
check "what was left would have been seen" seen

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
