/* The end of a layer, in every situation: bounded, honest, and each callback is destroyed once. */
#include "support.h"

/* Every call on a closed layer. */
static void check_closed(layer_t *layer, const char *channel) {
    struct probe *p = probe_new("never taken");
    const char *group = unique("group-");
    struct numbered m = number_message(1);
    layer_message_t *message = NULL;
    layer_state_t state;
    char name[LAYER_NAME_SIZE];
    CHECK_STATUS(LAYER_CLOSED, layer_send(layer, channel, m.data, m.length, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_send_json(layer, channel, "{}", ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_group_send(layer, group, m.data, m.length, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_group_send_json(layer, group, "{}", ERR));
    CHECK_STATUS(LAYER_CLOSED, send_async(layer, channel, 1, p));
    CHECK_STATUS(LAYER_CLOSED, group_send_async(layer, group, 1, p));
    CHECK_STATUS(LAYER_CLOSED, send_json_async(layer, channel, "{}", p));
    CHECK_STATUS(LAYER_CLOSED, group_send_json_async(layer, group, "{}", p));
    CHECK_STATUS(LAYER_CLOSED, layer_group_add(layer, group, channel, ERR));
    CHECK_STATUS(LAYER_CLOSED, group_add_async(layer, group, channel, p));
    CHECK_STATUS(LAYER_CLOSED, layer_group_discard(layer, group, channel, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_channel_discard(layer, channel, ERR));
    CHECK_STATUS(LAYER_CLOSED, receive(layer, channel, p, NULL));
    CHECK_STATUS(LAYER_CLOSED, layer_receive_next(layer, channel, 0, &message, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_receive_next(layer, channel, 1000, &message, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_wait_ready(layer, 0, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_wait_ready(layer, 1000, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_new_channel(layer, NULL, name, sizeof name, ERR));
    CHECK_OK(layer_receive_cancel(layer, 1, ERR));
    CHECK_OK(layer_state(layer, &state, ERR));
    CHECK(state == LAYER_STATE_CLOSED, "state %d", (int)state);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
    CHECK_STAT(layer, LAYER_STAT_IN_FLIGHT, 0);
    CHECK_STAT(layer, LAYER_STAT_BACKLOG, 0);
    CHECK_OK(layer_close(layer, 1000, ERR)); /* Again does nothing. */
    CHECK_OK(layer_close(layer, 0, ERR));
}

CASE(close_ends_receivers_and_every_call_after_it) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *queued = new_channel(layer);
    struct probe *probes[] = {probe_new("first"), probe_new("second"), probe_new("busy")};
    CHECK_OK(receive(layer, channel, probes[0], NULL));
    CHECK_OK(receive(layer, channel, probes[1], NULL));
    const char *busy = new_channel(layer);
    CHECK_OK(receive(layer, busy, probes[2], NULL));
    CHECK_OK(layer_group_add(layer, unique("group-"), channel, ERR));
    CHECK_OK(send_number(layer, busy, 1));
    WAIT_MESSAGES(probes[2], 1);
    CHECK_OK(send_number(layer, queued, 1));
    CHECK_OK(send_number(layer, queued, 2));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    CHECK_OK(layer_close(layer, 10000, ERR));
    for (size_t i = 0; i < 3; i++) {
        CHECK_SEEN(probes[i], destroys, 1);
        CHECK_SEEN(probes[i], ends, 1);
        CHECK_SEEN(probes[i], end_status, LAYER_CLOSED);
    }
    CHECK_STAT(layer, LAYER_STAT_DROPPED_DISCARDED, 2);
    check_closed(layer, channel);
}

CASE(free_closes_a_layer_that_is_open) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(layer, channel, probe, NULL));
    for (int64_t i = 0; i < 100; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    free_layer(layer);
    CHECK_SEEN(probe, destroys, 1);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(done, calls, 100);
    CHECK_SEEN(done, destroys, 100);
}

CASE(free_right_after_new) {
    for (unsigned i = 0; i < 20; i++) {
        layer_t *layer = open_cold(DEFAULTS);
        struct probe *probe = probe_new("receiver"), *done = probe_new("done");
        const char *channel = new_channel(layer);
        CHECK_OK(receive(layer, channel, probe, NULL));
        CHECK_OK(send_async(layer, channel, 1, done));
        CHECK_OK(group_add_async(layer, unique("group-"), channel, done));
        free_layer(layer);
        CHECK_SEEN(probe, destroys, 1);
        CHECK_SEEN(done, destroys, 2);
    }
}

CASE(close_waits_for_the_confirms_of_what_was_accepted) {
    enum { COUNT = 500 };
    layer_t *sender = open_layer(DEFAULTS);
    layer_t *receiver = open_layer("local_capacity", "1000", "remote_capacity", "1000");
    const char *channel = new_channel(receiver);
    struct probe *done = probe_new("done");
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_OK(send_async(sender, channel, i, done));
    }
    CHECK_OK(layer_close(sender, 10000, ERR));
    CHECK_SEEN(done, calls, COUNT);
    CHECK_SEEN(done, outcomes[LAYER_OK], COUNT);
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_PULL(receiver, channel, i);
    }
}

/* --- Everything at once ---------------------------------------------------------------------- */

struct everything {
    layer_t *layer;
    const char *there; /* a channel of another layer */
    const char *silent;
    const char *group;
    struct probe *done;
    unsigned at_work;  /* threads that had a success, or that are about to wait */
    unsigned sent[16]; /* how calls ended, by status */
};

static bool note_outcome(struct everything *all, layer_status_t status, bool *worked) {
    harness_lock();
    all->sent[status]++;
    if (!*worked) {
        *worked = true;
        all->at_work++;
    }
    harness_unlock();
    return status != LAYER_CLOSED;
}

static void keep_sending(void *argument) {
    struct everything *all = argument;
    bool worked = false;
    for (int64_t i = 0; note_outcome(all, STATUS(send_number(all->layer, all->there, i)), &worked);
         i++) {
    }
}

static void keep_sending_async(void *argument) {
    struct everything *all = argument;
    for (int64_t i = 0;; i++) {
        layer_status_t status = STATUS(send_async(all->layer, all->there, i, all->done));
        CHECK(status == LAYER_OK || status == LAYER_BUSY || status == LAYER_CLOSED, "%s (%s)",
              layer_status_name(status), error_text());
        if (i == 0) {
            harness_lock();
            all->at_work++;
            harness_unlock();
        }
        if (status == LAYER_CLOSED) {
            return;
        }
        if (status == LAYER_BUSY) {
            harness_pause(0.001);
        }
    }
}

static void keep_adding(void *argument) {
    struct everything *all = argument;
    for (unsigned i = 0;; i++) {
        const char *group = i % 8 == 0 ? all->group : unique("group-");
        layer_status_t status = STATUS(layer_group_add(all->layer, group, all->silent, ERR));
        CHECK(status == LAYER_OK || status == LAYER_CLOSED, "%s (%s)", layer_status_name(status),
              error_text());
        if (i == 0) {
            harness_lock();
            all->at_work++;
            harness_unlock();
        }
        if (status == LAYER_CLOSED) {
            return;
        }
    }
}

static void wait_in_a_pull(void *argument) {
    struct everything *all = argument;
    layer_message_t *message = NULL;
    harness_lock();
    all->at_work++;
    harness_unlock();
    CHECK_STATUS(LAYER_CLOSED, layer_receive_next(all->layer, all->silent, 55000, &message, ERR));
}

static void keep_cancelling(void *argument) {
    struct everything *all = argument;
    bool first = true;
    for (;;) {
        struct probe *probe = probe_new("cancelled receiver");
        uint64_t id = 0;
        layer_status_t status = STATUS(receive(all->layer, all->silent, probe, &id));
        if (first) {
            first = false;
            harness_lock();
            all->at_work++;
            harness_unlock();
        }
        if (status == LAYER_CLOSED) {
            return;
        }
        CHECK(status == LAYER_OK, "%s (%s)", layer_status_name(status), error_text());
        CHECK_OK(layer_receive_cancel(all->layer, id, ERR));
        harness_pause(0.0005);
    }
}

CASE(close_with_everything_in_flight) {
    static void (*const works[])(void *) = {
        keep_sending,       keep_sending,       keep_sending,    keep_sending,
        keep_sending_async, keep_adding,        keep_adding,     wait_in_a_pull,
        wait_in_a_pull,     keep_sending_async, keep_cancelling,
    };
    enum { WORKS = sizeof works / sizeof works[0] };
    layer_t *other = open_layer("remote_capacity", "100000", "prefetch_count", "500");
    struct everything *all = case_alloc(sizeof *all);
    all->layer = open_layer("max_in_flight", "200", "dispatch_threads", "2");
    all->there = new_channel(other);
    all->silent = new_channel(all->layer);
    all->group = unique("group-");
    all->done = probe_new("done");
    struct probe *there = probe_new("receiver there"), *idle[10];
    CHECK_OK(receive(other, all->there, there, NULL));
    for (size_t i = 0; i < 10; i++) {
        idle[i] = probe_new(text("receiver %zu", i));
        CHECK_OK(receive(all->layer, new_channel(all->layer), idle[i], NULL));
    }
    struct thread *threads[WORKS];
    for (size_t i = 0; i < WORKS; i++) {
        threads[i] = spawn(works[i], all);
    }
    WAIT_FOR(all->at_work == WORKS, "%u of %d threads are at work", all->at_work, WORKS);
    double began = harness_now();
    CHECK_OK(layer_close(all->layer, 10000, ERR));
    double took = harness_now() - began;
    CHECK(took < harness_scaled(11), "close took %.1f s", took);
    for (size_t i = 0; i < WORKS; i++) {
        join_within(threads[i], 5);
    }
    for (size_t i = 0; i < 10; i++) {
        CHECK_SEEN(idle[i], ends, 1);
        CHECK_SEEN(idle[i], end_status, LAYER_CLOSED);
        CHECK_SEEN(idle[i], destroys, 1);
    }
    check_closed(all->layer, all->silent);
    free_layer(all->layer);

    /* What was said to be sent has come; what came beyond it is at most what nobody knows of. */
    unsigned ok = all->sent[LAYER_OK] + SEEN(all->done, outcomes[LAYER_OK]);
    unsigned called = SEEN(all->done, calls), given = SEEN(all->done, given);
    CHECK(called == given, "%u async sends were taken, %u were told of", given, called);
    unsigned not_closed = ok + all->sent[LAYER_CLOSED] + SEEN(all->done, outcomes[LAYER_CLOSED]);
    CHECK(not_closed == all->sent[LAYER_OK] + all->sent[LAYER_CLOSED] + called &&
              all->sent[LAYER_CLOSED] == 4,
          "of %u sends %u are OK and others neither OK nor CLOSED: %s", called, ok,
          SEEN(all->done, error) == NULL ? "" : SEEN(all->done, error));
    WAIT_MESSAGES(there, ok);
    harness_note("close took %.3f s with %u sends OK, %u async ones closed", took, ok,
                 SEEN(all->done, outcomes[LAYER_CLOSED]));
}

static void close_it(void *layer) { CHECK_OK(layer_close(layer, 10000, ERR)); }

CASE(several_threads_close_at_once) {
    layer_t *layer = open_layer(DEFAULTS);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, new_channel(layer), probe, NULL));
    struct thread *threads[4];
    for (size_t i = 0; i < 4; i++) {
        threads[i] = spawn(close_it, layer);
    }
    for (size_t i = 0; i < 4; i++) {
        join(threads[i]);
    }
    CHECK_SEEN(probe, ends, 1);
}

/* --- From callbacks -------------------------------------------------------------------------- */

struct closer {
    layer_t *layer;
    bool frees;
    struct gate *go_on;
    struct probe *closed;
};

static void close_or_free(const struct closer *closer) {
    double began = harness_now();
    if (closer->frees) {
        layer_free(closer->layer);
    } else {
        EXPECT_OK(layer_close(closer->layer, 10000, ERR));
    }
    EXPECT(harness_now() - began < harness_scaled(2), "it waited %.1f s in a callback",
           harness_now() - began);
}

static int32_t close_on_message(struct probe *probe, layer_status_t status,
                                const layer_message_t *message) {
    (void)message;
    if (status == LAYER_OK) {
        close_or_free(probe->context);
    }
    return LAYER_CONTINUE;
}

static void close_on_done(struct probe *probe, layer_status_t status, const layer_error_t *error) {
    (void)error;
    EXPECT(status == LAYER_OK, "%s", layer_status_name(status));
    close_or_free(probe->context);
}

static void close_on_destroy(struct probe *probe) { close_or_free(probe->context); }

/* Closes or frees a layer in a callback of each kind; all its callbacks end by themselves. */
static void close_from_callbacks(bool frees, const char *threads) {
    for (unsigned kind = 0; kind < 3; kind++) {
        layer_t *layer = open_layer("dispatch_threads", threads);
        const char *channel = new_channel(layer);
        struct closer *closer = case_alloc(sizeof *closer);
        *closer = (struct closer){.layer = layer, .frees = frees};
        struct probe *probe = probe_new("closing"), *other = probe_new("other"),
                     *done = probe_new("done");
        probe->context = done->context = closer;
        CHECK_OK(receive(layer, channel, probe, NULL));
        CHECK_OK(receive(layer, new_channel(layer), other, NULL));
        if (frees) {
            disown_layer(layer);
        }
        if (kind == 0) {
            probe->on_message = close_on_message;
            CHECK_OK(send_async(layer, channel, 1, done));
            WAIT_DESTROYS(done, 1);
        } else if (kind == 1) {
            done->on_done = close_on_done;
            CHECK_OK(send_async(layer, channel, 1, done));
            WAIT_DESTROYS(done, 1);
        } else {
            done->on_destroy = close_on_destroy;
            CHECK_OK(send_async(layer, channel, 1, done));
        }
        WAIT_DESTROYS(probe, 1);
        WAIT_DESTROYS(other, 1);
        WAIT_DESTROYS(done, 1);
        CHECK_SEEN(probe, ends, 1);
        CHECK_SEEN(probe, end_status, LAYER_CLOSED);
        CHECK_SEEN(other, ends, 1);
        if (!frees) {
            CHECK_OK(layer_close(layer, 10000, ERR)); /* Waits for the shutdown that has begun. */
            check_closed(layer, channel);
        }
    }
}

CASE(close_from_a_callback) { close_from_callbacks(false, "1"); }
CASE(close_from_a_callback_with_two_threads) { close_from_callbacks(false, "2"); }
CASE(free_from_a_callback) { close_from_callbacks(true, "1"); }
CASE(free_from_a_callback_with_two_threads) { close_from_callbacks(true, "2"); }

static int32_t wait_for_gate(struct probe *probe, layer_status_t status,
                             const layer_message_t *message) {
    (void)message;
    struct closer *closer = probe->context;
    if (status == LAYER_OK) {
        GATE_WAIT(closer->go_on);
    }
    return LAYER_CONTINUE;
}

CASE(close_is_bounded_by_its_timeout_when_a_callback_does_not_return) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct closer *closer = case_alloc(sizeof *closer);
    *closer = (struct closer){.layer = layer, .go_on = gate_new()};
    struct probe *probe = probe_new("stuck"), *other = probe_new("other");
    probe->context = closer;
    probe->on_message = wait_for_gate;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(receive(layer, new_channel(layer), other, NULL));
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_CALLS(probe, 1);
    double began = harness_now();
    CHECK_STATUS(LAYER_TIMEOUT, layer_close(layer, 300, ERR));
    double took = harness_now() - began;
    CHECK(took >= 0.29 && took < harness_scaled(5), "it took %.2f s", took);
    layer_state_t state = LAYER_STATE_READY;
    CHECK_OK(layer_state(layer, &state, ERR));
    CHECK(state == LAYER_STATE_CLOSED, "state %d", (int)state);
    CHECK_STATUS(LAYER_CLOSED, send_number(layer, channel, 2));
    CHECK_SEEN(probe, destroys, 0);
    gate_open(closer->go_on);
    free_layer(layer); /* Ends what was left. */
    unsigned ends = SEEN(probe, ends), destroys = SEEN(probe, destroys);
    CHECK(ends == 1 && destroys == 1, "when free returned: %u last calls, %u destroys", ends,
          destroys);
    CHECK_SEEN(other, destroys, 1);
}

/* --- Without waiting ------------------------------------------------------------------------- */

/* What must have ended when a close is told to have. */
struct rest {
    struct probe *done, *receiver;
};

static void all_else_has_ended(struct probe *probe, layer_status_t status,
                               const layer_error_t *error) {
    struct rest *rest = probe->context;
    EXPECT(status == LAYER_OK && error == NULL, "%s: %s", layer_status_name(status),
           layer_error_message(error));
    harness_lock();
    EXPECT(rest->done->destroys == rest->done->given, "%u of %u outcomes came before",
           rest->done->destroys, rest->done->given);
    EXPECT(rest->receiver->ends == 1 && rest->receiver->destroys == 1,
           "the receiver ended %u times before", rest->receiver->ends);
    harness_unlock();
}

static struct probe *probe_of_close(struct probe *done, struct probe *receiver) {
    struct probe *closed = probe_new("closed");
    struct rest *rest = case_alloc(sizeof *rest);
    *rest = (struct rest){done, receiver};
    closed->context = rest;
    closed->on_done = all_else_has_ended;
    return closed;
}

CASE(close_without_waiting_refuses_calls_at_once_and_is_told_after_all_else) {
    enum { COUNT = 500 };
    layer_t *receiver = open_layer("local_capacity", "1000", "remote_capacity", "1000");
    const char *there = new_channel(receiver);
    for (unsigned threads = 1; threads <= 2; threads++) {
        layer_t *layer = open_layer("dispatch_threads", text("%u", threads));
        const char *channel = new_channel(layer);
        struct probe *done = probe_new("done"), *probe = probe_new("receiver");
        struct probe *closed = probe_of_close(done, probe);
        char name[LAYER_NAME_SIZE];
        CHECK_OK(receive(layer, channel, probe, NULL));
        for (int64_t i = 0; i < COUNT; i++) {
            CHECK_OK(send_async(layer, there, i, done));
        }
        CHECK_OK(close_async(layer, 20000, closed));
        CHECK_STATUS(LAYER_CLOSED, layer_new_channel(layer, NULL, name, sizeof name, ERR));
        WAIT_DESTROYS(closed, 1);
        CHECK_SEEN(closed, outcomes[LAYER_OK], 1);
        CHECK_SEEN(done, outcomes[LAYER_OK], COUNT); /* It waited for the confirms. */
        check_closed(layer, channel);
        for (int64_t i = 0; i < COUNT; i++) {
            CHECK_PULL(receiver, there, i);
        }
    }
}

static void close_without_waiting(struct probe *probe) {
    struct closer *closer = probe->context;
    struct probe *closed = probe_new("closed in a callback");
    double began = harness_now();
    EXPECT_OK(close_async(closer->layer, 20000, closed));
    EXPECT(harness_now() - began < harness_scaled(2), "it waited %.1f s in a callback",
           harness_now() - began);
    harness_lock();
    closer->closed = closed;
    harness_unlock();
}

static int32_t close_without_waiting_on_message(struct probe *probe, layer_status_t status,
                                                const layer_message_t *message) {
    (void)message;
    if (status == LAYER_OK) {
        close_without_waiting(probe);
    }
    return LAYER_CONTINUE;
}

static void close_without_waiting_on_done(struct probe *probe, layer_status_t status,
                                          const layer_error_t *error) {
    (void)status;
    (void)error;
    close_without_waiting(probe);
}

CASE(close_without_waiting_from_a_callback_of_each_kind) {
    for (unsigned kind = 0; kind < 3; kind++) {
        layer_t *layer = open_layer(DEFAULTS);
        const char *channel = new_channel(layer);
        struct closer *closer = case_alloc(sizeof *closer);
        *closer = (struct closer){.layer = layer};
        struct probe *probe = probe_new("receiver"), *done = probe_new("done");
        probe->context = done->context = closer;
        CHECK_OK(receive(layer, channel, probe, NULL));
        if (kind == 0) {
            probe->on_message = close_without_waiting_on_message;
        } else if (kind == 1) {
            done->on_done = close_without_waiting_on_done;
        } else {
            done->on_destroy = close_without_waiting;
        }
        CHECK_OK(send_async(layer, channel, 1, done));
        WAIT_FOR(closer->closed != NULL && closer->closed->destroys == 1, "it is not closed");
        CHECK_SEEN(closer->closed, outcomes[LAYER_OK], 1);
        CHECK_SEEN(probe, ends, 1);
        CHECK_SEEN(probe, destroys, 1);
        check_closed(layer, channel);
    }
}

CASE(each_close_without_waiting_is_told_whatever_else_closes) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *closed = probe_new("closed");
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(close_async(layer, 20000, closed));
    CHECK_OK(close_async(layer, UINT32_MAX, closed));
    CHECK_OK(layer_close(layer, 20000, ERR));
    CHECK_SEEN(closed, destroys, 2); /* It has waited for both. */
    CHECK_OK(close_async(layer, 20000, closed));
    WAIT_DESTROYS(closed, 3);
    CHECK_OK(close_async(layer, 0, closed)); /* Nothing is left that takes time. */
    WAIT_DESTROYS(closed, 4);
    CHECK_SEEN(closed, outcomes[LAYER_OK], 4);
    check_closed(layer, channel);
}

CASE(free_waits_for_a_close_that_does_not_wait) {
    for (unsigned i = 0; i < 20; i++) {
        layer_t *layer = open_layer(DEFAULTS);
        struct probe *probe = probe_new("receiver"), *closed = probe_new("closed");
        CHECK_OK(receive(layer, new_channel(layer), probe, NULL));
        CHECK_OK(close_async(layer, i % 2 == 0 ? 20000 : UINT32_MAX, closed));
        free_layer(layer);
        CHECK_SEEN(closed, destroys, 1);
        CHECK_SEEN(closed, outcomes[LAYER_OK], 1);
        CHECK_SEEN(probe, destroys, 1);
    }
}

static void free_when_closed(struct probe *probe, layer_status_t status,
                             const layer_error_t *error) {
    (void)error;
    EXPECT(status == LAYER_OK, "%s", layer_status_name(status));
    struct closer *closer = probe->context;
    layer_free(closer->layer);
}

CASE(a_layer_may_be_freed_by_what_is_told_that_it_is_closed) {
    layer_t *layer = open_layer(DEFAULTS);
    struct closer *closer = case_alloc(sizeof *closer);
    *closer = (struct closer){.layer = layer};
    struct probe *probe = probe_new("receiver"), *closed = probe_new("closed");
    closed->on_done = free_when_closed;
    closed->context = closer;
    CHECK_OK(receive(layer, new_channel(layer), probe, NULL));
    disown_layer(layer);
    CHECK_OK(close_async(layer, 20000, closed));
    WAIT_DESTROYS(closed, 1);
    CHECK_SEEN(probe, destroys, 1);
}

CASE(close_without_waiting_is_told_in_time_when_a_callback_does_not_return) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct closer *closer = case_alloc(sizeof *closer);
    *closer = (struct closer){.layer = layer, .go_on = gate_new()};
    struct probe *probe = probe_new("stuck"), *closed = probe_new("closed"),
                 *later = probe_new("closed later");
    probe->context = closer;
    probe->on_message = wait_for_gate;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_CALLS(probe, 1);
    CHECK_OK(close_async(layer, 200, closed));
    CHECK_OK(close_async(layer, 50000, later));
    WAIT_DESTROYS(closed, 1);
    CHECK_SEEN(closed, outcomes[LAYER_TIMEOUT], 1);
    CHECK_SEEN(probe, running, 1);
    CHECK_SEEN(later, calls, 0);
    gate_open(closer->go_on);
    WAIT_DESTROYS(later, 1);
    CHECK_SEEN(later, outcomes[LAYER_OK], 1);
    CHECK_SEEN(probe, destroys, 1);
}

CASE(close_without_waiting_before_anything_is_connected) {
    layer_t *nowhere = open_cold("host", "amqp://guest:guest@127.0.0.1:1/");
    layer_t *cold = open_cold(DEFAULTS);
    struct probe *closed = probe_new("closed"), *done = probe_new("done");
    CHECK_OK(send_async(nowhere, text("%s!gone", unique("channels_")), 1, done));
    CHECK_OK(close_async(nowhere, 20000, closed));
    CHECK_OK(close_async(cold, 20000, closed));
    WAIT_DESTROYS(closed, 2);
    CHECK_SEEN(closed, outcomes[LAYER_OK], 2);
    CHECK_SEEN(done, outcomes[LAYER_CLOSED], 1);
}

static void close_it_without_waiting(void *argument) {
    struct closer *closer = argument;
    CHECK_OK(close_async(closer->layer, 20000, closer->closed));
}

static void close_it_of(void *argument) {
    struct closer *closer = argument;
    CHECK_OK(layer_close(closer->layer, 20000, ERR));
}

CASE(closes_that_wait_and_that_do_not_race) {
    enum { WAITING = 2, NOT_WAITING = 3 };
    for (unsigned i = 0; i < 20; i++) {
        layer_t *layer = open_layer(DEFAULTS);
        struct closer *closer = case_alloc(sizeof *closer);
        struct probe *probe = probe_new("receiver"), *done = probe_new("done");
        *closer = (struct closer){.layer = layer, .closed = probe_new("closed")};
        const char *channel = new_channel(layer);
        CHECK_OK(receive(layer, channel, probe, NULL));
        for (int64_t n = 0; n < 20; n++) {
            CHECK_OK(send_async(layer, channel, n, done));
        }
        struct thread *threads[WAITING + NOT_WAITING];
        for (size_t t = 0; t < WAITING + NOT_WAITING; t++) {
            threads[t] = spawn(t < NOT_WAITING ? close_it_without_waiting : close_it_of, closer);
        }
        for (size_t t = 0; t < WAITING + NOT_WAITING; t++) {
            join(threads[t]);
        }
        free_layer(layer);
        CHECK_SEEN(closer->closed, outcomes[LAYER_OK], NOT_WAITING);
        CHECK_SEEN(closer->closed, destroys, NOT_WAITING);
        CHECK_SEEN(done, destroys, 20);
        CHECK_SEEN(probe, ends, 1);
    }
}
