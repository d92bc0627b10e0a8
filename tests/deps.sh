#!/bin/sh
# Installs what the tests need and this machine lacks: deps.sh [bench|sanitize|deb|big-endian]
#
# Nothing is asked of the network where nothing is missing, and no system service is started:
# the tests start RabbitMQ nodes of their own.

set -eu

missing=""
need() { # need PACKAGE COMMAND...: the package is there if the command succeeds
    package=$1
    shift
    if ! "$@" >/dev/null 2>&1; then
        missing="$missing $package"
    fi
}

need g++ "${CXX:-g++}" --version
need pkg-config pkg-config --version
need openssl openssl version
if [ "${1:-test}" = test ] || [ "${1:-test}" = bench ]; then
    need golang-go go version
    need golang-github-vmihailenco-msgpack.v5-dev \
        test -d /usr/share/gocode/src/github.com/vmihailenco/msgpack/v5
    need ruby ruby --version
    need ruby-ffi ruby -e 'require "ffi"'
    need ruby-msgpack ruby -e 'require "msgpack"'
fi
if [ "${1:-test}" = bench ]; then
    need librabbitmq-dev pkg-config --exists librabbitmq
    need redis-server redis-server --version
    need python3 "${PYTHON:-python3}" --version
    need python3-venv "${PYTHON:-python3}" -c 'import ensurepip, venv'
elif [ "${1:-test}" = sanitize ]; then
    need valgrind valgrind --version
elif [ "${1:-test}" = big-endian ]; then
    need qemu-user command -v qemu-s390x
    need gcc-s390x-linux-gnu command -v s390x-linux-gnu-gcc
    need libc6-dev-s390x-cross test -e /usr/s390x-linux-gnu/lib/libc.so.6
elif [ "${1:-test}" = deb ]; then
    need build-essential dpkg-query -W build-essential
    need debhelper command -v dh
    need dh-python command -v dh_python3
    need dpkg-dev dpkg-buildpackage --version
    need lintian lintian --version
    need debootstrap debootstrap --version
    need wget wget --version
    need python3 "${PYTHON:-python3}" --version
else
    need clang-format clang-format --version
    need cmake cmake --version
    need mandoc command -v mandoc
    need shellcheck shellcheck --version
    need abigail-tools abidiff --version
    need binutils nm --version
    need libasio-dev test -e /usr/include/asio.hpp
    need libboost-dev test -e /usr/include/boost/beast.hpp
    need libglib2.0-dev pkg-config --exists glib-2.0
    need nlohmann-json3-dev test -e /usr/include/nlohmann/json.hpp
    need ruby-minitest ruby -e 'require "minitest"'
    need ruby-rack ruby -e 'require "rack"'
    need puma puma --version
    need unicorn unicorn --version
    need rubocop rubocop --version
    need doxygen doxygen --version
    need libuv1-dev pkg-config --exists libuv
    need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    need valgrind valgrind --version
    need python3 "${PYTHON:-python3}" --version
    need python3-venv "${PYTHON:-python3}" -c 'import ensurepip, venv'
fi
if [ "${1:-test}" = test ] && [ "$(id -u)" -eq 0 ]; then
    # For RabbitMQ 4, which only root can run; see tests/rabbitmq4.
    need debootstrap debootstrap --version
    need wget wget --version
fi
if [ -z "${CHANNEL_LAYER_RABBITMQ_SERVER:-}" ]; then
    need rabbitmq-server test -x /usr/lib/rabbitmq/bin/rabbitmq-server
fi

for component in fmt clippy; do
    if ! "${CARGO:-cargo}" "$component" --version >/dev/null 2>&1; then
        echo "deps: cargo $component is missing; install that component of your Rust" \
            "toolchain (with rustup: rustup component add rustfmt clippy)" >&2
        exit 1
    fi
done

# What is not there yet is installed below, and Debian's is newer.
if "${PYTHON:-python3}" --version >/dev/null 2>&1 &&
    ! "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "deps: ${PYTHON:-python3} is $("${PYTHON:-python3}" --version), and the tools of this tree need" \
        "Python 3.11 or newer; PYTHON=… names another" >&2
    exit 1
fi

if [ -z "$missing" ]; then
    exit 0
fi
echo "deps: missing:$missing"
if ! command -v apt-get >/dev/null; then
    echo "deps: there is no apt-get here; please install what these Debian packages" \
        "hold, and run this again" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "deps: please run as root: apt-get install$missing" >&2
    exit 1
fi

# Debian starts a service as it installs it, unless this file says no.
policy=/usr/sbin/policy-rc.d
own_policy=""
remove_policy() {
    if [ -n "$own_policy" ]; then
        $as_root rm -f "$policy"
    fi
}
trap remove_policy EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

# shellcheck disable=SC2086  # the list is words
{
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing
}
# Nor shall one start at the next boot, on a machine that only wanted to run our tests.
if command -v systemctl >/dev/null; then
    for service in rabbitmq-server redis-server; do
        case $missing in
        *$service*) $as_root systemctl disable "$service.service" ;;
        esac
    done
fi
