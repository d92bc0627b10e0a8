/* After fork(): the child must not use the parent's layers, and can open its own. */
#include "support.h"

#include "../forked.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs in the child, where the harness's lock may be held by a thread that is not there: no CHECK,
 * no probe. Gives the number of the first call that went wrong. */
static int use_forked(layer_t *layer, layer_t *polled, const char *channel, const char *group,
                      layer_message_t *kept) {
    int refused = forked_call_not_refused(layer, polled, channel, group);
    if (refused != 0) {
        return refused;
    }
    if (number_of(kept) != 7) { /* A message is no layer. */
        return 102;
    }
    layer_message_free(kept);
    layer_free(layer);
    layer_free(polled);
    return 0;
}

static int status_of(pid_t child) {
    int status = 0;
    double deadline = harness_now() + harness_scaled(30);
    pid_t ended;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0 && harness_now() < deadline) {
        harness_pause(0.005);
    }
    if (ended == 0) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        CHECK(false, "the child hung");
    }
    CHECK(ended == child, "waitpid failed");
    CHECK(WIFEXITED(status), "the child was ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

CASE(a_forked_child_is_told_so_by_every_call) {
    layer_t *layer = open_layer(DEFAULTS), *polled = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_OK(receive(polled, new_channel(polled), probe_new("polled receiver"), NULL));
    const char *queued = new_channel(layer);
    CHECK_OK(send_number(layer, queued, 7));
    layer_message_t *kept = pull(layer, queued);
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        _exit(use_forked(layer, polled, channel, group, kept));
    }
    int code = status_of(child);
    layer_message_free(kept);
    CHECK(code == 0, "call %d of the child went wrong", code);
    CHECK_OK(send_number(layer, channel, 1)); /* The parent's layer has not noticed. */
    CHECK_OK(group_send_number(layer, group, 2));
    WAIT_MESSAGES(probe, 2);
    CHECK(probe_number(probe, 1) == 2, "message %lld", (long long)probe_number(probe, 1));
    CHECK_SEEN(probe, destroys, 0);
}

/* Gives 0, or the number of the step that went wrong times 16 and its status. */
static int use_own(layer_t *parents) {
    layer_config_t *config = layer_config_new();
    layer_t *layer = NULL;
    layer_message_t *message = NULL;
    char channel[LAYER_NAME_SIZE];
    struct numbered m = number_message(5);
    int step = 0;
#define STEP(expression)                                                                           \
    do {                                                                                           \
        step++;                                                                                    \
        layer_status_t status = (expression);                                                      \
        if (status != LAYER_OK) {                                                                  \
            return 16 * step + (int)status;                                                        \
        }                                                                                          \
    } while (0)
    STEP(layer_config_set(config, "host", test_host(), NULL));
    STEP(layer_new(config, &layer, NULL));
    STEP(layer_wait_ready(layer, 20000, NULL));
    STEP(layer_new_channel(layer, NULL, channel, sizeof channel, NULL));
    STEP(layer_send(layer, channel, m.data, m.length, NULL));
    STEP(layer_receive_next(layer, channel, 20000, &message, NULL));
    STEP(number_of(message) == 5 ? LAYER_OK : LAYER_INTERNAL);
    STEP(layer_close(layer, 10000, NULL));
#undef STEP
    layer_message_free(message);
    layer_free(layer);
    layer_free(parents);
    layer_config_free(config);
    return 0;
}

static void check_child(layer_t *parents) {
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        _exit(use_own(parents));
    }
    int code = status_of(child);
    CHECK(code == 0, "step %d of the child: %s", code / 16, layer_status_name(code % 16));
}

/* The parent has many threads, most of them waiting: what they hold or wait in is not the child's,
 * whose own threads get their old stacks. */
CASE_WHEN(a_forked_child_opens_a_layer_of_its_own, forks_safely) {
    layer_t *layer = open_layer("dispatch_threads", "16");
    open_layer("dispatch_threads", "16");
    const char *channel = new_channel(layer);
    for (int64_t i = 0; i < 10; i++) {
        check_child(layer);
        CHECK_OK(send_number(layer, channel, i));
        CHECK_PULL(layer, channel, i);
    }
}

CASE(a_child_forked_before_any_layer_opens_its_own) { check_child(NULL); }

static int32_t fork_inside(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)message;
    if (status == LAYER_OK) {
        pid_t child = fork();
        if (child == 0) {
            _exit(use_own(NULL));
        }
        harness_lock();
        *(pid_t *)userdata = child;
        harness_unlock();
    }
    return LAYER_CONTINUE;
}

/* It is inside the callback still, but no layer of its own waits for that one. */
CASE_WHEN(a_child_forked_in_a_callback_opens_a_layer_of_its_own, forks_safely) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    pid_t *child = case_alloc(sizeof *child);
    CHECK_OK(layer_receive(layer, channel, fork_inside, child, NULL, NULL, ERR));
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_FOR(*child != 0, "no child");
    int code = status_of(*child);
    CHECK(code == 0, "step %d of the child: %s", code / 16, layer_status_name(code % 16));
}
