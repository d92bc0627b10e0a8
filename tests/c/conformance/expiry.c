/* What lapses: messages on the broker, messages in memory, memberships. */
#include "support.h"

/* A queue of one place is full until its message has expired there. */
CASE(a_message_that_expires_on_the_broker_is_never_delivered) {
    layer_t *layer = open_layer("expiry", "0.2", "local_expiry", "60", "local_capacity", "0",
                                "prefetch_count", "1", "remote_capacity", "1");
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 1); /* Message 1 is in memory, where it stays. */
    double sent = harness_now();
    CHECK_OK(send_number(layer, channel, 2));
    double room_by = harness_now() + harness_scaled(WAIT_SECONDS);
    layer_status_t status;
    while ((status = STATUS(send_number(layer, channel, 3))) == LAYER_FULL) {
        CHECK(harness_now() < room_by, "the queue stays full");
        harness_pause(0.01);
    }
    double waited = harness_now() - sent;
    CHECK(status == LAYER_OK, "%s (%s)", layer_status_name(status), error_text());
    CHECK(waited >= 0.2, "there was room after %.3f s, before the message had expired", waited);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    CHECK_PULL(layer, channel, 1);
    bool fenced = false;
    while (!fenced) { /* A fence that waits on the broker may expire too; then there is another. */
        CHECK(harness_now() < room_by + harness_scaled(WAIT_SECONDS), "no fence ever came");
        status = STATUS(send_number(layer, channel, FENCE));
        CHECK(status == LAYER_OK || status == LAYER_FULL, "%s", layer_status_name(status));
        layer_message_t *message = NULL;
        while (STATUS(layer_receive_next(layer, channel, 50, &message, ERR)) == LAYER_OK) {
            int64_t number = number_of(message);
            layer_message_free(message);
            CHECK(number == 3 || number == FENCE, "message %lld came", (long long)number);
            fenced = fenced || number == FENCE;
        }
    }
    CHECK_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, 0);
}

static bool logged(struct probe *log, const char *what) {
    bool found = false;
    harness_lock();
    for (size_t i = 0; i < sizeof log->lines / sizeof log->lines[0]; i++) {
        found = found || (log->lines[i] != NULL && strstr(log->lines[i], what) != NULL);
    }
    harness_unlock();
    return found;
}

CASE(a_message_that_expires_in_memory_is_dropped_counted_and_logged) {
    layer_config_t *config = new_config("local_expiry", "0.2", "expiry", "60");
    struct probe *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    const char *channel = new_channel(layer);
    double sent = harness_now();
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, 1);
    double lived = harness_now() - sent;
    CHECK(lived >= 0.2, "it was dropped after %.3f s", lived);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 0);
    WAIT_STAT(layer, LAYER_STAT_CHANNELS, 0);
    WAIT_FOR(logged(log, channel), "no log record names the channel %s", channel);
    WAIT_FOR(logged(log, "WARN"), "no warning was logged");
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}

CASE(local_expiry_follows_expiry_by_default) {
    layer_t *layer = open_layer("expiry", "0.2");
    CHECK_OK(send_number(layer, new_channel(layer), 1));
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, 1);
}

CASE(channels_that_hold_only_expired_messages_go_away) {
    enum { CHANNELS = 200 };
    layer_t *layer = open_layer("local_expiry", "0.5", "local_capacity", "1000", "prefetch_count",
                                "100", "remote_capacity", "1000");
    struct probe *done = probe_new("done");
    for (int64_t i = 0; i < CHANNELS; i++) {
        CHECK_OK(send_async(layer, new_channel(layer), i, done));
    }
    const char *alive = new_channel(layer);
    CHECK_OK(receive(layer, alive, probe_new("receiver"), NULL));
    WAIT_CALLS(done, CHANNELS);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, CHANNELS);
    WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, CHANNELS);
    WAIT_STAT(layer, LAYER_STAT_CHANNELS, 1);
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, 0);
}

CASE(what_expires_in_memory_makes_room_for_what_waits_on_the_broker) {
    layer_t *layer = open_layer("local_expiry", "0.2", "expiry", "60", "local_capacity", "0",
                                "prefetch_count", "1");
    const char *dead = new_channel(layer);
    for (int64_t i = 0; i < 4; i++) { /* Nobody receives, and it does not stall. */
        CHECK_OK(send_number(layer, dead, i));
    }
    WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, 4);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 4);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 0);
}

CASE(a_membership_lapses_group_expiry_after_the_last_add) {
    layer_t *sender = open_layer(DEFAULTS), *layer = open_layer("group_expiry", "0.3");
    const char *group = unique("group-"), *channel = new_channel(layer);
    double added = harness_now();
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    double lived = harness_now() - added;
    CHECK(lived >= 0.3, "it lapsed after %.3f s", lived);
    WAIT_STAT(layer, LAYER_STAT_GROUPS, 0);
    WAIT_STAT(layer, LAYER_STAT_GROUPS_BOUND, 0);
    CHECK_OK(group_send_number(sender, group, 1));
    CHECK_NOTHING_BEFORE_FENCE(sender, layer, channel);
    CHECK_OK(layer_group_discard(layer, group, channel, ERR));

    added = harness_now();
    CHECK_OK(layer_group_add(layer, group, channel, ERR)); /* It can join again. */
    uint64_t memberships = stat_of(layer, LAYER_STAT_MEMBERSHIPS);
    CHECK(memberships == 1 || harness_now() - added >= 0.3, "%llu memberships",
          (unsigned long long)memberships);
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
}

/* Adds every 0.4 s for longer than group_expiry. False if this machine was too slow for it. */
static bool renewed_in_time(layer_t *layer, const char *group, const char *channel) {
    double expiry = 1.0, first = harness_now(), last = first;
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    while (harness_now() < first + 2 * expiry) {
        harness_pause(0.4);
        if (harness_now() > last + expiry * 0.9) {
            return false;
        }
        last = harness_now();
        CHECK_OK(layer_group_add(layer, group, channel, ERR));
    }
    uint64_t memberships = stat_of(layer, LAYER_STAT_MEMBERSHIPS);
    if (harness_now() > last + expiry * 0.9) {
        return false;
    }
    CHECK(memberships == 1, "%llu memberships", (unsigned long long)memberships);
    return true;
}

CASE(adding_again_renews_a_membership) {
    layer_t *layer = open_layer("group_expiry", "1");
    const char *group = unique("group-"), *channel = new_channel(layer);
    unsigned tries = 0;
    while (!renewed_in_time(layer, group, channel)) {
        CHECK(++tries < 10, "this machine is too slow to add every 0.9 s");
    }
    double last = harness_now();
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0); /* And then it does lapse. */
    CHECK(harness_now() - last < harness_scaled(10), "after %.1f s", harness_now() - last);
}

CASE(a_membership_that_lapses_leaves_the_others) {
    layer_t *layer = open_layer("group_expiry", "1");
    const char *group = unique("group-"), *leaver = new_channel(layer),
               *stayer = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, leaver, ERR));
    unsigned tries = 0;
    while (!renewed_in_time(layer, group, stayer)) {
        CHECK(++tries < 10, "this machine is too slow to add every 0.9 s");
        CHECK_OK(layer_group_add(layer, group, leaver, ERR));
    }
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, leaver);
}
