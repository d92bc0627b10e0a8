#!/bin/bash
# Makes the Debian 12 that the packages are tried in, with compilers, and prints its path; 650 MB. Its
# exit status is that of debian_root.sh: 3 where this machine cannot make it.

set -euo pipefail
exec "$(dirname "$0")/../fixture/debian_root.sh" deb-root bookworm usr/bin/cmake \
    g++,make,cmake,pkg-config,nlohmann-json3-dev,ca-certificates,python3,python3-msgpack
