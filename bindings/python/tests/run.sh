#!/bin/bash
# What `make test` runs of the Python binding: run.sh [PYTEST ARGUMENT...]; see versions.sh.

exec "$(dirname "$0")/versions.sh" --default "$@"
