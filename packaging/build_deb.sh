#!/bin/bash
# Builds the Debian packages and their source package, in target/deb: build_deb.sh
#
# They are built in a copy of the tracked files, as a distribution would from a release. What was
# compiled here already is taken as it is: the copy has the files' times and this target folder, so
# that make finds its release build good. cargo and rustc are those of the PATH, which the build
# profile pkg.channel-layer.toolchain tells debhelper; all else that debian/control asks for is
# checked as ever.

set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
out=$target/deb
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
debian_version=$(dpkg-parsechangelog --show-field Version)
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog --show-field Timestamp)
export SOURCE_DATE_EPOCH

# Debian sorts 1.0~rc.1 before 1.0, as semver does 1.0-rc.1.
if [ "${debian_version%-*}" != "${version/-/\~}" ]; then
    echo "build_deb.sh: debian/changelog begins with $debian_version, and Cargo.toml says $version:" \
        "please begin an entry for ${version/-/\~}-1 in debian/changelog" >&2
    exit 1
fi

tree=$out/channel-layer-${debian_version%-*}
rm -rf "$out"
mkdir -p "$tree"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z
else # from a release
    find . \( -path ./target -o -path ./fuzz/target -o -name __pycache__ \) -prune -o -type f -print0
fi | tar --create --null --no-recursion --files-from=- | tar --extract --directory="$tree"

tar --create --xz --directory="$out" --exclude="$(basename "$tree")/debian" \
    --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
    --clamp-mtime --mtime="@$SOURCE_DATE_EPOCH" \
    --file="$out/channel-layer_${debian_version%-*}.orig.tar.xz" "$(basename "$tree")"

cd "$tree"
CARGO_TARGET_DIR=$target DEB_BUILD_PROFILES=pkg.channel-layer.toolchain \
    dpkg-buildpackage --build=full --unsigned-source --unsigned-changes
cd "$out"
rm -rf "$tree"
ls -l -- *.deb
