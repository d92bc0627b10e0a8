/*
 * Forks out of a process with an open layer under load: process_fork HOST CHILDREN.
 *
 * The main thread, a second thread and a callback fork, while others are inside calls. Each child
 * does one of the things that children do; it uses nothing of stdio, and its exit status says which
 * step went wrong. `process_fork --descriptors` is what a child becomes that calls exec: its status
 * is 0 if it has as many descriptors as it is told.
 */
#include "process.h"

#include "forked.h"

#include <spawn.h>
#include <sys/syscall.h>

#define SENDERS 3
#define CHILD_SECONDS 30

static layer_t *layer, *polled;
static layer_config_t *for_children;
static char channels[SENDERS][LAYER_NAME_SIZE], group_channel[LAYER_NAME_SIZE];
static char children_channel[LAYER_NAME_SIZE], quiet_channel[LAYER_NAME_SIZE];
static const char *program;
static char group[64];
static pid_t parent;
static atomic_bool stop;
/* A broker in memory is each process's own. */
static bool in_memory;
/* The descriptors of this program before it used the library. */
static char own_descriptors[16];

/* --- The load, and its ledger ---------------------------------------------------------------- */

static atomic_llong confirmed[SENDERS + 1], received[SENDERS + 1], from_children, unconfirmed;
static atomic_llong out_of_order;
static atomic_int first_unconfirmed;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    size_t sender = (size_t)(uintptr_t)userdata;
    if (status == LAYER_OK && number_of(message) != atomic_fetch_add(&received[sender], 1)) {
        atomic_fetch_add(&out_of_order, 1);
    }
    return LAYER_CONTINUE;
}

static int32_t on_child(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)message;
    atomic_fetch_add(&from_children, status == LAYER_OK);
    return LAYER_CONTINUE;
}

/* The last sender sends to the group. */
static void *send_on(void *argument) {
    size_t sender = (size_t)(uintptr_t)argument;
    while (!atomic_load(&stop)) {
        int64_t number = atomic_load(&confirmed[sender]);
        layer_status_t status = sender < SENDERS
                                    ? send_number(layer, channels[sender], number, NULL)
                                    : group_send_number(layer, group, number, NULL);
        /* A child in the group that no longer receives makes it full, for that child alone. */
        if (status == LAYER_OK || (sender == SENDERS && status == LAYER_FULL)) {
            atomic_fetch_add(&confirmed[sender], 1);
        } else {
            int none = LAYER_OK;
            atomic_compare_exchange_strong(&first_unconfirmed, &none, status);
            atomic_fetch_add(&unconfirmed, 1);
        }
    }
    return NULL;
}

/* Threads that are inside a wait whenever somebody forks. */
static void *pull_on(void *argument) {
    layer_message_t *message = NULL;
    (void)argument;
    while (!atomic_load(&stop)) {
        MUST_BE(layer_receive_next(layer, quiet_channel, 50, &message, NULL) == LAYER_TIMEOUT);
    }
    return NULL;
}

static void *poll_on(void *argument) {
    (void)argument;
    while (!atomic_load(&stop)) {
        MUST(layer_poll(polled, 0, 50, NULL, ERROR));
    }
    return NULL;
}

/* --- What children do ------------------------------------------------------------------------ */

/* 0, or the number of the first call that was not refused as it should be. */
static int use_inherited(void) {
    int refused = forked_call_not_refused(layer, polled, quiet_channel, group);
    if (refused != 0) {
        return refused;
    }
    long before = descriptors();
    layer_free(layer);
    layer_free(polled);
    return descriptors() == before ? 0 : 61;
}

/* 0, or the number of the step that went wrong times 16 and its status. */
static int use_own(void) {
    layer_t *own = NULL;
    layer_message_t *message = NULL;
    char channel[LAYER_NAME_SIZE], member[LAYER_NAME_SIZE];
    int step = 0;
#define STEP(expression)                                                                           \
    do {                                                                                           \
        step++;                                                                                    \
        layer_status_t status_ = (expression);                                                     \
        if (status_ != LAYER_OK) {                                                                 \
            return 16 * step + (int)status_;                                                       \
        }                                                                                          \
    } while (0)
    STEP(layer_new(for_children, &own, NULL));
    STEP(layer_wait_ready(own, 20000, NULL));
    STEP(layer_new_channel(own, NULL, channel, sizeof channel, NULL));
    STEP(layer_new_channel(own, NULL, member, sizeof member, NULL));
    for (int64_t i = 0; i < 20; i++) {
        STEP(send_number(own, channel, i, NULL));
        STEP(layer_receive_next(own, channel, 20000, &message, NULL));
        STEP(number_of(message) == i ? LAYER_OK : LAYER_INTERNAL);
        layer_message_free(message);
        step -= 3;
    }
    step += 3;
    if (!in_memory) {
        /* The group of the parent, which sends to it all the time. */
        STEP(layer_group_add(own, group, member, NULL));
        STEP(layer_receive_next(own, member, 20000, &message, NULL));
        layer_message_free(message);
        STEP(send_number(own, children_channel, getpid(), NULL));
    }
    STEP(layer_close(own, 10000, NULL));
#undef STEP
    layer_free(own);
    return 0;
}

/* Runs in the parent's exit too, where it has nothing to say. */
static void at_exit(void) {
    if (getpid() == parent) {
        return;
    }
    if (send_number(layer, quiet_channel, 1, NULL) != LAYER_FORKED ||
        layer_close(layer, 1000, NULL) != LAYER_FORKED) {
        _exit(99);
    }
    layer_free(layer);
}

enum way { INHERITED, OWN, EXEC, ONLY_EXIT, EXIT, WAYS };
static const char *const WAY_NAMES[] = {
    "each call on the inherited handle gives LAYER_FORKED, and free closes nothing",
    "a child's own layer sends, receives and shares the parent's group",
    "a child that calls exec leaves no descriptor of the library to the program",
    "a child that only calls _exit ends",
    "a child that calls exit runs the atexit handlers, which use the handle, and ends",
};
static const int EXPECTED[] = {0, 0, 0, 5, 7};

__attribute__((noreturn)) static void be_child(enum way way) {
    switch (way) {
    case INHERITED:
        _exit(use_inherited());
    case OWN:
        _exit(use_own());
    case EXEC:
        execl(program, program, "--descriptors", own_descriptors, (char *)NULL);
        _exit(98);
    case ONLY_EXIT:
        _exit(5);
    default:
        exit(7);
    }
}

static atomic_int children[WAYS], wrong[WAYS], spawned, spawned_wrong;
static char first_wrong[WAYS][64];

static void look_at(enum way way, pid_t child) {
    char text[64];
    MUST_BE(child > 0);
    int status = end_of(child, CHILD_SECONDS);
    atomic_fetch_add(&children[way], 1);
    if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != EXPECTED[way]) {
        if (atomic_fetch_add(&wrong[way], 1) == 0) {
            strcpy(first_wrong[way], ending(status, text));
        }
    }
}

static void fork_one(enum way way) {
    pid_t child = fork();
    if (child == 0) {
        be_child(way);
    }
    look_at(way, child);
}

/* posix_spawn shares the memory of the parent until the exec, and runs no fork handler. */
static void spawn_one(void) {
    char *arguments[] = {(char *)program, "--descriptors", own_descriptors, NULL};
    pid_t child;
    MUST_BE(posix_spawn(&child, program, NULL, NULL, arguments, environ) == 0);
    int status = end_of(child, CHILD_SECONDS);
    atomic_fetch_add(&spawned, 1);
    atomic_fetch_add(&spawned_wrong, status != 0);
}

static void *fork_on(void *argument) {
    int count = *(int *)argument;
    for (int i = 0; i < count; i++) {
        fork_one((enum way)(i % WAYS));
        if (i % WAYS == 0) {
            spawn_one();
        }
    }
    return NULL;
}

/* A callback that forks: the parent's callback returns, the child's ends the child. */
static int32_t fork_in_callback(void *userdata, layer_status_t status,
                                const layer_message_t *message) {
    (void)userdata;
    if (status == LAYER_OK) {
        fork_one((enum way)number_of(message));
    }
    return LAYER_CONTINUE;
}

/* --- The run --------------------------------------------------------------------------------- */

static void new_channel(char *name) {
    MUST(layer_new_channel(layer, NULL, name, LAYER_NAME_SIZE, ERROR));
}

int main(int argc, char **argv) {
    MUST_BE(argc == 3);
    if (strcmp(argv[1], "--descriptors") == 0) {
        return descriptors() == atoi(argv[2]) ? 0 : 1;
    }
    const char *host = argv[1];
    in_memory = strncmp(host, "memory:", 7) == 0;
    snprintf(own_descriptors, sizeof own_descriptors, "%ld", descriptors());
    int count = atoi(argv[2]);
    program = argv[0];
    parent = getpid();
    atexit(at_exit);
    snprintf(group, sizeof group, "forks-%d", parent);

    /* Room for all: where the group says that it is full, it is not for us. */
    layer = open_layer(host, "dispatch_threads", "4", "remote_capacity", "1000000", NULL);
    polled = open_layer(host, "dispatch", "poll", NULL);
    for_children = configure(host, NULL);
    for (size_t i = 0; i < SENDERS; i++) {
        new_channel(channels[i]);
        MUST(layer_receive(layer, channels[i], on_message, (void *)i, NULL, NULL, ERROR));
    }
    new_channel(group_channel);
    MUST(layer_receive(layer, group_channel, on_message, (void *)(uintptr_t)SENDERS, NULL, NULL,
                       ERROR));
    MUST(layer_group_add(layer, group, group_channel, ERROR));
    new_channel(children_channel);
    MUST(layer_receive(layer, children_channel, on_child, NULL, NULL, NULL, ERROR));
    new_channel(quiet_channel);
    char forking_channel[LAYER_NAME_SIZE];
    new_channel(forking_channel);
    MUST(layer_receive(layer, forking_channel, fork_in_callback, NULL, NULL, NULL, ERROR));

    pthread_t load[SENDERS + 1], puller = start(pull_on, NULL), poller = start(poll_on, NULL);
    for (size_t i = 0; i <= SENDERS; i++) {
        load[i] = start(send_on, (void *)i);
    }
    pthread_t forker = start(fork_on, &count);
    fork_on(&count);
    pthread_join(forker, NULL);
    int before = atomic_load(&children[OWN]);
    for (int64_t way = 0; way < WAYS; way++) {
        MUST(send_number(layer, forking_channel, way, ERROR));
    }
    MUST_BE(WAIT(atomic_load(&children[WAYS - 1]) >= 2 * (count / WAYS) + 1 &&
                     atomic_load(&children[OWN]) > before,
                 WAYS * (CHILD_SECONDS + 1)));

    atomic_store(&stop, true);
    for (size_t i = 0; i <= SENDERS; i++) {
        pthread_join(load[i], NULL);
    }
    pthread_join(puller, NULL);
    pthread_join(poller, NULL);

    for (int way = 0; way < WAYS; way++) {
        check(WAY_NAMES[way], atomic_load(&wrong[way]) == 0 && atomic_load(&children[way]) > 0,
              "%d of %d children went wrong%s%s", atomic_load(&wrong[way]),
              atomic_load(&children[way]), *first_wrong[way] ? ", the first: " : "",
              first_wrong[way]);
    }
    check("a program that posix_spawn starts has no descriptor of the library",
          atomic_load(&spawned_wrong) == 0 && atomic_load(&spawned) > 0, "%d of %d went wrong",
          atomic_load(&spawned_wrong), atomic_load(&spawned));
    long long sent = 0, arrived = 0;
    for (size_t i = 0; i <= SENDERS; i++) {
        WAIT(atomic_load(&received[i]) >= atomic_load(&confirmed[i]), 20);
        sent += atomic_load(&confirmed[i]);
        arrived += atomic_load(&received[i]);
    }
    check("the parent goes on: each send is confirmed and received once, in order",
          sent > 0 && arrived == sent && atomic_load(&unconfirmed) == 0 &&
              atomic_load(&out_of_order) == 0,
          "%lld sent, %lld received, %lld not confirmed (%s), %lld out of order", sent, arrived,
          (long long)atomic_load(&unconfirmed), layer_status_name(atomic_load(&first_unconfirmed)),
          (long long)atomic_load(&out_of_order));
    if (!in_memory) {
        WAIT(atomic_load(&from_children) >= atomic_load(&children[OWN]), 20);
        check("what the children sent has arrived",
              atomic_load(&from_children) == atomic_load(&children[OWN]),
              "%lld messages of %d children", (long long)atomic_load(&from_children),
              atomic_load(&children[OWN]));
    }
    check("the parent's connection is the first one still",
          stat_of(layer, LAYER_STAT_GENERATION) == 1, "generation %llu",
          (unsigned long long)stat_of(layer, LAYER_STAT_GENERATION));
    MUST(layer_close(layer, 10000, ERROR));
    layer_free(layer);
    layer_free(polled);
    layer_config_free(for_children);
    return 0;
}
