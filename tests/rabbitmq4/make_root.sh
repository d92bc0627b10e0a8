#!/bin/bash
# Makes the folder that RabbitMQ 4 runs in, a Debian 13 below the target folder, and prints its
# path. It is made once, in about a minute and 400 MB; what is there already is whole.
#
# Exit status: 0, or 3 where this machine cannot make it - its user is not root, or no Debian
# mirror can be reached - or 1. What is missing is then said in the last line of standard error.
# CHANNEL_LAYER_DEBIAN_MIRROR names another mirror.

set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
root=$target/rabbitmq4
mirror=${CHANNEL_LAYER_DEBIAN_MIRROR:-http://deb.debian.org/debian}
server=usr/lib/rabbitmq/bin/rabbitmq-server
log=$target/rabbitmq4.log

fail() { # fail STATUS MESSAGE
    echo "rabbitmq4: $2" >&2
    exit "$1"
}

mirror_answers() {
    timeout 60 wget -q --tries=2 --timeout=15 -O /dev/null "$mirror/dists/trixie/InRelease"
}

if [ "$(id -u)" -ne 0 ]; then
    fail 3 "RabbitMQ 4 runs in a chroot of its own, which takes root; this is user $(id -un)"
fi
mkdir -p "$target"
# Whoever comes second waits, and finds it made.
exec 9>"$target/rabbitmq4.lock"
flock 9
if [ ! -x "$root/$server" ]; then
    for tool in debootstrap wget unshare; do
        command -v "$tool" >/dev/null ||
            fail 1 "there is no $tool here; on Debian, 'make deps' installs it"
    done
    mirror_answers ||
        fail 3 "the Debian mirror $mirror cannot be reached (CHANNEL_LAYER_DEBIAN_MIRROR: another)"
    part=$(mktemp -d "$target/rabbitmq4.part.XXXXXX")
    trap 'rm -rf --one-file-system "$part"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$part"
    mkdir -p "$part/usr/sbin" "$part/etc/dpkg/dpkg.cfg.d"
    # No package may start a service.
    printf '#!/bin/sh\nexit 101\n' >"$part/usr/sbin/policy-rc.d"
    chmod 755 "$part/usr/sbin/policy-rc.d"
    # It is made anew where the power fails meanwhile, so that no file need be synced.
    echo force-unsafe-io >"$part/etc/dpkg/dpkg.cfg.d/unsafe-io"
    echo "rabbitmq4: making $root by debootstrap; this takes about a minute" >&2
    # In a mount namespace of its own, what debootstrap mounts is gone when it ends, however that
    # comes about.
    if ! unshare --mount debootstrap --variant=minbase --include=rabbitmq-server trixie "$part" \
        "$mirror" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        mirror_answers || fail 3 "the Debian mirror $mirror was lost while debootstrap ran"
        fail 1 "debootstrap failed; all that it said is in $log"
    fi
    [ -x "$part/$server" ] || fail 1 "debootstrap left no $server in its folder; see $log"
    rm -rf "$part"/var/cache/apt/archives/*.deb
    mv -T "$part" "$root" || fail 1 "$root is in the way and holds no $server; please remove it"
fi
cd "$root"
pwd
