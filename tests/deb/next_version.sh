#!/bin/bash
# Makes of the packages in a folder those of another version, without building anything:
# next_version.sh FROM TO OLD NEW, where OLD and NEW are versions as 0.1.0.
#
# So that an upgrade can be tried before there is anything to upgrade to. The library's file has its
# version in its name, and so have what leads to it and the checksums.

set -euo pipefail
from=$1 to=$2 old=$3 new=$4
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for package in "$from"/*.deb; do
    tree=$scratch/$(basename "$package" .deb)
    dpkg-deb --raw-extract "$package" "$tree"
    sed -i "s/\b${old//./\\.}\b/$new/g" "$tree/DEBIAN/control"
    while IFS= read -r -d '' path; do
        renamed=$(dirname "$path")/$(basename "$path" | sed "s/${old//./\\.}/$new/")
        if [ -L "$path" ]; then
            destination=$(readlink "$path" | sed "s/${old//./\\.}/$new/")
            rm "$path"
            ln -s "$destination" "$renamed"
        elif [ "$renamed" != "$path" ]; then
            mv "$path" "$renamed"
        fi
    done < <(find "$tree/usr" -depth \( -name "*$old*" -o -type l -lname "*$old*" \) -print0)
    find "$tree/usr" \( -name '*.cmake' -o -name '*.pc' -o -path '*.dist-info/METADATA' \) \
        -exec sed -i "s/${old//./\\.}/$new/g" {} +
    (cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --build --root-owner-group -Zgzip -z1 "$tree" "$to" >/dev/null
done
