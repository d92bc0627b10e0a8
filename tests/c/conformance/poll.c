/* dispatch=poll: the program's own threads run the callbacks. */
#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

/* Whether a descriptor is readable, or becomes so within `milliseconds`. */
static bool readable(int fd, int milliseconds) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    int count = poll(&entry, 1, milliseconds);
    CHECK(count >= 0, "poll(2) failed");
    CHECK((entry.revents & (POLLERR | POLLHUP | POLLNVAL)) == 0, "poll(2): events %#x",
          (unsigned)entry.revents);
    return count == 1;
}

#define CHECK_DUE(fd) CHECK(readable(fd, 20000), "callbacks are due, and the fd is not readable")
#define CHECK_IDLE(fd) CHECK(!readable(fd, 0), "nothing is due, and the fd is readable")

static size_t poll_once(layer_t *layer, size_t max, uint32_t timeout_ms) {
    size_t ran = SIZE_MAX;
    CHECK_OK(layer_poll(layer, max, timeout_ms, &ran, ERR));
    CHECK(ran != SIZE_MAX, "layer_poll wrote no number");
    return ran;
}

#define CHECK_RAN(layer, max, timeout_ms, expected)                                                \
    do {                                                                                           \
        size_t ran_ = poll_once(layer, max, timeout_ms);                                           \
        CHECK(ran_ == (size_t)(expected), "layer_poll ran %zu callbacks, not %zu", ran_,           \
              (size_t)(expected));                                                                 \
    } while (0)

CASE(the_fd_is_readable_exactly_while_callbacks_are_due) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer), *unheard = new_channel(layer);
    int fd = layer_fd(layer);
    CHECK(fd >= 0, "the fd is %d", fd);
    CHECK_IDLE(fd);
    CHECK_RAN(layer, 0, 0, 0);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_IDLE(fd);

    CHECK_OK(send_number(layer, unheard, 1)); /* Nobody receives it: no callback is due. */
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 1);
    CHECK_IDLE(fd);

    CHECK_OK(send_number(layer, channel, 1));
    CHECK_DUE(fd);
    CHECK_SEEN(probe, calls, 0); /* Nobody but layer_poll runs it. */
    CHECK_RAN(layer, 0, 0, 1);
    CHECK_SEEN(probe, calls, 1);
    CHECK_IDLE(fd);

    for (int64_t i = 2; i <= 6; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 6);
    CHECK_DUE(fd);
    CHECK_RAN(layer, 1, 0, 1);
    CHECK_DUE(fd);
    CHECK_RAN(layer, 3, 0, 3);
    CHECK_DUE(fd);
    CHECK_RAN(layer, 100, 0, 1);
    CHECK_IDLE(fd);
    for (int64_t i = 1; i <= 6; i++) {
        CHECK(probe_number(probe, (size_t)i - 1) == i, "message %lld came as number %lld",
              (long long)probe_number(probe, (size_t)i - 1), (long long)i);
    }

    CHECK_OK(send_async(layer, unheard, 2, done)); /* An outcome is a callback too. */
    CHECK_DUE(fd);
    CHECK_RAN(layer, 0, 0, 1); /* Its destroy is not counted. */
    CHECK_SEEN(done, outcomes[LAYER_OK], 1);
    CHECK_SEEN(done, destroys, 1);
    CHECK_IDLE(fd);

    CHECK_OK(layer_channel_discard(layer, channel, ERR)); /* And so is a receiver's last call. */
    CHECK_DUE(fd);
    CHECK_RAN(layer, 0, 0, 1);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, destroys, 1);
    CHECK_IDLE(fd);
}

CASE(layer_fd_is_for_poll_mode_alone) {
    layer_t *layer = open_layer(DEFAULTS);
    size_t ran = 42;
    CHECK(layer_fd(layer) == -1, "the fd is %d", layer_fd(layer));
    CHECK_STATUS(LAYER_INVALID, layer_poll(layer, 0, 0, &ran, ERR));
    CHECK(strstr(error_text(), "dispatch") != NULL, "the error does not name the option: %s",
          error_text());
    CHECK(ran == 42, "a call that failed wrote its output");
}

CASE(layer_fd_dup_is_for_poll_mode_alone) {
    layer_t *threaded = open_layer(DEFAULTS), *polled = open_layer("dispatch", "poll");
    int fd = 42;
    CHECK_STATUS(LAYER_INVALID, layer_fd_dup(threaded, &fd, ERR));
    CHECK(strstr(error_text(), "dispatch") != NULL, "the error does not name the option: %s",
          error_text());
    CHECK_STATUS(LAYER_INVALID, layer_fd_dup(NULL, &fd, ERR));
    CHECK_STATUS(LAYER_INVALID, layer_fd_dup(polled, NULL, ERR));
    CHECK(fd == 42, "a call that failed wrote its output");
}

CASE(a_duplicate_of_the_fd_is_the_callers_and_outlives_the_layer) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, channel, probe, NULL));
    int first = -1, second = -1;
    CHECK_OK(layer_fd_dup(layer, &first, ERR));
    CHECK_OK(layer_fd_dup(layer, &second, ERR));
    CHECK(first >= 0 && second >= 0 && first != second && first != layer_fd(layer),
          "the duplicates of %d are %d and %d", layer_fd(layer), first, second);
    CHECK(fcntl(first, F_GETFD) == FD_CLOEXEC, "a duplicate survives exec");
    CHECK(close(first) == 0, "a duplicate cannot be closed");

    CHECK_OK(send_number(layer, channel, 1));
    CHECK_DUE(second);
    CHECK_DUE(layer_fd(layer));
    CHECK_RAN(layer, 0, 0, 1);
    CHECK_IDLE(second);
    CHECK_OK(layer_close(layer, 10000, ERR));
    CHECK_OK(layer_fd_dup(layer, &first, ERR));
    free_layer(layer);
    CHECK_IDLE(second);
    CHECK(close(first) == 0 && close(second) == 0, "a duplicate went with the layer");
}

CASE(a_duplicate_that_the_system_does_not_give_is_an_error) {
    layer_t *layer = open_layer("dispatch", "poll");
    layer_error_t *error = NULL;
    struct rlimit before, few;
    int fd = 42;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0, "getrlimit failed");
    few = (struct rlimit){.rlim_cur = 4, .rlim_max = before.rlim_max}; /* All of them in use. */
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit failed");
    layer_status_t status = layer_fd_dup(layer, &fd, &error);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit failed");
    bool told = strstr(layer_error_message(error), "os error 24") != NULL;
    layer_error_free(error);
    CHECK(status == LAYER_INTERNAL && fd == 42, "%s, and fd is %d", layer_status_name(status), fd);
    CHECK(told, "the error does not hold EMFILE");
}

/* As an event loop does that closes what it was given: the number becomes that of `file`. */
static int take_number_of(int fd, int file) {
    CHECK(close(fd) == 0, "the fd was not open");
    CHECK(dup2(file, fd) == fd, "dup2 failed");
    CHECK(close(file) == 0, "close failed");
    return fd;
}

static void check_still_open(int fd, const char *when) {
    CHECK(fcntl(fd, F_GETFD) >= 0, "%s closed a file that is not its own", when);
}

CASE(a_file_that_has_the_number_of_a_closed_fd_is_not_touched) {
    struct probe *log = probe_new("log"), *probe = probe_new("receiver");
    layer_config_t *config = new_config("dispatch", "poll");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    const char *channel = new_channel(layer);
    CHECK_OK(receive(layer, channel, probe, NULL));
    int ends[2], watched = -1;
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2 failed");
    CHECK_OK(layer_fd_dup(layer, &watched, ERR));
    int file = take_number_of(layer_fd(layer), ends[1]);

    /* The layer goes on, and what says that callbacks are due is not written into the file. */
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_DUE(watched);
    while (SEEN(probe, length) < 1) {
        CHECK_OK(layer_poll(layer, 0, 20000, NULL, ERR));
    }
    char written;
    CHECK(read(ends[0], &written, 1) == -1, "the layer wrote into the file");
    CHECK(!was_logged(log, "descriptor_lost"), "it was logged before the end");
    CHECK_OK(layer_close(layer, 10000, ERR));
    check_still_open(file, "layer_close");
    CHECK(was_logged(log, "descriptor_lost"), "the lost descriptor was not logged");
    free_layer(layer);
    check_still_open(file, "layer_free");
    CHECK(write(file, "x", 1) == 1, "the file cannot be written");
    CHECK(read(ends[0], &written, 1) == 1 && written == 'x', "the file is another one");
    CHECK(close(file) == 0 && close(ends[0]) == 0 && close(watched) == 0, "close failed");
}

CASE(another_event_fd_that_has_the_number_of_a_closed_fd_is_not_touched) {
    layer_t *layer = open_layer("dispatch", "poll"), *other = open_layer("dispatch", "poll");
    int watched = -1;
    CHECK_OK(layer_fd_dup(other, &watched, ERR)); /* Even that of another layer. */
    int file = take_number_of(layer_fd(layer), watched);
    free_layer(layer);
    check_still_open(file, "layer_free");
    CHECK_OK(send_async(other, new_channel(other), 1, probe_new("done")));
    CHECK_DUE(file);
    CHECK_OK(layer_poll(other, 0, 0, NULL, ERR));
    CHECK(close(file) == 0, "close failed");
}

CASE(layer_free_closes_the_fd_that_is_its_own) {
    struct probe *log = probe_new("log");
    layer_config_t *config = new_config("dispatch", "poll");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    int fd = layer_fd(layer);
    CHECK_OK(layer_close(layer, 10000, ERR));
    CHECK(layer_fd(layer) == fd && fcntl(fd, F_GETFD) >= 0, "layer_close closed the descriptor");
    free_layer(layer);
    CHECK(fcntl(fd, F_GETFD) == -1, "the descriptor is open after layer_free");
    CHECK(!was_logged(log, "descriptor_lost"), "a descriptor was logged as lost, and is not");
}

/* Watches the fd of a layer for edges, until all of a burst has come. */
static void receive_by_edges(size_t max) {
    enum { BURST = 500 };
    layer_t *layer = open_layer("dispatch", "poll", "local_capacity", "1000", "remote_capacity",
                                "1000", "prefetch_count", "50");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    struct epoll_event watch = {.events = EPOLLIN | EPOLLET}, event;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    CHECK(loop >= 0, "epoll_create1 failed");
    CHECK(epoll_ctl(loop, EPOLL_CTL_ADD, layer_fd(layer), &watch) == 0, "epoll_ctl failed");
    CHECK_OK(receive(layer, channel, probe, NULL));
    for (int64_t i = 0; i < BURST; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    while (SEEN(probe, length) < BURST || SEEN(done, calls) < BURST) {
        int count = epoll_wait(loop, &event, 1, (int)(harness_scaled(WAIT_SECONDS) * 1000));
        CHECK(count == 1, "no edge came with %zu messages and %u outcomes of %d",
              SEEN(probe, length), SEEN(done, calls), BURST);
        while (poll_once(layer, max, 0) > 0) {
        }
    }
    for (int64_t i = 0; i < BURST; i++) {
        CHECK(probe_number(probe, (size_t)i) == i, "message %lld came as number %lld",
              (long long)probe_number(probe, (size_t)i), (long long)i);
    }
    CHECK(close(loop) == 0, "close failed");
}

CASE(a_loop_that_watches_edges_polls_until_nothing_ran) { receive_by_edges(64); }
CASE(a_loop_that_watches_edges_may_poll_by_turns) { receive_by_edges(0); }

struct poller {
    layer_t *layer;
    struct gate *end;
    size_t ran;
    layer_status_t status;
};

static void poll_for_one(void *argument) {
    struct poller *poller = argument;
    poller->status = STATUS(layer_poll(poller->layer, 0, 20000, &poller->ran, ERR));
}

CASE(a_poll_waits_for_its_first_callback) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    double began = harness_now();
    CHECK_RAN(layer, 0, 50, 0);
    CHECK(harness_now() - began >= 0.049, "a poll of 50 ms ended after %.4f s",
          harness_now() - began);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, channel, probe, NULL));
    struct poller *poller = case_alloc(sizeof *poller);
    *poller = (struct poller){.layer = layer};
    struct thread *thread = spawn(poll_for_one, poller);
    CHECK_OK(send_number(layer, channel, 1));
    join(thread);
    CHECK(poller->status == LAYER_OK, "%s", layer_status_name(poller->status));
    CHECK(poller->ran == 1, "it ran %zu callbacks", poller->ran);
    CHECK_SEEN(probe, length, 1);
    CHECK_OK(send_number(layer, channel, 2));
    CHECK_DUE(layer_fd(layer));
    CHECK_OK(layer_poll(layer, 0, 0, NULL, ERR)); /* Nobody has to count. */
    CHECK_SEEN(probe, length, 2);
}

CASE(a_poll_that_waits_ends_with_the_layer) {
    layer_t *layer = open_layer("dispatch", "poll");
    struct poller *poller = case_alloc(sizeof *poller);
    *poller = (struct poller){.layer = layer};
    struct thread *thread = spawn(poll_for_one, poller);
    CHECK_OK(layer_close(layer, 5000, ERR));
    join_within(thread, 5);
    CHECK(poller->status == LAYER_CLOSED || (poller->status == LAYER_OK && poller->ran == 0),
          "%s, ran %zu", layer_status_name(poller->status), poller->ran);
    CHECK_STATUS(LAYER_CLOSED, layer_poll(layer, 0, 0, NULL, ERR));
    CHECK_STATUS(LAYER_CLOSED, layer_poll(layer, 0, 1000, NULL, ERR));
}

static void keep_polling(void *argument) {
    struct poller *poller = argument;
    while (!gate_is_open(poller->end)) {
        size_t ran = 0;
        CHECK_OK(layer_poll(poller->layer, 8, 20, &ran, ERR));
        CHECK(ran <= 8, "layer_poll ran %zu callbacks, and its bound was 8", ran);
        poller->ran += ran;
    }
}

CASE(concurrent_polls_keep_the_order_of_each_channel) {
    enum { POLLERS = 4, CHANNELS = 8, EACH = 300 };
    layer_t *layer =
        open_layer("dispatch", "poll", "remote_capacity", "20000", "prefetch_count", "200");
    struct gate *end = gate_new();
    struct poller *pollers = case_alloc(POLLERS * sizeof *pollers);
    struct thread *threads[POLLERS];
    struct probe *probes[CHANNELS], *done = probe_new("done");
    const char *channels[CHANNELS];
    for (size_t i = 0; i < CHANNELS; i++) {
        channels[i] = new_channel(layer);
        probes[i] = probe_new(text("receiver %zu", i));
        CHECK_OK(receive(layer, channels[i], probes[i], NULL));
    }
    for (size_t i = 0; i < POLLERS; i++) {
        pollers[i] = (struct poller){.layer = layer, .end = end};
        threads[i] = spawn(keep_polling, &pollers[i]);
    }
    for (int64_t n = 0; n < EACH; n++) {
        for (size_t i = 0; i < CHANNELS; i++) {
            CHECK_OK(send_async(layer, channels[i], n, done));
        }
    }
    for (size_t i = 0; i < CHANNELS; i++) {
        WAIT_MESSAGES(probes[i], EACH);
    }
    WAIT_CALLS(done, CHANNELS * EACH);
    gate_open(end);
    size_t ran = 0;
    for (size_t i = 0; i < POLLERS; i++) {
        join(threads[i]);
        ran += pollers[i].ran;
    }
    CHECK(ran == 2 * CHANNELS * EACH, "the polls ran %zu callbacks, not %d", ran,
          2 * CHANNELS * EACH);
    for (size_t i = 0; i < CHANNELS; i++) {
        for (int64_t n = 0; n < EACH; n++) {
            CHECK(probe_number(probes[i], (size_t)n) == n, "message %lld came as number %lld",
                  (long long)probe_number(probes[i], (size_t)n), (long long)n);
        }
    }
}

CASE(cancel_in_poll_mode_destroys_without_a_poll) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    uint64_t id = 0;
    CHECK_OK(receive(layer, channel, probe, &id));
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_DUE(layer_fd(layer));
    CHECK_OK(layer_receive_cancel(layer, id, ERR));
    CHECK_SEEN(probe, destroys, 1);
    CHECK_SEEN(probe, calls, 0);
    CHECK_RAN(layer, 0, 0, 0); /* The fd may still say that something was due. */
    CHECK_IDLE(layer_fd(layer));
    CHECK_PULL(layer, channel, 1);
}

CASE(close_in_poll_mode_with_nobody_polling) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *idle = probe_new("idle"),
                 *done = probe_new("done");
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(receive(layer, new_channel(layer), idle, NULL));
    CHECK_OK(group_add_async(layer, unique("group-"), channel, done));
    for (int64_t i = 0; i < 20; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    CHECK_DUE(layer_fd(layer));
    double began = harness_now();
    CHECK_OK(layer_close(layer, 10000, ERR));
    CHECK(harness_now() - began < harness_scaled(5), "close took %.1f s", harness_now() - began);
    CHECK_SEEN(done, calls, 21);
    CHECK_SEEN(done, destroys, 21);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, destroys, 1);
    CHECK_SEEN(idle, ends, 1);
    CHECK_SEEN(idle, destroys, 1);
    CHECK_STATUS(LAYER_CLOSED, layer_poll(layer, 0, 0, NULL, ERR));
}

CASE(free_in_poll_mode_with_nobody_polling) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(layer, channel, probe, NULL));
    for (int64_t i = 0; i < 20; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    free_layer(layer);
    CHECK_SEEN(done, destroys, 20);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, destroys, 1);
}

struct closer {
    layer_t *layer;
    bool frees, begun;
};

static int32_t close_on_message(struct probe *probe, layer_status_t status,
                                const layer_message_t *message) {
    (void)message;
    struct closer *closer = probe->context;
    if (status != LAYER_OK || closer->begun) {
        return LAYER_CONTINUE;
    }
    closer->begun = true; /* The other message may still come, or be dropped. */
    if (closer->frees) {
        layer_free(closer->layer);
    } else {
        EXPECT_OK(layer_close(closer->layer, 10000, ERR));
    }
    return LAYER_CONTINUE;
}

static void close_from_a_polled_callback(bool frees) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct closer *closer = case_alloc(sizeof *closer);
    *closer = (struct closer){layer, frees, false};
    struct probe *probe = probe_new("closing"), *other = probe_new("other"),
                 *done = probe_new("done");
    probe->on_message = close_on_message;
    probe->context = closer;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(receive(layer, new_channel(layer), other, NULL));
    CHECK_OK(send_async(layer, channel, 1, done));
    CHECK_OK(send_number(layer, channel, 2));
    if (frees) {
        disown_layer(layer);
    }
    layer_status_t status = LAYER_OK;
    while (status == LAYER_OK && SEEN(probe, calls) == 0) {
        status = STATUS(layer_poll(layer, 0, 20000, NULL, ERR));
        CHECK(status == LAYER_OK || status == LAYER_CLOSED, "%s (%s)", layer_status_name(status),
              error_text());
    }
    if (!frees) { /* Which runs what is left, as nobody polls. */
        CHECK_OK(layer_close(layer, 10000, ERR));
    }
    WAIT_DESTROYS(probe, 1);
    WAIT_DESTROYS(other, 1);
    WAIT_DESTROYS(done, 1);
    CHECK_SEEN(probe, end_status, LAYER_CLOSED);
    CHECK_SEEN(other, ends, 1);
}

CASE(close_from_a_polled_callback) { close_from_a_polled_callback(false); }
CASE(free_from_a_polled_callback) { close_from_a_polled_callback(true); }

/* --- A close that does not wait -------------------------------------------------------------- */

struct last {
    struct probe *receiver, *done;
};

static void all_else_was_polled(struct probe *probe, layer_status_t status,
                                const layer_error_t *error) {
    struct last *last = probe->context;
    EXPECT(status == LAYER_OK, "%s: %s", layer_status_name(status), layer_error_message(error));
    harness_lock();
    EXPECT(last->receiver->ends == 1 && last->done->destroys == last->done->given,
           "the receiver ended %u times and %u of %u outcomes came before", last->receiver->ends,
           last->done->destroys, last->done->given);
    harness_unlock();
}

static void poll_until_closed(layer_t *layer) {
    layer_status_t status = LAYER_OK;
    while (status == LAYER_OK) {
        size_t ran = 0;
        status = STATUS(layer_poll(layer, 3, 20000, &ran, ERR));
        CHECK(status == LAYER_OK || status == LAYER_CLOSED, "%s (%s)", layer_status_name(status),
              error_text());
        CHECK(status == LAYER_CLOSED || ran > 0, "a poll of 20 s ran nothing");
    }
}

CASE(a_close_without_waiting_is_the_last_callback_that_polls_run) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done"),
                 *closed = probe_new("closed");
    struct last *last = case_alloc(sizeof *last);
    *last = (struct last){probe, done};
    closed->context = last;
    closed->on_done = all_else_was_polled;
    CHECK_OK(receive(layer, channel, probe, NULL));
    for (int64_t i = 0; i < 20; i++) {
        CHECK_OK(send_async(layer, channel, i, done));
    }
    CHECK_OK(close_async(layer, 20000, closed));
    CHECK_OK(close_async(layer, 20000, closed));
    CHECK_DUE(layer_fd(layer));
    CHECK_SEEN(closed, calls, 0);
    poll_until_closed(layer);
    CHECK_SEEN(closed, destroys, 2);
    CHECK_SEEN(closed, outcomes[LAYER_OK], 2);
    CHECK_SEEN(probe, destroys, 1);
    CHECK_SEEN(done, destroys, 20);
    /* Again on a layer that is closed: due, and only a poll runs it. */
    struct probe *again = probe_new("closed again"), *freed = probe_new("closed and freed");
    CHECK_OK(close_async(layer, 0, again));
    CHECK_DUE(layer_fd(layer));
    CHECK_SEEN(again, calls, 0);
    poll_until_closed(layer);
    CHECK_SEEN(again, outcomes[LAYER_OK], 1);
    CHECK_OK(close_async(layer, 20000, freed));
    free_layer(layer);
    CHECK_SEEN(freed, outcomes[LAYER_OK], 1);
    CHECK_SEEN(freed, destroys, 1);
}

CASE(close_and_free_run_a_close_without_waiting_where_nobody_polls) {
    for (unsigned frees = 0; frees < 2; frees++) {
        layer_t *layer = open_layer("dispatch", "poll");
        const char *channel = new_channel(layer);
        struct probe *probe = probe_new("receiver"), *done = probe_new("done"),
                     *closed = probe_new("closed");
        CHECK_OK(receive(layer, channel, probe, NULL));
        CHECK_OK(send_async(layer, channel, 1, done));
        CHECK_OK(close_async(layer, UINT32_MAX, closed));
        CHECK_OK(close_async(layer, 20000, closed));
        if (frees) {
            free_layer(layer);
        } else {
            CHECK_OK(layer_close(layer, 20000, ERR));
            CHECK_STATUS(LAYER_CLOSED, layer_poll(layer, 0, 0, NULL, ERR));
        }
        CHECK_SEEN(closed, outcomes[LAYER_OK], 2);
        CHECK_SEEN(closed, destroys, 2);
        CHECK_SEEN(probe, destroys, 1);
        CHECK_SEEN(done, destroys, 1);
    }
}

static int32_t stay_inside(struct probe *probe, layer_status_t status,
                           const layer_message_t *message) {
    (void)message;
    struct poller *poller = probe->context;
    if (status == LAYER_OK) {
        GATE_WAIT(poller->end);
    }
    return LAYER_CONTINUE;
}

CASE(a_polled_close_without_waiting_is_told_in_time_when_a_callback_does_not_return) {
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct poller *poller = case_alloc(sizeof *poller);
    *poller = (struct poller){.layer = layer, .end = gate_new()};
    struct probe *probe = probe_new("stuck"), *closed = probe_new("closed");
    probe->context = poller;
    probe->on_message = stay_inside;
    CHECK_OK(receive(layer, channel, probe, NULL));
    struct thread *thread = spawn(poll_for_one, poller);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_CALLS(probe, 1);
    CHECK_OK(close_async(layer, 200, closed));
    while (SEEN(closed, calls) == 0) {
        layer_status_t status = STATUS(layer_poll(layer, 0, 20000, NULL, ERR));
        CHECK(status == LAYER_OK, "%s (%s)", layer_status_name(status), error_text());
    }
    CHECK_SEEN(closed, outcomes[LAYER_TIMEOUT], 1);
    CHECK_SEEN(probe, running, 1);
    gate_open(poller->end);
    join(thread);
    CHECK_OK(layer_close(layer, 20000, ERR));
    CHECK_SEEN(probe, destroys, 1);
}

static void free_it(struct probe *probe, layer_status_t status, const layer_error_t *error) {
    (void)error;
    struct closer *closer = probe->context;
    EXPECT(status == LAYER_OK, "%s", layer_status_name(status));
    closer->begun = true;
    layer_free(closer->layer);
}

CASE(a_polled_layer_may_be_freed_by_what_is_told_that_it_is_closed) {
    layer_t *layer = open_layer("dispatch", "poll");
    struct closer *closer = case_alloc(sizeof *closer);
    *closer = (struct closer){layer, true, false};
    struct probe *probe = probe_new("receiver"), *closed = probe_new("closed"),
                 *never_polled = probe_new("closed after it");
    closed->on_done = free_it;
    closed->context = closer;
    CHECK_OK(receive(layer, new_channel(layer), probe, NULL));
    disown_layer(layer);
    CHECK_OK(close_async(layer, 20000, closed));
    while (!closer->begun) {
        CHECK_OK(layer_poll(layer, 1, 20000, NULL, ERR));
        if (SEEN(probe, ends) == 1 && SEEN(never_polled, given) == 0) {
            CHECK_OK(close_async(layer, UINT32_MAX, never_polled));
        }
    }
    WAIT_DESTROYS(closed, 1);
    WAIT_DESTROYS(never_polled, 1); /* By a thread of the library, as nobody polls any more. */
    CHECK_SEEN(probe, destroys, 1);
}
