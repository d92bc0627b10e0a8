/*
 * Ends in the middle of everything: process_exit HOST WAY MILLISECONDS STATUS.
 *
 * Layers of both dispatch modes are open; threads are inside each kind of call that waits, others
 * make those that do not; callbacks run, some of them for long. After MILLISECONDS of that the
 * process ends by WAY, and must give STATUS. With the host `unreachable` all that waits for the
 * broker.
 */
#include "process.h"

static layer_t *layer, *polled, *closing;
static char busy_channel[LAYER_NAME_SIZE], slow_channel[LAYER_NAME_SIZE];
static char quiet_channel[LAYER_NAME_SIZE], polled_channel[LAYER_NAME_SIZE];
static const char *way;
static int status_wanted;
/* What must have happened before the end is in the middle of it. */
static atomic_int callbacks_run, slow_callbacks, pulls, polls, sends, closes, asyncs;
static atomic_bool exit_from_callback;

/* Statuses do not matter here: at the end anything may be refused. */
#define ANY(call) ((void)((call) == LAYER_OK))

static int32_t on_busy(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)message;
    (void)status;
    atomic_fetch_add(&callbacks_run, 1);
    if (atomic_load(&exit_from_callback)) {
        exit(status_wanted);
    }
    return LAYER_CONTINUE;
}

static int32_t on_slow(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)message;
    if (status == LAYER_OK) {
        atomic_fetch_add(&slow_callbacks, 1);
        pause_for(1);
    }
    return LAYER_CONTINUE;
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    (void)status;
    (void)error;
    atomic_fetch_add(&asyncs, 1);
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)level;
    (void)id;
    (void)target;
    (void)message;
}

static void on_destroy(void *userdata) { (void)userdata; }

static void *send_on(void *channel) {
    for (int64_t i = 0;; i++) {
        atomic_fetch_add(&sends, 1);
        ANY(send_number(layer, channel, i, NULL));
        ANY(send_number(polled, polled_channel, i, NULL));
    }
    return NULL;
}

static void *send_async_on(void *unused) {
    (void)unused;
    for (int64_t i = 0;; i++) {
        struct number m = number_message(i);
        if (layer_send_async(layer, i % 100 ? busy_channel : slow_channel, m.data, m.length,
                             on_done, NULL, on_destroy, NULL) != LAYER_OK) {
            pause_for(0.001);
        }
    }
    return NULL;
}

static void *pull_on(void *unused) {
    (void)unused;
    for (;;) {
        layer_message_t *message = NULL;
        atomic_fetch_add(&pulls, 1);
        ANY(layer_receive_next(layer, quiet_channel, 60000, &message, NULL));
        layer_message_free(message);
    }
    return NULL;
}

static void *poll_on(void *unused) {
    (void)unused;
    for (;;) {
        atomic_fetch_add(&polls, 1);
        ANY(layer_poll(polled, 0, 60000, NULL, NULL));
    }
    return NULL;
}

static void *join_on(void *unused) {
    (void)unused;
    for (int i = 0;; i++) {
        char group[32];
        snprintf(group, sizeof group, "g%d", i % 100);
        ANY(layer_group_add(layer, group, busy_channel, NULL));
        ANY(layer_group_discard(layer, group, busy_channel, NULL));
    }
    return NULL;
}

static void *wait_ready_on(void *unused) {
    (void)unused;
    for (;;) {
        ANY(layer_wait_ready(layer, 60000, NULL));
        pause_for(0.001);
    }
    return NULL;
}

/* Layers that are on their way in and out. */
static void *open_and_close_on(void *host) {
    for (int i = 0;; i++) {
        layer_config_t *config = configure(host, NULL);
        layer_t *passing = NULL;
        if (layer_new(config, &passing, NULL) == LAYER_OK) {
            ANY(layer_wait_ready(passing, i % 2 ? 0 : 100, NULL));
            atomic_fetch_add(&closes, 1);
            layer_free(passing);
        }
        layer_config_free(config);
    }
    return NULL;
}

static void *close_on(void *unused) {
    (void)unused;
    ANY(layer_close(closing, 60000, NULL));
    return NULL;
}

/* Closes what is in use by all. */
static void close_at_exit(void) {
    layer_close(layer, 5000, NULL);
    layer_close(polled, 5000, NULL);
}

/* Runs after main and after atexit handlers, as a destructor of a C++ object would. */
static layer_t *alone;
__attribute__((destructor)) static void free_at_the_end(void) { layer_free(alone); }

/* A layer that the load does not use. */
static layer_t *unloaded;

static void *use_and_exit(void *unused) {
    char channel[LAYER_NAME_SIZE];
    layer_message_t *message;
    (void)unused;
    pause_for(0.05); /* By then the main thread is gone. */
    MUST(layer_new_channel(unloaded, NULL, channel, sizeof channel, ERROR));
    MUST(layer_group_add(unloaded, "after-main", channel, ERROR));
    MUST(group_send_number(unloaded, "after-main", 1, ERROR));
    MUST(layer_receive_next(unloaded, channel, 10000, &message, ERROR));
    layer_message_free(message);
    exit(status_wanted);
    return NULL;
}

static layer_t *open_logged(const char *host, const char *dispatch, const char *calls) {
    layer_config_t *config = configure(host, "dispatch", dispatch, "dispatch_threads", calls,
                                       "channel_capacity", "50", "timeout", "5", NULL);
    layer_t *opened = NULL;
    MUST(layer_config_on_log(config, on_log, NULL, on_destroy, ERROR));
    MUST(layer_new(config, &opened, ERROR));
    layer_config_free(config);
    return opened;
}

static void channel_of(layer_t *owner, char *name, layer_receive_cb callback) {
    MUST(layer_new_channel(owner, NULL, name, LAYER_NAME_SIZE, ERROR));
    if (callback != NULL) {
        MUST(layer_receive(owner, name, callback, NULL, on_destroy, NULL, ERROR));
    }
}

int main(int argc, char **argv) {
    MUST_BE(argc == 5);
    bool reachable = strcmp(argv[1], "unreachable") != 0;
    char *host = reachable ? argv[1] : "amqp://127.0.0.1:1";
    way = argv[2];
    status_wanted = atoi(argv[4]);
    layer = open_logged(host, "thread", "4");
    polled = open_logged(host, "poll", "1");
    closing = open_logged(host, "thread", "1");
    channel_of(layer, busy_channel, on_busy);
    channel_of(layer, slow_channel, on_slow);
    channel_of(layer, quiet_channel, NULL);
    channel_of(polled, polled_channel, on_busy);
    if (reachable) {
        MUST(layer_wait_ready(layer, 60000, ERROR));
        MUST(layer_wait_ready(polled, 60000, ERROR));
        MUST(layer_wait_ready(closing, 60000, ERROR));
    }
    if (strcmp(way, "destructor") == 0) {
        alone = open_logged(host, "thread", "2");
    }

    start(send_on, busy_channel);
    start(send_on, slow_channel);
    start(send_async_on, NULL);
    start(pull_on, NULL);
    start(poll_on, NULL);
    start(poll_on, NULL);
    start(join_on, NULL);
    start(wait_ready_on, NULL);
    start(open_and_close_on, host);
    start(open_and_close_on, host);
    /* So that no run shows less than it says. */
    MUST_BE(WAIT(atomic_load(&pulls) > 0 && atomic_load(&polls) > 0 && atomic_load(&sends) > 0 &&
                     atomic_load(&closes) > 0 &&
                     (!reachable || (atomic_load(&callbacks_run) > 0 && atomic_load(&asyncs) > 0 &&
                                     atomic_load(&slow_callbacks) > 0)),
                 20));
    start(close_on, NULL);
    pause_for(atof(argv[3]) * 1e-3);

    if (strcmp(way, "return") == 0 || strcmp(way, "destructor") == 0) {
        return status_wanted;
    } else if (strcmp(way, "exit") == 0) {
        exit(status_wanted);
    } else if (strcmp(way, "quick_exit") == 0) {
        quick_exit(status_wanted);
    } else if (strcmp(way, "close_at_exit") == 0) {
        atexit(close_at_exit);
        exit(status_wanted);
    } else if (strcmp(way, "exit_in_callback") == 0 && reachable) {
        atexit(close_at_exit);
        atomic_store(&exit_from_callback, true);
        for (;;) {
            pause();
        }
    } else if (strcmp(way, "pthread_exit") == 0 && reachable) {
        unloaded = open_layer(host, NULL);
        start(use_and_exit, NULL);
        pthread_exit(NULL);
    }
    die("there is no way '%s'", way);
}
