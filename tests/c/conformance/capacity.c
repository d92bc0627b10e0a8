/* Back-pressure: what waits in memory, what waits on the broker, and what is refused. */
#include "support.h"

/* The first acks must have reached the broker before the third send is judged: that the second
 * message came proves it. */
CASE(capacities_of_one_give_ok_ok_ok_full) {
    layer_t *layer =
        open_layer("local_capacity", "1", "prefetch_count", "1", "remote_capacity", "1",
                   "channel_capacity", "1", "total_capacity", "1", "stall_after", "3600");
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_OK(send_number(layer, channel, 2));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(send_number(layer, channel, 3));
    CHECK_STATUS(LAYER_FULL, send_number(layer, channel, 4));
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 3);
    CHECK_STAT(layer, LAYER_STAT_SENDS_FULL, 1);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 1);
    for (int64_t i = 1; i <= 3; i++) {
        CHECK_PULL(layer, channel, i);
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}

CASE(a_local_capacity_of_zero_gives_ok_ok_full) {
    layer_t *layer =
        open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "1", "remote_capacity", "1");
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    CHECK_OK(send_number(layer, channel, 2));
    CHECK_STATUS(LAYER_FULL, send_number(layer, channel, 3));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 1);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 1);
    CHECK_PULL(layer, channel, 1);
    CHECK_PULL(layer, channel, 2);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}

CASE(group_sends_with_capacities_of_one_give_ok_ok_ok_full) {
    layer_t *layer =
        open_layer(HOLDING, "local_capacity", "1", "prefetch_count", "1", "remote_capacity", "1");
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_OK(group_send_number(layer, group, 2));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(group_send_number(layer, group, 3));
    CHECK_STATUS(LAYER_FULL, group_send_number(layer, group, 4));
    for (int64_t i = 1; i <= 3; i++) {
        CHECK_PULL(layer, channel, i);
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}

/* Sends `count` messages to nobody and gives how many of them come to memory and stay there. */
static void fill(layer_t *layer, const char *channel, uint64_t count, uint64_t expected) {
    for (uint64_t i = 0; i < count; i++) {
        CHECK_OK(send_number(layer, channel, (int64_t)i));
        uint64_t backlog = stat_of(layer, LAYER_STAT_BACKLOG);
        CHECK(backlog <= expected, "%llu messages in memory, not %llu", (unsigned long long)backlog,
              (unsigned long long)expected);
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, expected);
    harness_pause(0.05); /* No more may come meanwhile. */
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, expected);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, expected);
}

static void drain(layer_t *layer, const char *channel, uint64_t count, uint64_t expected) {
    for (uint64_t i = 0; i < count; i++) {
        CHECK_PULL(layer, channel, i);
        uint64_t backlog = stat_of(layer, LAYER_STAT_BACKLOG);
        CHECK(backlog <= expected, "%llu messages in memory, not %llu", (unsigned long long)backlog,
              (unsigned long long)expected);
    }
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, 0);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, count);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 0);
}

CASE(local_capacity_holds_the_backlog_on_the_broker) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "5", "prefetch_count", "3");
    const char *channel = new_channel(layer);
    fill(layer, channel, 30, 8);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 3);
    drain(layer, channel, 30, 8);
}

CASE(local_capacity_of_zero_holds_prefetch_count_messages) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "4");
    const char *channel = new_channel(layer);
    fill(layer, channel, 20, 4);
    drain(layer, channel, 20, 4);
}

CASE(a_smaller_local_capacity_lowers_the_prefetch_count_that_was_not_set) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "2");
    const char *channel = new_channel(layer);
    fill(layer, channel, 20, 4);
    drain(layer, channel, 20, 4);
}

CASE(the_capacity_is_shared_by_all_channels_of_a_layer) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "2", "prefetch_count", "1");
    const char *one = new_channel(layer), *other = new_channel(layer);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_OK(send_number(layer, one, i));
        CHECK_OK(send_number(layer, other, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 3);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_PULL(layer, one, i);
        CHECK_PULL(layer, other, i);
        uint64_t backlog = stat_of(layer, LAYER_STAT_BACKLOG);
        CHECK(backlog <= 3, "%llu messages in memory", (unsigned long long)backlog);
    }
}

CASE(a_group_message_for_two_channels_counts_twice) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "1", "prefetch_count", "1");
    const char *channels[] = {new_channel(layer), new_channel(layer)}, *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channels[0], ERR));
    CHECK_OK(layer_group_add(layer, group, channels[1], ERR));
    CHECK_OK(group_send_number(layer, group, 1));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 1);
    CHECK_OK(group_send_number(layer, group, 2));
    harness_pause(0.05); /* The second one must not come meanwhile. */
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    CHECK_PULL(layer, channels[0], 1);
    CHECK_PULL(layer, channels[1], 1);
    CHECK_PULL(layer, channels[1], 2);
    CHECK_PULL(layer, channels[0], 2);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 0);
}

CASE(a_queue_is_as_long_as_remote_capacity) {
    layer_t *layer =
        open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "1", "remote_capacity", "25");
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 0));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    for (int64_t i = 1; i <= 25; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    CHECK_STATUS(LAYER_FULL, send_number(layer, channel, 26));
    CHECK_PULL(layer, channel, 0);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(send_number(layer, channel, 27));                 /* There is one place again, */
    CHECK_STATUS(LAYER_FULL, send_number(layer, channel, 28)); /* and one only. */
    for (int64_t i = 1; i <= 25; i++) {
        CHECK_PULL(layer, channel, i);
    }
    CHECK_PULL(layer, channel, 27);
}
