#!/bin/sh
# Runs a program of a RabbitMQ 4 root for a node of tests/fixture/rabbitmq.py. It is called by a
# link, bin/VERSION/PROGRAM: CHANNEL_LAYER_RABBITMQ_SERVER=tests/rabbitmq4/bin/4.3/rabbitmq-server.
# `make_root.sh VERSION` makes the root.
#
# The node's folder is visible in the root under the same path. It is mounted in a mount namespace
# of the program's own, so that nothing is left to unmount, however the node ends; ports and pids
# are the machine's.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$(basename "$here")
source=${here%/tests/rabbitmq4/bin/"$version"}
target=${CARGO_TARGET_DIR:-target}
case $target in
/*) ;;
*) target=$source/$target ;;
esac
root=$target/rabbitmq-$version
program=/usr/lib/rabbitmq/bin/$(basename "$0")
folder=${CHANNEL_LAYER_FIXTURE:-}

if [ "$(id -u)" -ne 0 ]; then
    echo "$0: a chroot needs root; this is user $(id -un)" >&2
    exit 1
fi
if [ ! -x "$root$program" ]; then
    echo "$0: there is no $root$program; run tests/rabbitmq4/make_root.sh $version" >&2
    exit 1
fi
if [ ! -d "$folder" ]; then
    echo "$0: CHANNEL_LAYER_FIXTURE names no folder of a node: '$folder'" >&2
    exit 1
fi

# shellcheck disable=SC2016  # the inner shell expands these
exec unshare --mount --propagation private sh -euc '
    root=$1 folder=$2 program=$3
    shift 3
    above=$(dirname "$folder")
    mkdir -p "$root$above"
    # Else the mount point would stay in the root, one for each node that ever ran.
    mount -t tmpfs -o mode=1777 tmpfs "$root$above"
    mkdir "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot "$root" sh -euc "cd \"\$1\" && shift && exec \"\$@\"" sh \
        "$folder" "$program" "$@"
' sh "$root" "$folder" "$program" "$@"
