/* A program of the first release: it calls every function that release had. It is built with the
 * header in this folder and runs on the library of today, which it must not notice. Once 0.1.0 is
 * released, neither file changes any more.
 *
 * Its argument is the host, memory://every-function without one. */

#include <channel_layer.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 10000

static void fail(const char *what) {
    fprintf(stderr, "every_function: %s\n", what);
    exit(1);
}

static void check(int holds, const char *what) {
    if (!holds) {
        fail(what);
    }
}

static void succeed(layer_status_t status, layer_error_t *error, const char *call) {
    if (status != LAYER_OK) {
        fprintf(stderr, "every_function: %s: %s: %s\n", call, layer_status_name(status),
                layer_error_message(error));
        exit(1);
    }
}

#define SUCCEED(call) succeed((call), error, #call)

/* What callbacks have seen. They run on threads of the library or inside layer_poll. */
struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int messages, outcomes, states, destroyed, closed;
    layer_message_t *kept;
};

static void count(struct seen *seen, int *what) {
    pthread_mutex_lock(&seen->lock);
    ++*what;
    pthread_cond_broadcast(&seen->changed);
    pthread_mutex_unlock(&seen->lock);
}

/* The library ends the wait, or whoever runs this ends the program. */
static void wait_for(struct seen *seen, const int *what, int wanted) {
    pthread_mutex_lock(&seen->lock);
    while (*what < wanted) {
        pthread_cond_wait(&seen->changed, &seen->lock);
    }
    pthread_mutex_unlock(&seen->lock);
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    check(level >= LAYER_LOG_ERROR && level <= LAYER_LOG_DEBUG, "a log level of this release");
    check(id != NULL && target != NULL && message != NULL, "a log record has all its texts");
}

static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    struct seen *seen = userdata;
    check(state != LAYER_STATE_READY || generation > 0, "a layer that is ready has consumed");
    count(seen, &seen->states);
}

static void on_isolation(void *userdata, layer_isolation_t event, const char *channel,
                         uint64_t lost) {
    (void)userdata;
    (void)channel;
    (void)lost;
    check(event >= LAYER_ISOLATION_BEGAN && event <= LAYER_ISOLATION_ENDED,
          "an event of this release");
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    struct seen *seen = userdata;
    check(status == LAYER_OK && error == NULL, "an async call succeeds");
    count(seen, &seen->outcomes);
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct seen *seen = userdata;
    if (status != LAYER_OK) {
        check(status == LAYER_CLOSED && message == NULL, "the layer ends its receivers by closing");
        count(seen, &seen->closed);
        return LAYER_STOP;
    }
    check(message != NULL, "a message comes with LAYER_OK");
    if (seen->kept == NULL) {
        seen->kept = layer_message_ref(message);
    }
    count(seen, &seen->messages);
    return LAYER_CONTINUE;
}

static void on_destroy(void *userdata) {
    struct seen *seen = userdata;
    count(seen, &seen->destroyed);
}

static layer_t *open_layer(const char *host, const char *dispatch, struct seen *seen) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    check(config != NULL, "layer_config_new");
    SUCCEED(layer_config_set(config, "host", host, &error));
    SUCCEED(layer_config_set(config, "dispatch", dispatch, &error));
    SUCCEED(layer_config_on_log(config, on_log, seen, on_destroy, &error));
    SUCCEED(layer_config_on_state(config, on_state, seen, on_destroy, &error));
    SUCCEED(layer_config_on_isolation(config, on_isolation, seen, on_destroy, &error));
    SUCCEED(layer_config_check(config, &error));
    SUCCEED(layer_new(config, &layer, &error));
    layer_config_free(config);
    SUCCEED(layer_wait_ready(layer, WAIT_MS, &error));
    return layer;
}

/* {"type": "first"} in MessagePack. */
static const uint8_t first[] = "\x81\xa4type\xa5"
                               "first";
static const size_t first_length = sizeof first - 1;

static void expect(const layer_message_t *message, const char *channel, const char *group) {
    layer_error_t *error = NULL;
    const char *json = NULL;
    size_t length = 0;
    check(message != NULL, "there is a message");
    const uint8_t *data = layer_message_data(message, &length);
    check(length == first_length && memcmp(data, first, length) == 0, "the bytes are those sent");
    SUCCEED(layer_message_json(message, &json, &error));
    check(strcmp(json, "{\"type\":\"first\"}") == 0, "the JSON is that of the bytes");
    check(strcmp(layer_message_type(message), "first") == 0, "the type");
    check(strcmp(layer_message_channel(message), channel) == 0, "the channel");
    const char *from = layer_message_group(message);
    check(group == NULL ? from == NULL : from != NULL && strcmp(from, group) == 0, "the group");
}

static void expect_next(const layer_t *layer, const char *channel, const char *group) {
    layer_error_t *error = NULL;
    layer_message_t *message = NULL;
    SUCCEED(layer_receive_next(layer, channel, WAIT_MS, &message, &error));
    expect(message, channel, group);
    layer_message_free(message);
}

static void use_threads(const char *host) {
    static struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER,
                               .changed = PTHREAD_COND_INITIALIZER};
    layer_error_t *error = NULL;
    layer_t *layer = open_layer(host, "thread", &seen);
    check(layer_fd(layer) == -1, "there is no descriptor with dispatch=thread");

    layer_state_t state = LAYER_STATE_CONNECTING;
    SUCCEED(layer_state(layer, &state, &error));
    check(state == LAYER_STATE_READY, "the state is ready");

    char channel[LAYER_NAME_SIZE];
    SUCCEED(layer_new_channel(layer, "web", channel, sizeof channel, &error));
    SUCCEED(layer_send(layer, channel, first, first_length, &error));
    expect_next(layer, channel, NULL);
    SUCCEED(layer_send_json(layer, channel, "{\"type\": \"first\"}", &error));
    expect_next(layer, channel, NULL);
    SUCCEED(layer_group_add(layer, "room", channel, &error));
    SUCCEED(layer_group_send(layer, "room", first, first_length, &error));
    expect_next(layer, channel, "room");
    SUCCEED(layer_group_send_json(layer, "room", "{\"type\": \"first\"}", &error));
    expect_next(layer, channel, "room");

    uint64_t confirmed = 0;
    SUCCEED(layer_stat(layer, LAYER_STAT_SENDS_CONFIRMED, &confirmed, &error));
    check(confirmed == 4, "four sends were confirmed");

    size_t length = 0;
    SUCCEED(layer_stats_prometheus(layer, "site=\"old\"", NULL, 0, &length, &error));
    char *metrics = malloc(length + 1);
    check(metrics != NULL, "there is memory");
    SUCCEED(layer_stats_prometheus(layer, "site=\"old\"", metrics, length + 1, NULL, &error));
    check(strstr(metrics, "site=\"old\"") != NULL, "the metrics have the label");
    free(metrics);

    /* Each of these has a destroy; those of the config follow when the layer is gone. */
    uint64_t receiver = 0;
    SUCCEED(layer_receive(layer, channel, on_message, &seen, on_destroy, &receiver, &error));
    check(receiver != 0, "a receiver's number is never 0");
    SUCCEED(layer_group_add_async(layer, "hall", channel, on_done, &seen, on_destroy, &error));
    wait_for(&seen, &seen.outcomes, 1);
    SUCCEED(
        layer_send_async(layer, channel, first, first_length, on_done, &seen, on_destroy, &error));
    SUCCEED(layer_group_send_async(layer, "hall", first, first_length, on_done, &seen, on_destroy,
                                   &error));
    SUCCEED(layer_send_json_async(layer, channel, "{\"type\": \"first\"}", on_done, &seen,
                                  on_destroy, &error));
    SUCCEED(layer_group_send_json_async(layer, "hall", "{\"type\": \"first\"}", on_done, &seen,
                                        on_destroy, &error));
    wait_for(&seen, &seen.outcomes, 5);
    wait_for(&seen, &seen.messages, 4);
    SUCCEED(layer_receive_cancel(layer, receiver, &error));
    wait_for(&seen, &seen.destroyed, 6);

    SUCCEED(layer_group_discard(layer, "room", channel, &error));
    SUCCEED(layer_channel_discard(layer, channel, &error));
    check(layer_receive_next(layer, channel, 0, NULL, &error) == LAYER_INVALID, "NULL is refused");
    check(layer_error_status(error) == LAYER_INVALID, "the error has the status");
    check(strlen(layer_error_message(error)) > 0, "the error has words");
    layer_error_free(error);
    error = NULL;

    layer_t *other = open_layer(host, "thread", &seen);
    SUCCEED(layer_close(layer, WAIT_MS, &error));
    layer_free(layer);
    SUCCEED(layer_close_async(other, WAIT_MS, on_done, &seen, on_destroy, &error));
    wait_for(&seen, &seen.outcomes, 6);
    layer_free(other);
    wait_for(&seen, &seen.destroyed, 13);
    check(seen.states > 0, "the state changed");
    check(seen.closed == 0, "a receiver that its user has ended hears no more");
    expect(seen.kept, channel, NULL);
    layer_message_free(seen.kept);
}

static void use_poll(const char *host) {
    static struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER,
                               .changed = PTHREAD_COND_INITIALIZER};
    layer_error_t *error = NULL;
    layer_t *layer = open_layer(host, "poll", &seen);
    char channel[LAYER_NAME_SIZE];
    SUCCEED(layer_new_channel(layer, NULL, channel, sizeof channel, &error));
    SUCCEED(layer_receive(layer, channel, on_message, &seen, on_destroy, NULL, &error));
    SUCCEED(layer_send_async(layer, channel, first, first_length, on_done, &seen, NULL, &error));
    struct pollfd due = {.fd = layer_fd(layer), .events = POLLIN};
    check(due.fd >= 0, "there is a descriptor with dispatch=poll");
    int duplicate = -1;
    SUCCEED(layer_fd_dup(layer, &duplicate, &error));
    check(duplicate >= 0 && close(duplicate) == 0, "its duplicate is the caller's");
    while (seen.messages < 1 || seen.outcomes < 1) {
        size_t ran = 0;
        check(poll(&due, 1, WAIT_MS) == 1, "the descriptor becomes readable");
        SUCCEED(layer_poll(layer, 0, 0, &ran, &error));
    }
    expect(seen.kept, channel, NULL);
    layer_message_free(seen.kept);
    layer_free(layer);
    check(seen.closed == 1, "the receiver was told of the end");
    wait_for(&seen, &seen.destroyed, 4);
}

int main(int argc, char **argv) {
    const char *host = argc > 1 ? argv[1] : "memory://every-function";
    check(layer_abi_version() == LAYER_ABI_VERSION, "the ABI is that of the header");
    check(strlen(layer_version()) > 0, "the library has a version");
    check(strcmp(layer_status_name(LAYER_INTERNAL), "LAYER_INTERNAL") == 0, "statuses keep names");
    use_threads(host);
    use_poll(host);
    printf("built with %s, ran on %s\n", LAYER_VERSION, layer_version());
    return 0;
}
