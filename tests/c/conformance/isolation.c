/* Isolation: channels that have kept the broker from sending for `stall_after` are bounded one by
 * one, so that none keeps another waiting. */
#include "support.h"

#define FEW "local_capacity", "1", "prefetch_count", "1"

static layer_t *open_told(layer_config_t *config, struct probe *probe) {
    CHECK_OK(on_isolation(config, probe));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    return layer;
}

CASE(a_channel_nobody_reads_is_isolated_after_stall_after) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer = open_told(new_config(FEW, "stall_after", "0.3"), probe);
    const char *dead = new_channel(layer);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 1);
    double held = harness_now();
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 5); /* Nothing is held back any more. */
    double waited = harness_now() - held;
    CHECK(waited >= 0.3 - 0.05, "it began after %.3f s", waited);
    WAIT_FOR(probe->begins == 1, "told of %u begins", probe->begins);
    CHECK_SEEN(probe, waiting, 2);
    CHECK_STAT(layer, LAYER_STAT_ISOLATING, 1);
    CHECK_STAT(layer, LAYER_STAT_ISOLATIONS, 1);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 0);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_PULL(layer, dead, i);
    }
    WAIT_FOR(probe->ends_of_isolation == 1, "told of %u ends", probe->ends_of_isolation);
    CHECK_SEEN(probe, ended, 0);
    CHECK_STAT(layer, LAYER_STAT_ISOLATING, 0);
}

CASE(an_isolated_channel_keeps_channel_capacity_messages_and_loses_its_newest) {
    layer_config_t *config =
        new_config(FEW, "stall_after", "0.05", "channel_capacity", "3", "remote_capacity", "1000");
    struct probe *probe = probe_new("isolation"), *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_told(config, probe);
    const char *dead = new_channel(layer), *alive = new_channel(layer);
    probe->loser = dead;
    for (int64_t i = 0; i < 10; i++) {
        CHECK_OK(send_number(layer, dead, i));
        CHECK_OK(send_number(layer, alive, i));
    }
    for (int64_t i = 0; i < 3; i++) {
        CHECK_PULL(layer, alive, i); /* It kept as many; what it can take, it gets. */
    }
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 20);
    for (int64_t i = 100; i < 110; i++) {
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 30);
    WAIT_FOR(probe->lost_by_loser == 17, "the channel has lost %llu",
             (unsigned long long)probe->lost_by_loser);
    for (int64_t i = 0; i < 3; i++) {
        CHECK_PULL(layer, dead, i);
    }
    layer_message_t *message = NULL;
    while (STATUS(layer_receive_next(layer, alive, 0, &message, ERR)) == LAYER_OK) {
        layer_message_free(message);
    }
    WAIT_FOR(probe->ends_of_isolation == 1, "told of %u ends", probe->ends_of_isolation);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, SEEN(probe, ended));
    CHECK_STAT(layer, LAYER_STAT_DROPPED_TOTAL_FULL, 0);
    CHECK_STAT(layer, LAYER_STAT_SENDS_FULL, 0);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, dead);
    WAIT_FOR(was_logged(log, "WARN isolation_began"), "the beginning was not logged");
    WAIT_FOR(was_logged(log, "WARN channel_full_dropped"), "the loss was not logged");
    WAIT_FOR(was_logged(log, text("%s (17)", dead)), "no record says what the channel has lost");
    WAIT_FOR(was_logged(log, "WARN isolation_ended"), "the end was not logged");
}

/* A channel that took each message at once, while 101 others have not read one broadcast. */
static void hears_all_beside(layer_t *layer, unsigned members) {
    layer_t *sender = open_layer(DEFAULTS);
    const char *group = unique("group-"), *alive = new_channel(layer);
    struct probe *joined = probe_new("joined"), *prompt = probe_new("prompt");
    for (unsigned i = 0; i < members; i++) {
        CHECK_OK(group_add_async(layer, group, new_channel(layer), joined));
    }
    WAIT_CALLS(joined, members);
    CHECK_OK(receive(layer, alive, prompt, NULL));
    CHECK_OK(group_send_number(sender, group, 0));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, members);
    for (int64_t i = 0; i < 300; i++) {
        CHECK_OK(send_number(sender, alive, i));
        WAIT_MESSAGES(prompt, i + 1);
    }
    for (int64_t i = 0; i < 300; i++) {
        CHECK(probe_number(prompt, (size_t)i) == i, "message %lld is not the next", (long long)i);
    }
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, members);
}

CASE(one_broadcast_that_nobody_reads_delays_no_other_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    hears_all_beside(layer, 101);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 0);
}

/* Django's way to count: the broadcast is one delivery, whoever has not read it. */
CASE(without_local_capacity_one_broadcast_holds_one_delivery) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "2");
    hears_all_beside(layer, 101);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 1);
    CHECK_STAT(layer, LAYER_STAT_ISOLATIONS, 0);
}

CASE(a_member_that_nobody_reads_costs_the_others_of_its_process_nothing) {
    layer_t *layer = open_layer("stall_after", "0.1"), *sender = open_layer(DEFAULTS);
    const char *group = unique("group-"), *dead = new_channel(layer), *alive = new_channel(layer);
    struct probe *prompt = probe_new("prompt");
    CHECK_OK(layer_group_add(layer, group, dead, ERR));
    CHECK_OK(layer_group_add(layer, group, alive, ERR));
    CHECK_OK(receive(layer, alive, prompt, NULL));
    for (int64_t i = 0; i < 300; i++) {
        CHECK_OK(group_send_number(sender, group, i));
        WAIT_MESSAGES(prompt, i + 1);
    }
    CHECK_STAT(layer, LAYER_STAT_ISOLATIONS, 1);
    WAIT_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 300 - stat_of(layer, LAYER_STAT_BACKLOG));
    uint64_t kept = stat_of(layer, LAYER_STAT_BACKLOG);
    CHECK(kept >= 100, "%llu are kept", (unsigned long long)kept);
    for (uint64_t i = 0; i < kept; i++) {
        CHECK_PULL(layer, dead, i);
    }
}

CASE(the_fullest_channel_loses_its_newest_where_all_hold_total_capacity) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer =
        open_told(new_config(FEW, "stall_after", "0.05", "total_capacity", "10"), probe);
    const char *big = new_channel(layer), *small = new_channel(layer), *other = new_channel(layer);
    probe->loser = big;
    for (int64_t i = 0; i < 8; i++) {
        CHECK_OK(send_number(layer, big, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 8);
    for (int64_t i = 0; i < 4; i++) {
        CHECK_OK(send_number(layer, small, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 12);
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, 10);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_TOTAL_FULL, 2);
    CHECK_OK(send_number(layer, other, 0));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 13);
    WAIT_FOR(probe->lost_by_loser == 3, "the fullest has lost %llu",
             (unsigned long long)probe->lost_by_loser);
    CHECK_PULL(layer, other, 0);
    for (int64_t i = 0; i < 4; i++) {
        CHECK_PULL(layer, small, i);
    }
    for (int64_t i = 0; i < 5; i++) {
        CHECK_PULL(layer, big, i);
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, big);
    WAIT_FOR(probe->ended == 3, "the end tells of %llu", (unsigned long long)probe->ended);
}

CASE(isolation_begins_again_where_channels_stall_again) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer = open_told(new_config(FEW, "stall_after", "0.05"), probe);
    const char *channel = new_channel(layer);
    for (unsigned round = 1; round <= 3; round++) {
        for (int64_t i = 0; i < 5; i++) {
            CHECK_OK(send_number(layer, channel, i));
        }
        WAIT_FOR(probe->begins == round, "told of %u begins", probe->begins);
        for (int64_t i = 0; i < 5; i++) {
            CHECK_PULL(layer, channel, i);
        }
        WAIT_FOR(probe->ends_of_isolation == round, "told of %u ends", probe->ends_of_isolation);
    }
    CHECK_STAT(layer, LAYER_STAT_ISOLATIONS, 3);
}

CASE(after_isolation_a_channel_may_hold_again_what_memory_may) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer = open_told(new_config("local_capacity", "4", "prefetch_count", "1",
                                          "stall_after", "0.05", "channel_capacity", "1"),
                               probe);
    const char *channel = new_channel(layer);
    for (int64_t i = 0; i < 7; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 2);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_PULL(layer, channel, i);
    }
    WAIT_FOR(probe->ends_of_isolation == 1, "told of %u ends", probe->ends_of_isolation);
    for (int64_t i = 0; i < 4; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 4);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 2);
}

CASE(a_discard_ends_isolation) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer = open_told(new_config(FEW, "stall_after", "0.05"), probe);
    const char *dead = new_channel(layer);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 5);
    CHECK_OK(layer_channel_discard(layer, dead, ERR));
    WAIT_FOR(probe->ends_of_isolation == 1, "told of %u ends", probe->ends_of_isolation);
}

CASE(what_was_lost_is_told_though_the_layer_closes_while_channels_are_isolated) {
    struct probe *probe = probe_new("isolation");
    layer_t *layer =
        open_told(new_config(FEW, "stall_after", "0.05", "channel_capacity", "2"), probe);
    const char *dead = new_channel(layer);
    for (int64_t i = 0; i < 7; i++) {
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 5);
    CHECK_OK(layer_close(layer, 10000, ERR));
    CHECK_STAT(layer, LAYER_STAT_ISOLATING, 0);
    free_layer(layer);
    CHECK_SEEN(probe, ends_of_isolation, 1);
    CHECK_SEEN(probe, ended, 5);
}

/* A worker takes one message at a time and nobody else is there: its senders are held back. */
static int32_t pause_a_little(struct probe *probe, layer_status_t status,
                              const layer_message_t *message) {
    (void)probe;
    (void)message;
    if (status == LAYER_OK) {
        harness_pause(0.02);
    }
    return LAYER_CONTINUE;
}

CASE(a_worker_that_is_alone_is_not_isolated_however_long_its_burst_takes) {
    layer_t *layer = open_layer("local_capacity", "5", "prefetch_count", "2", "channel_capacity",
                                "5", "stall_after", "0.1", "remote_capacity", "1000");
    const char *channel = new_channel(layer);
    struct probe *worker = probe_new("worker");
    worker->on_message = pause_a_little;
    CHECK_OK(receive(layer, channel, worker, NULL));
    for (int64_t i = 0; i < 50; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_MESSAGES(worker, 50);
    for (int64_t i = 0; i < 50; i++) {
        CHECK(probe_number(worker, (size_t)i) == i, "message %lld was lost", (long long)i);
    }
    CHECK_STAT(layer, LAYER_STAT_DROPPED_CHANNEL_FULL, 0);
}

CASE(isolation_is_told_by_layer_poll_in_poll_mode) {
    struct probe *probe = probe_new("isolation");
    layer_config_t *config = new_config(FEW, "stall_after", "0.05", "dispatch", "poll");
    layer_t *layer = open_told(config, probe);
    const char *dead = new_channel(layer);
    for (int64_t i = 0; i < 5; i++) {
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_ISOLATING, 1);
    CHECK_SEEN(probe, calls, 0);
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    while (SEEN(probe, begins) == 0) {
        CHECK(harness_now() < deadline, "no call came");
        CHECK_OK(layer_poll(layer, 0, 100, NULL, ERR));
    }
    CHECK_OK(layer_close(layer, 10000, ERR));
    free_layer(layer);
    free_config(config);
    CHECK_SEEN(probe, destroys, 1);
}
