# shellcheck shell=sh
# To be sourced by the tests of a binding: ends them where their surroundings are not set.

for name in CHANNEL_LAYER_TEST_AMQP CHANNEL_LAYER_TEST_LIBRARY CHANNEL_LAYER_TEST_API; do
    if eval "[ -z \"\${$name:-}\" ]"; then
        echo "$0: $name is not set; tests/bindings/README.md says what it is" >&2
        exit 2
    fi
done
unset name
