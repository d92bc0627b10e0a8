/* What expires: messages on the broker, messages in memory, memberships. */
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

/* False if this machine was too slow to pull a message before that one expired as well. */
static bool expired_message_is_dropped(double expiry) {
    layer_config_t *config = new_config("local_expiry", text("%.1f", expiry), "expiry", "60");
    struct probe *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    const char *channel = new_channel(layer);
    double sent = harness_now();
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, 1);
    double lived = harness_now() - sent;
    CHECK(lived >= expiry, "it was dropped after %.3f s", lived);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 0);
    WAIT_STAT(layer, LAYER_STAT_CHANNELS, 0);
    WAIT_FOR(was_logged(log, channel), "no log record names the channel %s", channel);
    WAIT_FOR(was_logged(log, "WARN"), "no warning was logged");
    CHECK_OK(send_number(layer, channel, FENCE));
    layer_message_t *message = NULL;
    layer_status_t status =
        STATUS(layer_receive_next(layer, channel, (uint32_t)(expiry * 1000), &message, ERR));
    if (status == LAYER_TIMEOUT) {
        return false;
    }
    CHECK(status == LAYER_OK, "%s (%s)", layer_status_name(status), error_text());
    int64_t number = number_of(message);
    layer_message_free(message);
    CHECK(number == FENCE, "message %lld came", (long long)number);
    return true;
}

CASE(a_message_that_expires_in_memory_is_dropped_counted_and_logged) {
    double expiry = 0.2;
    while (!expired_message_is_dropped(expiry)) {
        expiry *= 2;
        CHECK(expiry < 10, "no message was pulled within %.1f s", expiry / 2);
    }
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

/* Nobody has received from the channel: it leaves its group, and a warning names both. */
CASE(a_membership_expires_when_its_channel_is_not_used) {
    layer_config_t *config = new_config("group_expiry", "0.3");
    struct probe *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *sender = open_layer(DEFAULTS), *layer = open_with(config);
    const char *group = unique("group-"), *channel = new_channel(layer);
    double added = harness_now();
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS_EXPIRED, 1);
    double lived = harness_now() - added;
    CHECK(lived >= 0.3, "it expired after %.3f s", lived);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    WAIT_STAT(layer, LAYER_STAT_GROUPS, 0);
    WAIT_STAT(layer, LAYER_STAT_GROUPS_BOUND, 0);
    WAIT_FOR(was_logged(log, "WARN memberships_expired"), "no warning was logged");
    WAIT_FOR(was_logged(log, group) && was_logged(log, channel),
             "no record names group and channel");
    CHECK_OK(group_send_number(sender, group, 1));
    CHECK_NOTHING_BEFORE_FENCE(sender, layer, channel);
    CHECK_OK(layer_group_discard(layer, group, channel, ERR));

    CHECK_OK(layer_group_add(layer, group, channel, ERR)); /* It can join again. */
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS_EXPIRED, 2);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
}

/* The expiry of a membership that nobody uses, of the same age, is the clock. */
struct witness {
    layer_t *layer;
    const char *group;
    uint64_t expired;
};

static void begin_witness(struct witness *witness, layer_t *layer) {
    witness->layer = layer;
    witness->group = unique("witness-");
    witness->expired = stat_of(layer, LAYER_STAT_MEMBERSHIPS_EXPIRED);
    CHECK_OK(layer_group_add(layer, witness->group, new_channel(layer), ERR));
}

static bool has_expired(const struct witness *witness) {
    return stat_of(witness->layer, LAYER_STAT_MEMBERSHIPS_EXPIRED) > witness->expired;
}

/* A receiver waits, a thread waits, a callback runs; and messages are taken now and then. */
CASE(a_channel_in_use_stays_in_its_group) {
    layer_t *layer = open_layer("group_expiry", "0.3");
    const char *group = unique("group-"), *received = new_channel(layer),
               *polled = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, received, probe, NULL));
    CHECK_OK(layer_group_add(layer, group, received, ERR));
    CHECK_OK(layer_group_add(layer, unique("other-"), received, ERR));
    for (unsigned round = 0; round < 3; round++) {
        struct witness witness;
        begin_witness(&witness, layer);
        double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
        while (!has_expired(&witness)) {
            CHECK(harness_now() < deadline, "nothing ever expires");
            layer_message_t *message = NULL;
            CHECK_STATUS(LAYER_TIMEOUT, layer_receive_next(layer, polled, 10, &message, ERR));
        }
    }
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 2);
    CHECK_OK(group_send_number(layer, group, 1));
    WAIT_MESSAGES(probe, 1);
    uint64_t expired = stat_of(layer, LAYER_STAT_MEMBERSHIPS_EXPIRED);
    CHECK_OK(layer_channel_discard(layer, received, ERR)); /* This is no expiry. */
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS_EXPIRED, expired);
}

/* False if this machine was too slow to take a message within group_expiry. */
static bool taken_in_time(layer_t *layer, const char *group, const char *channel, double expiry) {
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    double last = harness_now(), first = last;
    for (int64_t number = 0; harness_now() < first + 2 * expiry; number++) {
        CHECK_OK(send_number(layer, channel, number));
        CHECK_PULL(layer, channel, number);
        if (harness_now() > last + expiry * 0.9) {
            return false;
        }
        last = harness_now();
        harness_pause(expiry / 8);
    }
    uint64_t memberships = stat_of(layer, LAYER_STAT_MEMBERSHIPS);
    if (harness_now() > last + expiry * 0.9) {
        return false;
    }
    CHECK(memberships == 1, "%llu memberships", (unsigned long long)memberships);
    return true;
}

CASE(a_message_taken_renews_the_memberships_of_its_channel) {
    double expiry = 0.5;
    layer_t *layer = open_layer("group_expiry", "0.5");
    const char *group = unique("group-"), *channel = new_channel(layer);
    for (unsigned tries = 0; !taken_in_time(layer, group, channel, expiry);) {
        CHECK(++tries < 20, "this machine is too slow to take a message each %.2f s", expiry);
    }
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0); /* And then it does expire. */
}

/* False if this machine was too slow to add in time. */
static bool renewed_in_time(layer_t *layer, const char *group, const char *channel, double expiry) {
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    double last = harness_now(), first = last;
    while (harness_now() < first + 2 * expiry) {
        harness_pause(expiry / 4);
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
    double expiry = 0.5;
    layer_t *layer = open_layer("group_expiry", "0.5");
    const char *group = unique("group-"), *leaver = new_channel(layer),
               *stayer = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, leaver, ERR));
    for (unsigned tries = 0; !renewed_in_time(layer, group, stayer, expiry);) {
        CHECK(++tries < 20, "this machine is too slow to add each %.2f s", expiry);
    }
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, leaver);
    WAIT_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0); /* And then it does expire. */
}

CASE(memberships_that_never_expire_stay) {
    layer_t *layer = open_layer("group_expiry", "never"),
            *other = open_layer("group_expiry", "0.1");
    const char *group = unique("group-"), *channel = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    for (unsigned round = 0; round < 3; round++) {
        struct witness witness;
        begin_witness(&witness, other);
        WAIT_STAT(other, LAYER_STAT_MEMBERSHIPS_EXPIRED, witness.expired + 1);
    }
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 1);
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_PULL(layer, channel, 1);
}
