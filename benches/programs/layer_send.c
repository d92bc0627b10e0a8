/*
 * Messages from one layer to a channel of another, as between two processes: how many are both
 * confirmed and consumed each second, by layer_send_async or by layer_send on several threads; or
 * how long one takes from its send to the callback.
 *
 *     layer_send [measure=throughput|latency] [mode=async|blocking] [producers=N] [rate=PER_SECOND]
 *                [body=BYTES] [window=N] [backlog=N] [prefetch=N] [seconds=S] [warmup=S]
 *
 * librabbitmq.c does the same with librabbitmq. With mode=async each producer is a thread of ours
 * that keeps its part of the window in flight; outcomes and messages come on the library's threads.
 */

#include "layer.h"

#include <semaphore.h>

typedef struct bench bench_t;

typedef struct {
    bench_t *bench;
    bench_tally_t *tally;
    uint8_t *body;
    uint8_t *seq_at;
    uint64_t window;
    uint64_t refill_at; /* a sender that found the window full waits until so many are left of it */
    uint64_t sent;      /* by the sender, once it has ended */

    /* Sends without an outcome, and what wakes the sender. */
    alignas(64) _Atomic uint64_t in_flight;
    _Atomic bool full;
    pthread_mutex_t mutex;
    pthread_cond_t room;
} producer_t;

struct bench {
    const bench_options_t *options;
    layer_t *sending;
    layer_t *receiving;
    char channel[LAYER_NAME_SIZE];
    bench_tally_t *tallies;
    producer_t producers[BENCH_LANES];

    /* Latency: when the message arrived; of an open loop, all that arrived. */
    _Atomic int64_t arrived;
    sem_t arrival;
    bench_pace_t pace;
    bench_samples_t samples;
    _Atomic uint64_t seen;
};

static bench_t the_bench;

static layer_t *open_for(const bench_options_t *options) {
    layer_config_t *config = new_config(options->url);
    if (options->prefetch != 0) {
        set_number(config, "prefetch_count", options->prefetch);
    }
    if (options->rate > 0) {
        set_number(config, "max_in_flight", BENCH_PACED_IN_FLIGHT);
    }
    return open_layer(config);
}

/* --- receiving ---------------------------------------------------------------------------- */

static uint64_t seq_of(const layer_message_t *message) {
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    return bench_read_seq(data, length);
}

static int32_t on_counted(void *userdata, layer_status_t status, const layer_message_t *message) {
    bench_t *bench = userdata;
    if (status != LAYER_OK) {
        return LAYER_STOP; /* the layer is being closed, at the end */
    }
    bench_received(bench->tallies, bench->options->producers, seq_of(message));
    return LAYER_CONTINUE;
}

static int32_t on_single(void *userdata, layer_status_t status, const layer_message_t *message) {
    bench_t *bench = userdata;
    (void)message;
    if (status != LAYER_OK) {
        return LAYER_STOP;
    }
    atomic_store(&bench->arrived, bench_now());
    sem_post(&bench->arrival);
    return LAYER_CONTINUE;
}

static int32_t on_paced(void *userdata, layer_status_t status, const layer_message_t *message) {
    bench_t *bench = userdata;
    if (status != LAYER_OK) {
        return LAYER_STOP;
    }
    int64_t now = bench_now();
    uint64_t seq = seq_of(message), expected = atomic_load(&bench->seen);
    if (seq != expected) {
        bench_fail("message %llu arrived where %llu was due", (unsigned long long)seq,
                   (unsigned long long)expected);
    }
    if (seq >= bench->pace.first) {
        bench_sample(&bench->samples, now - bench_due(&bench->pace, seq));
    }
    atomic_store(&bench->seen, seq + 1);
    return LAYER_CONTINUE;
}

/* --- throughput --------------------------------------------------------------------------- */

/* The pointer is the number of the message: nothing has to be allocated for it. */
static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    uint64_t number = (uintptr_t)userdata;
    uint64_t seq = number & ((UINT64_C(1) << BENCH_LANE_SHIFT) - 1);
    producer_t *producer = &the_bench.producers[number >> BENCH_LANE_SHIFT];
    if (status != LAYER_OK) {
        bench_fail("message %llu: %s: %s", (unsigned long long)seq, layer_status_name(status),
                   layer_error_message(error));
    }
    bench_mark(producer->tally, seq, BENCH_CONFIRMED);
    uint64_t left = atomic_fetch_sub(&producer->in_flight, 1) - 1;
    /* Not at the first place that is free: outcomes come in batches, and the sender had better
     * find room for many. It sets `full` before it looks at `in_flight`: one of us sees the
     * other. */
    if (left <= producer->refill_at && atomic_load(&producer->full)) {
        pthread_mutex_lock(&producer->mutex);
        atomic_store(&producer->full, false);
        pthread_cond_signal(&producer->room);
        pthread_mutex_unlock(&producer->mutex);
    }
}

static void wait_for_room(producer_t *producer) {
    pthread_mutex_lock(&producer->mutex);
    atomic_store(&producer->full, true);
    while (atomic_load(&producer->full) &&
           atomic_load(&producer->in_flight) > producer->refill_at) {
        pthread_cond_wait(&producer->room, &producer->mutex);
    }
    atomic_store(&producer->full, false);
    pthread_mutex_unlock(&producer->mutex);
}

static void *send_async(void *userdata) {
    producer_t *producer = userdata;
    bench_t *bench = producer->bench;
    bench_tally_t *tally = producer->tally;
    uint64_t seq = 0;
    for (; !atomic_load_explicit(&tally->stop, memory_order_relaxed); seq++) {
        if (atomic_load(&producer->in_flight) >= producer->window) {
            wait_for_room(producer);
        }
        bench_wait_backlog(tally, seq);
        uint64_t number = bench_number_of(tally, seq);
        bench_write_seq(producer->seq_at, number);
        atomic_fetch_add(&producer->in_flight,
                         1); /* before: the outcome may come during the call */
        layer_error_t *error = NULL;
        check(layer_send_async(bench->sending, bench->channel, producer->body, bench->options->body,
                               on_done, (void *)(uintptr_t)number, NULL, &error),
              &error, "layer_send_async");
    }
    producer->sent = seq;
    return NULL;
}

static void *send_blocking(void *userdata) {
    producer_t *producer = userdata;
    bench_t *bench = producer->bench;
    bench_tally_t *tally = producer->tally;
    uint64_t seq = 0;
    for (; !atomic_load_explicit(&tally->stop, memory_order_relaxed); seq++) {
        bench_wait_backlog(tally, seq);
        bench_write_seq(producer->seq_at, bench_number_of(tally, seq));
        layer_error_t *error = NULL;
        check(layer_send(bench->sending, bench->channel, producer->body, bench->options->body,
                         &error),
              &error, "layer_send");
        bench_mark(tally, seq, BENCH_CONFIRMED);
    }
    producer->sent = seq;
    return NULL;
}

static void throughput(bench_t *bench) {
    const bench_options_t *options = bench->options;
    pthread_t threads[BENCH_LANES];
    for (uint64_t i = 0; i < options->producers; i++) {
        threads[i] =
            bench_thread(options->blocking ? send_blocking : send_async, &bench->producers[i]);
    }
    bench_measure_t measure = bench_measure(bench->tallies, options);
    uint64_t sent = 0;
    for (uint64_t i = 0; i < options->producers; i++) {
        pthread_join(threads[i], NULL);
        sent += bench->producers[i].sent;
    }
    /* Nothing is measured any more, so that waiting in small steps costs nobody. */
    while (bench_complete(bench->tallies, options->producers) < sent) {
        bench_sleep(0.001);
    }
    bench_print_throughput(&measure, options->body, "");
}

/* --- latency ------------------------------------------------------------------------------ */

static void latency_at_rest(bench_t *bench) {
    const bench_options_t *options = bench->options;
    producer_t *producer = &bench->producers[0];
    int64_t begin = bench_now() + (int64_t)(options->warmup * 1e9);
    int64_t end = begin + (int64_t)(options->seconds * 1e9);
    for (uint64_t seq = 0;; seq++) {
        bench_write_seq(producer->seq_at, seq);
        int64_t sent = bench_now();
        if (sent >= end) {
            break;
        }
        layer_error_t *error = NULL;
        check(layer_send(bench->sending, bench->channel, producer->body, options->body, &error),
              &error, "layer_send");
        while (sem_wait(&bench->arrival) != 0) {
        }
        if (sent >= begin) {
            bench_sample(&bench->samples, atomic_load(&bench->arrived) - sent);
        }
    }
    bench_print_latency(&bench->samples, "");
}

static void on_paced_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status != LAYER_OK) {
        bench_fail("%s: %s", layer_status_name(status), layer_error_message(error));
    }
}

static void latency_at_rate(bench_t *bench) {
    const bench_options_t *options = bench->options;
    producer_t *producer = &bench->producers[0];
    for (uint64_t seq = 0; seq < bench->pace.end; seq++) {
        bench_sleep_until(bench_due(&bench->pace, seq));
        bench_write_seq(producer->seq_at, seq);
        layer_error_t *error = NULL;
        layer_status_t status;
        /* LAYER_BUSY: too far behind. The message is late from when it was due, not from here. */
        while ((status = layer_send_async(bench->sending, bench->channel, producer->body,
                                          options->body, on_paced_done, NULL, NULL, &error)) ==
               LAYER_BUSY) {
            layer_error_free(error);
            error = NULL;
            bench_sleep(0.0001);
        }
        check(status, &error, "layer_send_async");
    }
    while (atomic_load(&bench->seen) < bench->pace.end) {
        bench_sleep(0.001);
    }
    char more[64];
    snprintf(more, sizeof more, ", \"rate\": %.1f", options->rate);
    bench_print_latency(&bench->samples, more);
}

int main(int argc, char **argv) {
    (void)argc;
    bench_options_t options = bench_options(argv);
    bench_t *bench = &the_bench;
    bench->options = &options;
    bench->tallies = bench_tallies(&options);
    sem_init(&bench->arrival, 0, 0);
    for (uint64_t i = 0; i < options.producers; i++) {
        producer_t *producer = &bench->producers[i];
        producer->bench = bench;
        producer->tally = &bench->tallies[i];
        producer->window = options.window / options.producers;
        producer->refill_at = producer->window * 3 / 4;
        producer->body = bench_allocate(options.body);
        bench_body(producer->body, options.body);
        producer->seq_at = bench_find_seq(producer->body, options.body);
        pthread_mutex_init(&producer->mutex, NULL);
        pthread_cond_init(&producer->room, NULL);
    }

    bench->receiving = open_for(&options);
    bench->sending = open_for(&options);
    new_channel(bench->receiving, bench->channel);
    layer_receive_cb callback = !options.latency   ? on_counted
                                : options.rate > 0 ? on_paced
                                                   : on_single;
    if (options.latency && options.rate > 0) {
        bench->pace = bench_pace(&options);
    }
    layer_error_t *error = NULL;
    check(layer_receive(bench->receiving, bench->channel, callback, bench, NULL, NULL, &error),
          &error, "layer_receive");
    if (!options.latency) {
        throughput(bench);
    } else if (options.rate > 0) {
        latency_at_rate(bench);
    } else {
        latency_at_rest(bench);
    }
    layer_free(bench->sending);
    layer_free(bench->receiving);
    return fflush(stdout) == 0 ? 0 : 1;
}
