#!/bin/bash
# Makes the folder that RabbitMQ 4 runs in, a Debian 13 below the target folder, and prints its
# path; 400 MB. Its exit status is that of debian_root.sh: 3 where this machine cannot make it.

set -euo pipefail
exec "$(dirname "$0")/../fixture/debian_root.sh" rabbitmq4 trixie usr/lib/rabbitmq/bin/rabbitmq-server \
    rabbitmq-server
