/* Groups: who gets what is sent to one. */
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

CASE(group_within_a_process) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *outsider = new_channel(layer), *members[3];
    struct probe *probes[3];
    for (size_t i = 0; i < 3; i++) {
        members[i] = new_channel(layer);
        probes[i] = probe_new(text("member %zu", i));
        CHECK_OK(layer_group_add(layer, group, members[i], ERR));
        CHECK_OK(receive(layer, members[i], probes[i], NULL));
    }
    CHECK_STAT(layer, LAYER_STAT_GROUPS, 1);
    CHECK_STAT(layer, LAYER_STAT_GROUPS_BOUND, 1);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 3);
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_OK(layer_group_send_json(layer, group, "{\"n\":2}", ERR));
    for (size_t i = 0; i < 3; i++) {
        WAIT_MESSAGES(probes[i], 2);
        for (size_t n = 0; n < 2; n++) {
            const layer_message_t *message = SEEN(probes[i], messages[n]);
            CHECK(number_of(message) == (int64_t)n + 1, "message %lld came as number %zu",
                  (long long)number_of(message), n);
            CHECK(strcmp(layer_message_group(message), group) == 0, "group %s",
                  layer_message_group(message));
            CHECK(strcmp(layer_message_channel(message), members[i]) == 0, "channel %s, not %s",
                  layer_message_channel(message), members[i]);
        }
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, outsider);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 3); /* Fan-out is in memory... */
    WAIT_STAT(layer, LAYER_STAT_RECEIVED, 7);    /* ...and counts for each member. */
}

CASE(group_across_processes) {
    layer_t *sender = open_layer(DEFAULTS),
            *layers[] = {open_layer(DEFAULTS), open_layer(DEFAULTS)};
    const char *group = unique("group-"), *channels[4];
    for (size_t i = 0; i < 4; i++) {
        channels[i] = new_channel(layers[i % 2]);
        CHECK_OK(layer_group_add(layers[i % 2], group, channels[i], ERR));
    }
    CHECK_OK(group_send_number(sender, group, 1));
    CHECK_OK(group_send_number(layers[0], group, 2));
    for (size_t i = 0; i < 4; i++) {
        CHECK_PULL(layers[i % 2], channels[i], 1);
        CHECK_PULL(layers[i % 2], channels[i], 2);
        CHECK_NOTHING_BEFORE_FENCE(sender, layers[i % 2], channels[i]);
    }
    CHECK_STAT(sender, LAYER_STAT_DELIVERIES, 0);
}

/* The second process: joins a group, says so, and answers the number that the group gets. */
CHILD(group_member) {
    if (argc != 2) {
        return 2;
    }
    const char *group = argv[0], *answer_to = argv[1];
    layer_config_t *config = layer_config_new();
    layer_t *layer = NULL;
    layer_message_t *message = NULL;
    char channel[LAYER_NAME_SIZE];
    int status = 0;
    if (layer_config_set(config, "host", test_host(), NULL) != LAYER_OK ||
        layer_new(config, &layer, NULL) != LAYER_OK ||
        layer_new_channel(layer, "member.", channel, sizeof channel, NULL) != LAYER_OK ||
        layer_group_add(layer, group, channel, NULL) != LAYER_OK) {
        status = 3;
    } else if (send_number(layer, answer_to, -1) != LAYER_OK) {
        status = 4;
    } else if (layer_receive_next(layer, channel, 20000, &message, NULL) != LAYER_OK) {
        status = 5;
    } else if (send_number(layer, answer_to, number_of(message) + 1) != LAYER_OK) {
        status = 6;
    }
    layer_message_free(message);
    layer_free(layer);
    layer_config_free(config);
    return status;
}

CASE_WHEN(group_across_two_programs, amqp_only) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *answers = new_channel(layer);
    /* By its name: under valgrind the link itself leads to valgrind. */
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    CHECK(length > 0, "readlink failed");
    program[length] = '\0';
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        execl(program, "conformance", "--child", "group_member", group, answers, (char *)NULL);
        _exit(127);
    }
    CHECK_PULL(layer, answers, -1); /* It is a member. */
    CHECK_OK(group_send_number(layer, group, 41));
    CHECK_PULL(layer, answers, 42);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %#x", status);
}

CASE(groups_on_two_exchanges_do_not_leak) {
    const char *exchanges[] = {unique("groups-"), unique("groups-")}, *group = unique("group-");
    layer_t *layers[2];
    const char *channels[2];
    for (size_t i = 0; i < 2; i++) {
        layers[i] = open_layer("groups_exchange", exchanges[i]);
        channels[i] = new_channel(layers[i]);
        CHECK_OK(layer_group_add(layers[i], group, channels[i], ERR));
    }
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(group_send_number(layers[i], group, (int64_t)i));
        CHECK_NOTHING_BEFORE_FENCE(layers[i], layers[1 - i], channels[1 - i]);
        CHECK_PULL(layers[i], channels[i], i);
    }
}

CASE(adding_twice_delivers_once) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *channel = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 1);
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_PULL(layer, channel, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
    CHECK_OK(layer_group_discard(layer, group, channel, ERR)); /* Once is enough. */
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    CHECK_OK(group_send_number(layer, group, 2));
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}

CASE(discarding_a_non_member_is_fine) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *member = new_channel(layer);
    CHECK_OK(layer_group_discard(layer, unique("group-"), member, ERR));
    CHECK_OK(layer_group_add(layer, group, member, ERR));
    CHECK_OK(layer_group_discard(layer, group, new_channel(layer), ERR));
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_PULL(layer, member, 1);
}

CASE(a_discarded_member_keeps_what_is_queued_and_gets_no_more) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *leaver = new_channel(layer),
               *stayer = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, leaver, ERR));
    CHECK_OK(layer_group_add(layer, group, stayer, ERR));
    CHECK_OK(group_send_number(layer, group, 1));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    CHECK_OK(layer_group_discard(layer, group, leaver, ERR));
    CHECK_OK(group_send_number(layer, group, 2));
    CHECK_PULL(layer, leaver, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, leaver);
    CHECK_PULL(layer, stayer, 1);
    CHECK_PULL(layer, stayer, 2);
}

CASE(discard_then_add_receives_again_every_time) {
    layer_t *sender = open_layer(DEFAULTS), *layer = open_layer(DEFAULTS);
    const char *group = unique("group-"), *channel = new_channel(layer);
    for (int64_t i = 0; i < 50; i++) { /* The unbind of one round must not undo the next bind. */
        CHECK_OK(layer_group_add(layer, group, channel, ERR));
        CHECK_OK(group_send_number(sender, group, i));
        CHECK_PULL(layer, channel, i);
        CHECK_OK(layer_group_discard(layer, group, channel, ERR));
    }
    WAIT_STAT(layer, LAYER_STAT_GROUPS_BOUND, 0);
    CHECK_STAT(layer, LAYER_STAT_GROUPS, 0);
    CHECK_OK(group_send_number(sender, group, 50));
    CHECK_NOTHING_BEFORE_FENCE(sender, layer, channel);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_NO_MEMBER, 0); /* Unbound, so nothing came at all. */
}

CASE(a_group_send_to_nobody_is_ok) {
    layer_t *layer = open_layer(DEFAULTS);
    struct probe *done = probe_new("done");
    CHECK_OK(group_send_number(layer, unique("nobody-"), 1));
    CHECK_OK(layer_group_send_json(layer, unique("nobody-"), "{}", ERR));
    CHECK_OK(group_send_async(layer, unique("nobody-"), 2, done));
    WAIT_CALLS(done, 1);
    CHECK_SEEN(done, outcomes[LAYER_OK], 1);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 3);
}

/* The broker has a message for a group whose last member here went away meanwhile. */
CASE(a_group_known_only_to_the_broker_is_acked_and_does_not_stall) {
    layer_t *sender = open_layer(DEFAULTS);
    layer_t *layer = open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "1");
    const char *group = unique("group-"), *channel = new_channel(layer);
    enum { ORPHANS = 3 };
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_OK(send_number(sender, channel, 1)); /* Held in memory, so that the rest waits. */
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    for (int64_t i = 0; i < ORPHANS; i++) {
        CHECK_OK(group_send_number(sender, group, 100 + i));
    }
    CHECK_OK(layer_group_discard(layer, group, channel, ERR));
    CHECK_OK(send_number(sender, channel, 2));
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    CHECK_PULL(layer, channel, 1);
    CHECK_PULL(layer, channel, 2);
    WAIT_STAT(layer, LAYER_STAT_DROPPED_NO_MEMBER, ORPHANS);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, ORPHANS + 2);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES_HELD, 0);
}

CASE(a_full_member_refuses_a_group_send_and_the_others_get_it) {
    layer_t *sender = open_layer(DEFAULTS), *easy = open_layer(DEFAULTS);
    layer_t *full =
        open_layer(HOLDING, "local_capacity", "1", "prefetch_count", "1", "remote_capacity", "1");
    const char *group = unique("group-"), *of_full = new_channel(full),
               *of_easy = new_channel(easy);
    CHECK_OK(layer_group_add(full, group, of_full, ERR));
    CHECK_OK(layer_group_add(easy, group, of_easy, ERR));
    CHECK_OK(send_number(sender, of_full, 1));
    CHECK_OK(send_number(sender, of_full, 2));
    WAIT_STAT(full, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(send_number(sender, of_full, 3));

    CHECK_STATUS(LAYER_FULL, group_send_number(sender, group, 4));
    CHECK_PULL(easy, of_easy, 4);
    struct probe *done = probe_new("done");
    CHECK_OK(group_send_async(sender, group, 5, done));
    WAIT_CALLS(done, 1);
    CHECK_SEEN(done, outcomes[LAYER_FULL], 1);
    CHECK_PULL(easy, of_easy, 5);
    CHECK_STAT(sender, LAYER_STAT_SENDS_FULL, 2);

    for (int64_t i = 1; i <= 3; i++) {
        CHECK_PULL(full, of_full, i);
    }
    CHECK_OK(group_send_number(sender, group, 6)); /* Drained, it is served again. */
    CHECK_PULL(full, of_full, 6);
    CHECK_PULL(easy, of_easy, 6);
}

struct adder {
    layer_t *layer, *sender;
    const char *group, *channel;
    int64_t number;
    struct gate *start;
};

/* What is sent after the add has returned must arrive, whoever bound the group. */
static void add_and_send(void *argument) {
    struct adder *adder = argument;
    GATE_WAIT(adder->start);
    CHECK_OK(layer_group_add(adder->layer, adder->group, adder->channel, ERR));
    CHECK_OK(group_send_number(adder->sender, adder->group, adder->number));
    int64_t number;
    do { /* Those of the others come too. */
        number = PULL_NUMBER(adder->layer, adder->channel);
    } while (number != adder->number);
}

CASE(every_add_returns_once_the_group_is_routed) {
    enum { ADDERS = 8, ROUNDS = 10 };
    layer_t *sender = open_layer(DEFAULTS);
    layer_t *layer = open_layer("remote_capacity", "1000", "local_capacity", "1000");
    for (int64_t round = 0; round < ROUNDS; round++) {
        const char *group = unique("group-");
        struct gate *start = gate_new();
        struct thread *threads[ADDERS];
        for (int64_t i = 0; i < ADDERS; i++) {
            struct adder *adder = case_alloc(sizeof *adder);
            *adder = (struct adder){layer, sender, group, new_channel(layer), i, start};
            threads[i] = spawn(add_and_send, adder);
        }
        gate_open(start);
        for (int64_t i = 0; i < ADDERS; i++) {
            join(threads[i]);
        }
    }
}

CASE(an_async_add_is_done_once_the_group_is_routed) {
    layer_t *sender = open_layer(DEFAULTS), *layer = open_layer(DEFAULTS);
    enum { GROUPS = 50 };
    struct probe *done = probe_new("done");
    const char *groups[GROUPS], *channel = new_channel(layer);
    for (size_t i = 0; i < GROUPS; i++) {
        groups[i] = unique("group-");
        CHECK_OK(group_add_async(layer, groups[i], channel, done));
    }
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, GROUPS); /* Recorded at once. */
    WAIT_CALLS(done, GROUPS);
    CHECK_SEEN(done, outcomes[LAYER_OK], GROUPS);
    CHECK_STAT(layer, LAYER_STAT_GROUPS_BOUND, GROUPS);
    for (size_t i = 0; i < GROUPS; i++) {
        CHECK_OK(group_send_number(sender, groups[i], (int64_t)i));
        CHECK_PULL(layer, channel, i);
    }
}
