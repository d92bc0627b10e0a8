#!/bin/bash
# Makes the folder that a RabbitMQ 4 runs in, a Debian of its own below the target folder, and
# prints its path: make_root.sh VERSION; 300 MB. Its exit status is that of debian_root.sh: 3 where
# this machine cannot make it.

set -euo pipefail

version=${1:-}
# The Debian release that has this RabbitMQ.
declare -A suites=([4.0]=trixie [4.3]=forky)

if [ -z "${suites[${version:-none}]:-}" ]; then
    echo "make_root.sh: there is no RabbitMQ '$version'; there are: 4.0 4.3" >&2
    exit 2
fi
exec "$(dirname "$0")/../fixture/debian_root.sh" "rabbitmq-$version" "${suites[$version]}" \
    usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server
