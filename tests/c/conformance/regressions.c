/* What once went wrong between threads: wake-ups, whose thread runs a callback, and time limits. */
#include "support.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* Nothing listens on port 1. */
#define NOWHERE "amqp://user:sesame@127.0.0.1:1/"

/* --- Pulls ----------------------------------------------------------------------------------- */

struct puller {
    layer_t *layer;
    const char *channel;
    uint32_t timeout_ms;
    bool calling;
    layer_status_t status;
    int64_t number;
};

static struct puller *puller_new(layer_t *layer, uint32_t timeout_ms) {
    struct puller *puller = case_alloc(sizeof *puller);
    *puller = (struct puller){layer, new_channel(layer), timeout_ms, false, LAYER_OK, 0};
    return puller;
}

static void pull_one(void *argument) {
    struct puller *puller = argument;
    layer_message_t *message = NULL;
    harness_lock();
    puller->calling = true;
    harness_unlock();
    puller->status = STATUS(
        layer_receive_next(puller->layer, puller->channel, puller->timeout_ms, &message, ERR));
    puller->number = message == NULL ? 0 : number_of(message);
    layer_message_free(message);
}

static struct thread *begin_pull(struct puller *puller) {
    puller->calling = false;
    struct thread *thread = spawn(pull_one, puller);
    WAIT_FOR(puller->calling, "the thread never called");
    harness_pause(0.05); /* So that it waits inside. */
    return thread;
}

#define CHECK_PULLED(puller, expected)                                                             \
    CHECK((puller)->number == (expected), "the pull gave %s and message %lld, not %d",             \
          layer_status_name((puller)->status), (long long)(puller)->number, expected)

static int32_t decline_when_told(struct probe *probe, layer_status_t status,
                                 const layer_message_t *message) {
    (void)message;
    struct gate **inside_and_go_on = probe->context;
    EXPECT(status == LAYER_OK, "ended by %s", layer_status_name(status));
    gate_open(inside_and_go_on[0]);
    GATE_WAIT(inside_and_go_on[1]);
    return LAYER_DECLINE;
}

/* Sends a message to a receiver that declines it once the gate that this gives is opened. */
static struct gate *begin_decline(layer_t *layer, const char *channel, struct probe *decliner) {
    struct gate **gates = case_alloc(2 * sizeof gates[0]);
    gates[0] = gate_new();
    gates[1] = gate_new();
    decliner->on_message = decline_when_told;
    decliner->context = gates;
    CHECK_OK(receive(layer, channel, decliner, NULL));
    CHECK_OK(send_number(layer, channel, 1));
    GATE_WAIT(gates[0]);
    return gates[1];
}

CASE(a_declined_message_wakes_a_pull) {
    layer_t *layer = open_layer(DEFAULTS);
    struct puller *puller = puller_new(layer, 20000);
    struct probe *decliner = probe_new("decliner");
    struct gate *decline = begin_decline(layer, puller->channel, decliner);
    struct thread *thread = begin_pull(puller);
    CHECK(!thread_ended(thread), "the pull did not wait");
    gate_open(decline);
    join_within(thread, 3); /* Long before its time is up. */
    CHECK_PULLED(puller, 1);
    WAIT_DESTROYS(decliner, 1);
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
}

/* Where the decline woke nobody, the first pull finds the message on its last look. */
CASE(a_pull_that_took_a_declined_message_takes_no_wake_up_from_the_next) {
    layer_t *layer = open_layer(DEFAULTS);
    struct puller *puller = puller_new(layer, 1000);
    struct probe *decliner = probe_new("decliner");
    struct gate *decline = begin_decline(layer, puller->channel, decliner);
    struct thread *thread = begin_pull(puller);
    gate_open(decline);
    join(thread);
    CHECK_PULLED(puller, 1);
    WAIT_DESTROYS(decliner, 1);
    puller->timeout_ms = 20000;
    thread = begin_pull(puller);
    CHECK_OK(send_number(layer, puller->channel, 2));
    join_within(thread, 3);
    CHECK_PULLED(puller, 2);
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
}

static void pull_again_and_again(void *argument) {
    struct puller *puller = argument;
    for (unsigned i = 0; i < 6; i++) {
        layer_message_t *message = NULL;
        layer_status_t status = STATUS(
            layer_receive_next(puller->layer, puller->channel, puller->timeout_ms, &message, ERR));
        CHECK(status == LAYER_OK || status == LAYER_TIMEOUT, "%s", layer_status_name(status));
        harness_lock();
        puller->number += status == LAYER_OK;
        harness_unlock();
        layer_message_free(message);
    }
}

/* Here a pull times out as a message comes for which another one is woken. */
CASE(pulls_that_end_as_a_message_comes_leave_nothing_in_their_channel) {
    enum { ROUNDS = 120, PULLERS = 8, SENT = 8 };
    layer_t *layer = open_layer(DEFAULTS);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct puller *all = puller_new(layer, 1);
        struct thread *threads[PULLERS];
        for (size_t j = 0; j < PULLERS; j++) {
            threads[j] = spawn(pull_again_and_again, all);
        }
        for (int64_t n = 0; n < SENT; n++) {
            CHECK_OK(send_number(layer, all->channel, n));
            harness_pause(0.0005);
        }
        for (size_t j = 0; j < PULLERS; j++) {
            join(threads[j]);
        }
        for (; all->number < SENT; all->number++) {
            layer_message_free(pull(layer, all->channel));
        }
        CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
    }
}

/* --- Poll mode ------------------------------------------------------------------------------- */

static pthread_t own_thread;

static void expect_own_thread(struct probe *probe) {
    EXPECT(pthread_equal(pthread_self(), own_thread), "%s: on another thread", probe->name);
    harness_pause(0.005); /* So that a thread that would help has time to. */
}

static int32_t receive_on_own_thread(struct probe *probe, layer_status_t status,
                                     const layer_message_t *message) {
    (void)status, (void)message;
    expect_own_thread(probe);
    return LAYER_CONTINUE;
}

CASE(free_in_poll_mode_runs_callbacks_on_its_own_thread) {
    layer_t *layer = open_layer("dispatch", "poll");
    own_thread = pthread_self();
    struct probe *probes[6], *done = probe_new("done");
    done->on_destroy = expect_own_thread;
    const char *channel = NULL;
    for (size_t i = 0; i < 6; i++) {
        probes[i] = probe_new(text("receiver %zu", i));
        probes[i]->on_message = receive_on_own_thread;
        probes[i]->on_destroy = expect_own_thread;
        channel = new_channel(layer);
        CHECK_OK(receive(layer, channel, probes[i], NULL));
    }
    for (int64_t i = 0; i < 6; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    free_layer(layer);
    CHECK_SEEN(done, destroys, 6);
    for (size_t i = 0; i < 6; i++) {
        CHECK_SEEN(probes[i], end_status, LAYER_CLOSED);
        CHECK_SEEN(probes[i], destroys, 1);
    }
}

static int32_t stay_until_told(struct probe *probe, layer_status_t status,
                               const layer_message_t *message) {
    (void)message;
    if (status == LAYER_OK) {
        GATE_WAIT(probe->context);
    }
    return LAYER_CONTINUE;
}

static void poll_for_one(void *layer) { CHECK_OK(layer_poll(layer, 1, 20000, NULL, ERR)); }

CASE(close_in_poll_mode_is_not_ok_while_a_callback_runs) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("stuck");
    probe->context = gate_new();
    probe->on_message = stay_until_told;
    CHECK_OK(receive(layer, channel, probe, NULL));
    struct thread *thread = spawn(poll_for_one, layer);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_CALLS(probe, 1);
    CHECK_STATUS(LAYER_TIMEOUT, layer_close(layer, 300, ERR));
    CHECK_STATUS(LAYER_TIMEOUT, layer_close(layer, 100, ERR)); /* Again, for it still runs. */
    CHECK_SEEN(probe, destroys, 0);
    gate_open(probe->context);
    join(thread);
    free_layer(layer); /* Ends what was left. */
    CHECK_SEEN(probe, running, 0);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, destroys, 1);
}

/* --- Outcomes -------------------------------------------------------------------------------- */

/* Counts without harness_lock, which would keep the calls from meeting the close. */
struct hammer {
    layer_t *layer;
    const char *channel, *group;
    atomic_uint accepted, done, destroyed;
};

static void hammer_done(void *hammer, layer_status_t status, const layer_error_t *error) {
    (void)status, (void)error;
    ((struct hammer *)hammer)->done++;
}

static void hammer_destroy(void *hammer) { ((struct hammer *)hammer)->destroyed++; }

static void keep_adding(void *argument) {
    struct hammer *hammer = argument;
    layer_status_t status = LAYER_OK;
    for (unsigned i = 0; status == LAYER_OK; i++) {
        char group[64];
        snprintf(group, sizeof group, "%s%u", hammer->group, i);
        status = layer_group_add_async(hammer->layer, group, hammer->channel, hammer_done, hammer,
                                       hammer_destroy, NULL);
        hammer->accepted += status == LAYER_OK;
    }
    CHECK(status == LAYER_CLOSED, "%s", layer_status_name(status));
}

/* Closes a layer amid calls, again and again, for a few seconds at most. */
static void close_amid_calls(const char *host) {
    enum { ROUNDS = 40, HAMMERS = 6 };
    double end = harness_now() + harness_scaled(2.5);
    for (unsigned round = 0; round < ROUNDS && harness_now() < end; round++) {
        layer_t *layer = open_cold("host", host, "timeout", "5");
        if (host == test_host()) {
            CHECK_OK(layer_wait_ready(layer, 20000, ERR));
        }
        struct hammer *hammers = case_alloc(HAMMERS * sizeof *hammers);
        struct thread *threads[HAMMERS];
        const char *channel = new_channel(layer);
        for (unsigned i = 0; i < HAMMERS; i++) {
            hammers[i] = (struct hammer){layer, channel, unique("group-"), 0, 0, 0};
            threads[i] = spawn(keep_adding, &hammers[i]);
        }
        for (unsigned i = 0; i < HAMMERS; i++) {
            while (hammers[i].accepted < 5 && !thread_ended(threads[i])) {
                harness_pause(0.0001);
            }
        }
        CHECK_OK(layer_close(layer, 10000, ERR));
        for (unsigned i = 0; i < HAMMERS; i++) {
            join(threads[i]);
        }
        free_layer(layer);
        for (unsigned i = 0; i < HAMMERS; i++) {
            unsigned accepted = hammers[i].accepted, done = hammers[i].done,
                     destroyed = hammers[i].destroyed;
            CHECK(done == accepted && destroyed == accepted,
                  "round %u: of %u calls %u had an outcome, %u were destroyed", round, accepted,
                  done, destroyed);
        }
    }
}

CASE(every_call_accepted_while_closing_gets_its_outcome) { close_amid_calls(test_host()); }
CASE(every_call_accepted_while_closing_unconnected_gets_its_outcome) { close_amid_calls(NOWHERE); }

static void send_in_time(void *argument) {
    struct puller *sender = argument;
    double began = harness_now();
    CHECK_STATUS(LAYER_DISCONNECTED, send_number(sender->layer, sender->channel, 3));
    double took = harness_now() - began;
    /* A second more, where the deadline of the call before it ended it. */
    CHECK(took >= 1.4 && took < 1.5 + harness_scaled(0.7),
          "option timeout is 1.5 s, and it took %.2f", took);
}

/* While a send waits, two places become free, one after the other: each when this thread runs a
 * `done`. False if the send took the first, and nothing is shown; else another call did, which
 * began later, and so ends later than the send that waited and took the second. */
static bool send_behind_a_later_call(void) {
    layer_t *layer =
        open_cold("host", NOWHERE, "timeout", "1.5", "max_in_flight", "2", "dispatch", "poll");
    struct puller *sender = puller_new(layer, 0);
    struct probe *done = probe_new("done");
    CHECK_OK(send_async(layer, sender->channel, 1, done));
    CHECK_OK(send_async(layer, sender->channel, 2, done));
    harness_pause(0.5); /* Of the second and a half that the two have. */
    struct thread *thread = spawn(send_in_time, sender);
    CHECK_OK(layer_poll(layer, 1, 20000, NULL, ERR));
    layer_status_t status = STATUS(send_async(layer, sender->channel, 4, done));
    CHECK(status == LAYER_OK || status == LAYER_BUSY, "%s", layer_status_name(status));
    while (!thread_ended(thread)) {
        CHECK_OK(layer_poll(layer, 0, 20, NULL, ERR));
    }
    join(thread);
    return status == LAYER_OK;
}

CASE(a_send_that_waits_for_a_place_keeps_to_its_timeout) {
    for (unsigned round = 0; round < 5 && !send_behind_a_later_call(); round++) {
    }
}

/* --- Fork ------------------------------------------------------------------------------------ */

static void *park(void *layer) {
    layer_message_t *message = NULL;
    char channel[LAYER_NAME_SIZE];
    if (layer_new_channel(layer, NULL, channel, sizeof channel, NULL) == LAYER_OK) {
        (void)!layer_receive_next(layer, channel, 55000, &message, NULL);
    }
    return NULL; /* Nobody sends there. */
}

static int32_t take(void *unused, layer_status_t status, const layer_message_t *message) {
    (void)unused, (void)status, (void)message;
    return LAYER_CONTINUE;
}

/* Runs in the child: no CHECK, no probe. Gives the number of the step that went wrong. */
static int use_own_layer(void) {
    layer_config_t *config = layer_config_new();
    layer_t *layer = NULL;
    if (layer_config_set(config, "host", test_host(), NULL) != LAYER_OK ||
        layer_config_set(config, "dispatch_threads", "8", NULL) != LAYER_OK ||
        layer_new(config, &layer, NULL) != LAYER_OK ||
        layer_wait_ready(layer, 8000, NULL) != LAYER_OK) {
        return 1;
    }
    for (unsigned i = 0; i < 40; i++) {
        pthread_t thread; /* The close ends what it waits in. */
        char channel[LAYER_NAME_SIZE];
        if ((i < 8 && pthread_create(&thread, NULL, park, layer) != 0) ||
            layer_new_channel(layer, NULL, channel, sizeof channel, NULL) != LAYER_OK ||
            layer_receive(layer, channel, take, NULL, NULL, NULL, NULL) != LAYER_OK ||
            layer_send_json(layer, channel, "{}", NULL) != LAYER_OK) {
            return 2;
        }
    }
    return layer_close(layer, 8000, NULL) == LAYER_OK ? 0 : 3;
}

CASE_WHEN(a_child_of_a_parent_with_many_parked_threads_opens_a_layer, forks_safely) {
    enum { PARKED = 20, CHILDREN = 5 };
    layer_t *layer = open_layer("dispatch_threads", "8");
    struct thread *threads[PARKED];
    for (size_t i = 0; i < PARKED; i++) {
        threads[i] = begin_pull(puller_new(layer, 55000));
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        CHECK(child >= 0, "fork failed");
        if (child == 0) {
            alarm((unsigned)harness_scaled(10)); /* Ends it, wherever it hangs. */
            _exit(use_own_layer());
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
        CHECK(WIFEXITED(status), "child %u was ended by signal %d", i, WTERMSIG(status));
        CHECK(WEXITSTATUS(status) == 0, "step %d of child %u went wrong", WEXITSTATUS(status), i);
    }
    CHECK_OK(layer_close(layer, 10000, ERR));
    for (size_t i = 0; i < PARKED; i++) {
        join(threads[i]);
    }
}

struct cancelled {
    layer_t *layer;
    const char *channel;
    layer_status_t statuses[4];
    bool has_returned;
};

static void ignore(void *unused, layer_status_t status, const layer_error_t *error) {
    (void)unused, (void)status, (void)error;
}

/* On a thread of its own, which is to be cancelled from the first call on. */
static void *call_although_cancelled(void *userdata) {
    struct cancelled *cancelled = userdata;
    layer_t *layer = cancelled->layer;
    const char *channel = cancelled->channel;
    layer_message_t *message = NULL;
    pthread_cancel(pthread_self());
    layer_status_t *status = cancelled->statuses;
    *status++ = layer_group_add(layer, "cancelled", channel, NULL);
    *status++ = layer_send_json(layer, channel, "{}", NULL);
    *status++ = layer_send_json_async(layer, channel, "{}", ignore, NULL, NULL, NULL);
    *status = layer_receive_next(layer, channel, 20000, &message, NULL);
    layer_message_free(message);
    cancelled->has_returned = true;
    pthread_testcancel();
    cancelled->has_returned = false;
    return NULL;
}

CASE(a_thread_that_is_cancelled_in_a_call_ends_after_it_and_the_layer_can_be_used) {
    layer_t *layer = open_layer("remote_capacity", "1000", "local_capacity", "1000");
    /* Again and again: the first sends go ways that the others do not. */
    for (int i = 0; i < 20; i++) {
        struct cancelled *cancelled = case_alloc(sizeof *cancelled);
        cancelled->layer = layer;
        cancelled->channel = new_channel(layer);
        pthread_t thread;
        void *result = NULL;
        CHECK(pthread_create(&thread, NULL, call_although_cancelled, cancelled) == 0,
              "no thread was started");
        CHECK(pthread_join(thread, &result) == 0, "the thread cannot be joined");
        CHECK(cancelled->has_returned && result == PTHREAD_CANCELED, "it ended inside a call");
        for (size_t call = 0; call < 4; call++) {
            CHECK(cancelled->statuses[call] == LAYER_OK, "call %zu: %s", call,
                  layer_status_name(cancelled->statuses[call]));
        }
        CHECK_OK(send_number(layer, cancelled->channel, i));
    }
}
