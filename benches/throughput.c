/*
 * The library's side of the comparison: messages that were both confirmed and consumed, each
 * second, by layer_send_async; or, with --latency, how long one message takes from layer_send to
 * the callback while nothing else goes on. peer_librabbitmq.c does the same with librabbitmq.
 *
 * Two layers, one that sends and one that receives, as two processes would have. The sender is a
 * thread of ours that keeps a window of sends in flight; outcomes and messages come on the
 * library's threads.
 */

#include "bench.h"

#include <semaphore.h>

#include "channel_layer.h"

#define PROGRAM "channel_layer"
#define TEXT(number) TEXT_(number)
#define TEXT_(number) #number
#define READY_MS 10000
/* A sender that found the window full waits until so many are left of it. */
#define REFILL_AT (BENCH_WINDOW * 3 / 4)

typedef struct {
    layer_t *sending;
    layer_t *receiving;
    char channel[LAYER_NAME_SIZE];
    uint8_t body[BENCH_BODY];
    uint8_t *seq_at;
    bench_tally_t *tally; /* NULL in latency mode */
    uint64_t sent;        /* by the sender, once it has ended */

    /* Sends without an outcome, and what wakes the sender. */
    alignas(64) _Atomic uint64_t in_flight;
    _Atomic bool full;
    pthread_mutex_t mutex;
    pthread_cond_t room;

    /* Latency mode: when the message arrived. */
    _Atomic int64_t arrived;
    sem_t arrival;
} bench_t;

/* `error` by its address: what a call writes may be read only after it, and the arguments of a call
 * are read in any order. */
static void check(layer_status_t status, layer_error_t *const *error, const char *what) {
    if (status != LAYER_OK) {
        bench_fail("%s: %s: %s", what, layer_status_name(status), layer_error_message(*error));
    }
}

/* --- set-up ------------------------------------------------------------------------------- */

static void print_log(void *userdata, layer_log_level_t level, const char *target,
                      const char *message) {
    (void)userdata;
    if (level <= LAYER_LOG_WARN) {
        fprintf(stderr, "%s: %s\n", target, message);
    }
}

static layer_t *open_layer(const char *url) {
    static const char *const options[][2] = {
        {"prefetch_count", TEXT(BENCH_PREFETCH)},
        {"local_capacity", TEXT(BENCH_CAPACITY)},
        {"remote_capacity", TEXT(BENCH_CAPACITY)},
        {"expiry", TEXT(BENCH_EXPIRY_S)},
    };
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    if (config == NULL) {
        bench_fail("out of memory");
    }
    check(layer_config_set(config, "host", url, &error), &error, "option host");
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        check(layer_config_set(config, options[i][0], options[i][1], &error), &error, "option");
    }
    check(layer_config_on_log(config, print_log, NULL, NULL, &error), &error, "log");
    layer_t *layer;
    check(layer_new(config, &layer, &error), &error, "layer_new");
    layer_config_free(config);
    check(layer_wait_ready(layer, READY_MS, &error), &error, "layer_wait_ready");
    return layer;
}

/* --- receiving ---------------------------------------------------------------------------- */

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    bench_t *bench = userdata;
    if (status != LAYER_OK) {
        return LAYER_STOP; /* the layer is being closed, at the end */
    }
    int64_t now = bench->tally == NULL ? bench_now() : 0;
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    uint64_t seq = bench_read_seq(data, length);
    if (bench->tally != NULL) {
        bench_received(bench->tally, seq);
    } else {
        atomic_store(&bench->arrived, now);
        sem_post(&bench->arrival);
    }
    return LAYER_CONTINUE;
}

/* --- throughput --------------------------------------------------------------------------- */

/* The pointer is the number of the message: nothing has to be allocated for it. */
static bench_t *the_bench;

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    bench_t *bench = the_bench;
    uint64_t seq = (uintptr_t)userdata;
    if (status != LAYER_OK) {
        bench_fail("message %llu: %s: %s", (unsigned long long)seq, layer_status_name(status),
                   layer_error_message(error));
    }
    bench_mark(bench->tally, seq, BENCH_CONFIRMED);
    uint64_t left = atomic_fetch_sub(&bench->in_flight, 1) - 1;
    /* Not at the first place that is free: outcomes come in batches, and the sender had better
     * find room for many. It sets `full` before it looks at `in_flight`: one of us sees the
     * other. */
    if (left <= REFILL_AT && atomic_load(&bench->full)) {
        pthread_mutex_lock(&bench->mutex);
        atomic_store(&bench->full, false);
        pthread_cond_signal(&bench->room);
        pthread_mutex_unlock(&bench->mutex);
    }
}

static void wait_for_room(bench_t *bench) {
    pthread_mutex_lock(&bench->mutex);
    atomic_store(&bench->full, true);
    while (atomic_load(&bench->full) && atomic_load(&bench->in_flight) > REFILL_AT) {
        pthread_cond_wait(&bench->room, &bench->mutex);
    }
    atomic_store(&bench->full, false);
    pthread_mutex_unlock(&bench->mutex);
}

static void *send_until_stopped(void *userdata) {
    bench_t *bench = userdata;
    bench_tally_t *tally = bench->tally;
    uint64_t seq = 0;
    for (; !atomic_load_explicit(&tally->stop, memory_order_relaxed); seq++) {
        if (atomic_load(&bench->in_flight) >= BENCH_WINDOW) {
            wait_for_room(bench);
        }
        bench_wait_backlog(tally, seq);
        bench_write_seq(bench->seq_at, seq);
        atomic_fetch_add(&bench->in_flight, 1); /* before: the outcome may come during the call */
        layer_error_t *error = NULL;
        check(layer_send_async(bench->sending, bench->channel, bench->body, BENCH_BODY, on_done,
                               (void *)(uintptr_t)seq, NULL, &error),
              &error, "layer_send_async");
    }
    bench->sent = seq;
    return NULL;
}

static void throughput(bench_t *bench, const bench_options_t *options) {
    pthread_t thread;
    int problem = pthread_create(&thread, NULL, send_until_stopped, bench);
    if (problem != 0) {
        bench_fail("cannot start a thread: %s", strerror(problem));
    }
    bench_measure_t measure = bench_measure(bench->tally, options);
    pthread_join(thread, NULL);
    /* Nothing is measured any more, so that waiting in small steps costs nobody. */
    while (atomic_load(&bench->tally->complete) < bench->sent) {
        bench_sleep(0.001);
    }
    bench_print_throughput(PROGRAM, &measure, "");
}

/* --- latency ------------------------------------------------------------------------------ */

static void latency(bench_t *bench, const bench_options_t *options) {
    bench_samples_t samples = {0};
    int64_t begin = bench_now() + (int64_t)(options->warmup * 1e9);
    int64_t end = begin + (int64_t)(options->seconds * 1e9);
    for (uint64_t seq = 0;; seq++) {
        bench_write_seq(bench->seq_at, seq);
        int64_t sent = bench_now();
        if (sent >= end) {
            break;
        }
        layer_error_t *error = NULL;
        check(layer_send(bench->sending, bench->channel, bench->body, BENCH_BODY, &error), &error,
              "layer_send");
        while (sem_wait(&bench->arrival) != 0) {
        }
        if (sent >= begin) {
            bench_sample(&samples, atomic_load(&bench->arrived) - sent);
        }
    }
    bench_print_latency(PROGRAM, &samples, "");
}

int main(int argc, char **argv) {
    bench_options_t options = bench_options(argc, argv);
    static bench_tally_t tally;
    static bench_t bench;
    bench_tally_init(&tally);
    bench.tally = options.latency ? NULL : &tally;
    pthread_mutex_init(&bench.mutex, NULL);
    pthread_cond_init(&bench.room, NULL);
    sem_init(&bench.arrival, 0, 0);
    bench_body(bench.body);
    bench.seq_at = bench_find_seq(bench.body, BENCH_BODY);
    the_bench = &bench;

    bench.receiving = open_layer(options.url);
    bench.sending = open_layer(options.url);
    layer_error_t *error = NULL;
    check(layer_new_channel(bench.receiving, NULL, bench.channel, sizeof bench.channel, &error),
          &error, "layer_new_channel");
    check(layer_receive(bench.receiving, bench.channel, on_message, &bench, NULL, NULL, &error),
          &error, "layer_receive");
    if (options.latency) {
        latency(&bench, &options);
    } else {
        throughput(&bench, &options);
    }
    layer_free(bench.sending);
    layer_free(bench.receiving);
    return fflush(stdout) == 0 ? 0 : 1;
}
