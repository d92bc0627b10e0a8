/*
 * What the two programs of this folder share, so that they do the same work and count it in the
 * same way: the numbers, the message, the tally, the clock, the line of JSON.
 */

#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Sends that wait for their confirm, at most. */
#define BENCH_WINDOW 1000
#define BENCH_PREFETCH 1000
/* Options local_capacity and remote_capacity; of the peer x-max-length. */
#define BENCH_CAPACITY 100000
/* Messages that are on their way, at most. The confirm does not wait for the consumer, so the
 * window alone does not keep a publisher that is faster than its consumer from filling the queue.
 * Far under the capacity: a refused message is a failure here. */
#define BENCH_BACKLOG 50000
#define BENCH_EXPIRY_S 60
#define BENCH_BODY 200

/* The number of the message that ends the peer's consumer. It is not counted. */
#define BENCH_LAST UINT64_MAX

/* Ends the program, from whichever thread, without clean-up: the broker drops an exclusive queue
 * with its connection, and exit handlers have no business beside threads that still run. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void bench_fail(const char *format,
                                                                              ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _exit(1);
}

/* --- clock -------------------------------------------------------------------------------- */

static inline int64_t bench_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t bench_now(void) { return bench_clock(CLOCK_MONOTONIC); }

static inline void bench_sleep(double seconds) {
    int64_t until = bench_now() + (int64_t)(seconds * 1e9);
    struct timespec deadline = {until / 1000000000, until % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) == EINTR) {
    }
}

/* --- arguments ---------------------------------------------------------------------------- */

typedef struct {
    bool latency;
    double seconds;
    double warmup;
    const char *url;
} bench_options_t;

static inline double bench_number(const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !(number >= 0 && number <= 3600)) {
        bench_fail("'%s' is no number of seconds from 0 to 3600", text);
    }
    return number;
}

static inline bench_options_t bench_options(int argc, char **argv) {
    /* The address comes by the environment, since it holds a password, and arguments are seen by
     * every user of the machine. */
    bench_options_t options = {.seconds = 5, .warmup = 1, .url = getenv("CHANNEL_LAYER_TEST_AMQP")};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--latency") == 0) {
            options.latency = true;
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            options.seconds = bench_number(argv[++i]);
        } else if (strcmp(argv[i], "--warmup") == 0 && i + 1 < argc) {
            options.warmup = bench_number(argv[++i]);
        } else {
            bench_fail("usage: %s [--latency] [--seconds S] [--warmup S]", argv[0]);
        }
    }
    if (options.seconds <= 0) {
        bench_fail("--seconds must be above 0");
    }
    if (options.url == NULL || options.url[0] == '\0') {
        bench_fail("CHANNEL_LAYER_TEST_AMQP is not set: it names the broker, "
                   "as in amqp://guest:guest@127.0.0.1/asgi");
    }
    /* Whatever hangs, a run has an end, and it is a failure. */
    alarm((unsigned)(options.seconds + options.warmup) + 60);
    return options;
}

/* --- message ------------------------------------------------------------------------------ */

#define BENCH_SEQ_KEY "\xa3seq\xcf" /* the key, and the tag of a 64-bit number */

/* Writes {"type": "bench.message", "seq": ..., "text": ...} in 200 bytes of MessagePack. The
 * number takes 9 bytes whatever it is, so that all messages have one size. */
static inline void bench_body(uint8_t body[BENCH_BODY]) {
    static const char head[] = "\x83\xa4type\xad"
                               "bench.message" BENCH_SEQ_KEY "\0\0\0\0\0\0\0\0\xa4text\xd9";
    size_t used = sizeof head - 1;
    memcpy(body, head, used);
    body[used] = (uint8_t)(BENCH_BODY - used - 1);
    used++;
    memset(body + used, 'x', BENCH_BODY - used);
}

static inline void *bench_find_seq(const void *body, size_t length) {
    const size_t key = sizeof BENCH_SEQ_KEY - 1;
    const char *found = memmem(body, length, BENCH_SEQ_KEY, key);
    if (found == NULL || length - (size_t)(found - (const char *)body) < key + 8) {
        bench_fail("a message arrived that this program did not send");
    }
    return (void *)(found + key);
}

static inline void bench_write_seq(void *at, uint64_t seq) {
    uint64_t big_endian = htobe64(seq);
    memcpy(at, &big_endian, sizeof big_endian);
}

static inline uint64_t bench_read_seq(const void *body, size_t length) {
    uint64_t big_endian;
    memcpy(&big_endian, bench_find_seq(body, length), sizeof big_endian);
    return be64toh(big_endian);
}

/* --- tally -------------------------------------------------------------------------------- */

/* Counts a message once it was both confirmed and received, in whichever order. One thread sends,
 * one confirms (perhaps the same), one receives. Zeroed, then bench_tally_init. */
#define BENCH_RING                                                                                 \
    (1u << 17) /* above BENCH_BACKLOG + BENCH_WINDOW, so that no two messages meet                 \
                */
#define BENCH_CONFIRMED 1
#define BENCH_RECEIVED 2

typedef struct {
    _Atomic uint8_t state[BENCH_RING];
    /* Each written by a thread of its own, so on cache lines of their own. */
    alignas(64) _Atomic uint64_t received;
    alignas(64) _Atomic uint64_t complete;
    alignas(64) _Atomic bool stop;
    /* While too many messages are on their way, the sender waits for `received` to get here. */
    _Atomic uint64_t wake_at;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} bench_tally_t;

static inline void bench_mark(bench_tally_t *tally, uint64_t seq, uint8_t what) {
    _Atomic uint8_t *state = &tally->state[seq % BENCH_RING];
    uint8_t before = atomic_fetch_or(state, what);
    if (before & what) {
        bench_fail("message %llu was %s twice", (unsigned long long)seq,
                   what == BENCH_CONFIRMED ? "confirmed" : "received");
    }
    if (before != 0) {
        atomic_store(state, 0);
        atomic_fetch_add(&tally->complete, 1);
    }
}

static inline void bench_tally_init(bench_tally_t *tally) {
    atomic_init(&tally->wake_at, UINT64_MAX);
    pthread_mutex_init(&tally->mutex, NULL);
    pthread_cond_init(&tally->changed, NULL);
}

/* By the receiving thread. One sender, one channel: anything but the next number is a message that
 * was lost, doubled or overtaken. */
static inline void bench_received(bench_tally_t *tally, uint64_t seq) {
    uint64_t expected = atomic_load_explicit(&tally->received, memory_order_relaxed);
    if (seq != expected) {
        bench_fail("message %llu arrived where %llu was due", (unsigned long long)seq,
                   (unsigned long long)expected);
    }
    bench_mark(tally, seq, BENCH_RECEIVED);
    atomic_store(&tally->received, expected + 1);
    /* The sender writes `wake_at` before it looks at `received`: one of us sees the other. */
    if (expected + 1 >= atomic_load(&tally->wake_at)) {
        pthread_mutex_lock(&tally->mutex);
        pthread_cond_signal(&tally->changed);
        pthread_mutex_unlock(&tally->mutex);
    }
}

/* By the sending thread, before message `seq`. */
static inline void bench_wait_backlog(bench_tally_t *tally, uint64_t seq) {
    if (seq - atomic_load_explicit(&tally->received, memory_order_relaxed) < BENCH_BACKLOG) {
        return;
    }
    /* Until half of them are through: to be woken up for each costs both sides more. */
    uint64_t enough = seq - BENCH_BACKLOG / 2;
    pthread_mutex_lock(&tally->mutex);
    atomic_store(&tally->wake_at, enough);
    while (atomic_load(&tally->received) < enough) {
        pthread_cond_wait(&tally->changed, &tally->mutex);
    }
    atomic_store(&tally->wake_at, UINT64_MAX);
    pthread_mutex_unlock(&tally->mutex);
}

/* By the main thread: lets the others work, counts over the time after the warm-up, tells the
 * sender to stop, and prints. The caller then waits until what is on its way has arrived. */
typedef struct {
    double seconds;
    double cpu_seconds;
    uint64_t messages;
} bench_measure_t;

static inline bench_measure_t bench_measure(bench_tally_t *tally, const bench_options_t *options) {
    bench_sleep(options->warmup);
    int64_t cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t complete = atomic_load(&tally->complete);
    int64_t start = bench_now();
    bench_sleep(options->seconds);
    bench_measure_t measure;
    measure.messages = atomic_load(&tally->complete) - complete;
    measure.seconds = (double)(bench_now() - start) / 1e9;
    measure.cpu_seconds = (double)(bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
    atomic_store(&tally->stop, true);
    return measure;
}

/* `more`: further fields, or an empty string. */
static inline void bench_print_throughput(const char *program, const bench_measure_t *measure,
                                          const char *more) {
    printf("{\"program\": \"%s\", \"mode\": \"throughput\", \"seconds\": %.3f, "
           "\"messages\": %llu, \"per_second\": %.0f, \"cpu_us_per_message\": %.1f%s}\n",
           program, measure->seconds, (unsigned long long)measure->messages,
           (double)measure->messages / measure->seconds,
           measure->messages == 0 ? 0.0 : measure->cpu_seconds * 1e6 / (double)measure->messages,
           more);
}

/* --- latency ------------------------------------------------------------------------------ */

typedef struct {
    double *us;
    size_t count;
    size_t room;
} bench_samples_t;

static inline void bench_sample(bench_samples_t *samples, int64_t nanoseconds) {
    if (samples->count == samples->room) {
        samples->room = samples->room == 0 ? 65536 : samples->room * 2;
        samples->us = realloc(samples->us, samples->room * sizeof *samples->us);
        if (samples->us == NULL) {
            bench_fail("out of memory");
        }
    }
    samples->us[samples->count++] = (double)nanoseconds / 1e3;
}

static inline int bench_compare(const void *left, const void *right) {
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Nearest rank. */
static inline double bench_percentile(const bench_samples_t *samples, double percent) {
    size_t rank = (size_t)ceil(percent / 100 * (double)samples->count);
    return samples->us[rank == 0 ? 0 : rank - 1];
}

static inline void bench_print_latency(const char *program, bench_samples_t *samples,
                                       const char *more) {
    if (samples->count == 0) {
        bench_fail("no message arrived in the time that was measured");
    }
    qsort(samples->us, samples->count, sizeof *samples->us, bench_compare);
    printf("{\"program\": \"%s\", \"mode\": \"latency\", \"messages\": %zu, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f%s}\n",
           program, samples->count, bench_percentile(samples, 50), bench_percentile(samples, 99),
           more);
    free(samples->us);
}

#endif
