# shellcheck shell=bash
# To be sourced in the root of the tree: sets and exports CHANNEL_LAYER_TEST_OUTPUT, the folder that a
# run of the tests writes to, apart from what cargo builds; one inside another run has its folder.
#
# It is the target folder; where another run in this tree writes there, it is a folder of this run's
# own, which is in $own_output and removed by forget_own_output.

own_output=
if [ -z "${CHANNEL_LAYER_TEST_OUTPUT:-}" ]; then
    CHANNEL_LAYER_TEST_OUTPUT=${CARGO_TARGET_DIR:-target}
    mkdir -p "$CHANNEL_LAYER_TEST_OUTPUT" || exit 1
    # Held until the last process of this run has ended.
    exec {running}>"$CHANNEL_LAYER_TEST_OUTPUT/test-run.lock"
    if ! flock --nonblock "$running"; then
        own_output=$(mktemp -d "$CHANNEL_LAYER_TEST_OUTPUT/test-run.XXXXXX") || exit 1
        CHANNEL_LAYER_TEST_OUTPUT=$own_output
        echo "another run of the tests is under way here: this one writes to $own_output"
    fi
    export CHANNEL_LAYER_TEST_OUTPUT
fi

# After a run in which nothing failed: nobody needs its logs.
forget_own_output() {
    [ -z "$own_output" ] || rm -rf "$own_output"
}
