/*
 * What the C programs of this folder share, so that they do the same work and count it in the same
 * way: the arguments, the message, the tally, the clock, the line of JSON.
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
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Options local_capacity and remote_capacity; of librabbitmq x-max-length. Far above what is on its
 * way at once: a refused message is a failure here. */
#define BENCH_CAPACITY 100000
#define BENCH_EXPIRY_S 60
/* The message unless a workload says otherwise, in bytes. */
#define BENCH_BODY 200
/* Producers, at most. Each numbers its own messages, in a lane of its own. */
#define BENCH_LANES 16
#define BENCH_LANE_SHIFT 48

/* The number of the message that ends librabbitmq's consumer. It is not counted. */
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

/* Arguments are NAME=VALUE. Each program asks for those it knows, and then for an end: an argument
 * that nobody asked for is a failure. */
static char **bench_arguments;
static uint64_t bench_asked;

static inline const char *bench_text(const char *name, const char *otherwise) {
    size_t length = strlen(name);
    for (int i = 1; bench_arguments[i] != NULL && i < 64; i++) {
        if (strncmp(bench_arguments[i], name, length) == 0 && bench_arguments[i][length] == '=') {
            bench_asked |= UINT64_C(1) << i;
            return bench_arguments[i] + length + 1;
        }
    }
    return otherwise;
}

static inline double bench_number(const char *name, double otherwise) {
    const char *text = bench_text(name, NULL);
    if (text == NULL) {
        return otherwise;
    }
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !(number >= 0 && number <= 1e12)) {
        bench_fail("%s=%s: that is no number", name, text);
    }
    return number;
}

static inline uint64_t bench_count(const char *name, uint64_t otherwise) {
    return (uint64_t)bench_number(name, (double)otherwise);
}

static inline void bench_no_more_arguments(void) {
    for (int i = 1; bench_arguments[i] != NULL; i++) {
        if (i >= 64 || !(bench_asked >> i & 1)) {
            bench_fail("there is no argument %s", bench_arguments[i]);
        }
    }
}

/* What the workloads of single messages take. */
typedef struct {
    double seconds;
    double warmup;
    /* Sends that wait for their confirm, at most, of all producers together. */
    uint64_t window;
    /* Messages that are on their way, at most. The confirm does not wait for the consumer, so the
     * window alone does not keep a publisher that is faster than its consumer from filling the
     * queue. */
    uint64_t backlog;
    uint64_t prefetch; /* 0: as the library has it where nobody says so */
    size_t body;
    uint64_t producers;
    bool latency;
    bool connect;
    bool blocking;
    double rate; /* messages per second, of an open loop; 0: a closed one */
    const char *url;
} bench_options_t;

/* Whatever hangs, a run has an end, and it is a failure. */
static inline void bench_bound(double seconds) { alarm((unsigned)seconds + 60); }

/* The address comes by the environment, since it holds a password, and arguments are seen by every
 * user of the machine. */
static inline const char *bench_url(void) {
    const char *url = getenv("CHANNEL_LAYER_TEST_AMQP");
    if (url == NULL || url[0] == '\0') {
        bench_fail("CHANNEL_LAYER_TEST_AMQP is not set: it names the broker, "
                   "as in amqp://guest:guest@127.0.0.1/asgi");
    }
    return url;
}

static inline void bench_begin(char **argv) {
    bench_arguments = argv;
    /* An open loop sleeps for less than the 50 us by which the kernel would else round up. */
    prctl(PR_SET_TIMERSLACK, 1UL);
}

static inline bench_options_t bench_options(char **argv) {
    bench_begin(argv);
    const char *measure = bench_text("measure", "throughput"), *mode = bench_text("mode", "async");
    bench_options_t options = {
        .seconds = bench_number("seconds", 5),
        .warmup = bench_number("warmup", 1),
        .window = bench_count("window", 1000),
        .backlog = bench_count("backlog", 50000),
        .prefetch = bench_count("prefetch", 1000),
        .body = bench_count("body", BENCH_BODY),
        .producers = bench_count("producers", 1),
        .latency = strcmp(measure, "latency") == 0,
        .connect = strcmp(measure, "connect") == 0,
        .blocking = strcmp(mode, "blocking") == 0,
        .rate = bench_number("rate", 0),
        .url = bench_url(),
    };
    bench_no_more_arguments();
    if (!options.latency && !options.connect && strcmp(measure, "throughput") != 0) {
        bench_fail("measure=%s: throughput, latency or connect can be measured", measure);
    }
    if (!options.blocking && strcmp(mode, "async") != 0) {
        bench_fail("mode=%s: async or blocking", mode);
    }
    if (options.seconds <= 0 || options.window == 0 || options.producers == 0 ||
        options.producers > BENCH_LANES || options.window < options.producers ||
        options.backlog < 2 * options.producers || options.backlog > 50000) {
        bench_fail("seconds, window, producers (1 to %d) or backlog (to 50000) cannot be so",
                   BENCH_LANES);
    }
    bench_bound(options.seconds + options.warmup);
    return options;
}

/* --- message ------------------------------------------------------------------------------ */

#define BENCH_SEQ_KEY "\xa3seq\xcf" /* the key, and the tag of a 64-bit number */

/* The smallest body that holds the keys. */
#define BENCH_LEAST_BODY 44

/* Writes {"type": "bench.message", "seq": ..., "text": ...} in `length` bytes of MessagePack. The
 * number takes 9 bytes whatever it is, so that all messages have one size. */
static inline void bench_body(uint8_t *body, size_t length) {
    static const char head[] = "\x83\xa4type\xad"
                               "bench.message" BENCH_SEQ_KEY "\0\0\0\0\0\0\0\0\xa4text";
    if (length < BENCH_LEAST_BODY) {
        bench_fail("a body has at least %d bytes", BENCH_LEAST_BODY);
    }
    size_t used = sizeof head - 1;
    memcpy(body, head, used);
    size_t text = length - used;
    if (text <= 2 + 0xff) {
        text -= 2;
        body[used++] = 0xd9;
        body[used++] = (uint8_t)text;
    } else if (text <= 3 + 0xffff) {
        text -= 3;
        body[used++] = 0xda;
        body[used++] = (uint8_t)(text >> 8);
        body[used++] = (uint8_t)text;
    } else {
        text -= 5;
        uint32_t big_endian = htobe32((uint32_t)text);
        body[used++] = 0xdb;
        memcpy(body + used, &big_endian, 4);
        used += 4;
    }
    memset(body + used, 'x', text);
}

static inline void *bench_allocate(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL) {
        bench_fail("out of memory");
    }
    return memory;
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

/* Counts a message once it was both confirmed and received, in whichever order. Each producer has
 * one: one thread sends, one confirms (perhaps the same), one receives. */
#define BENCH_RING (1u << 17) /* above backlog + window, so that no two messages meet */
#define BENCH_CONFIRMED 1
#define BENCH_RECEIVED 2

typedef struct {
    _Atomic uint8_t state[BENCH_RING];
    uint64_t lane; /* in the upper bits of each number */
    uint64_t backlog;
    /* Each written by a thread of its own, so on cache lines of their own. */
    alignas(64) _Atomic uint64_t received;
    alignas(64) _Atomic uint64_t complete;
    alignas(64) _Atomic bool stop;
    /* While too many messages are on their way, the sender waits for `received` to get here. */
    _Atomic uint64_t wake_at;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} bench_tally_t;

/* `seq` without its lane, here and below. */
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

/* The tally of each producer. */
static inline bench_tally_t *bench_tallies(const bench_options_t *options) {
    bench_tally_t *tallies =
        aligned_alloc(alignof(bench_tally_t), options->producers * sizeof *tallies);
    if (tallies == NULL) {
        bench_fail("out of memory");
    }
    memset(tallies, 0, options->producers * sizeof *tallies);
    for (uint64_t lane = 0; lane < options->producers; lane++) {
        bench_tally_t *tally = &tallies[lane];
        tally->lane = lane;
        tally->backlog = options->backlog / options->producers;
        atomic_init(&tally->wake_at, UINT64_MAX);
        pthread_mutex_init(&tally->mutex, NULL);
        pthread_cond_init(&tally->changed, NULL);
    }
    return tallies;
}

static inline uint64_t bench_number_of(const bench_tally_t *tally, uint64_t seq) {
    return tally->lane << BENCH_LANE_SHIFT | seq;
}

/* By the receiving thread. One sender, one channel: anything but the next number of its lane is a
 * message that was lost, doubled or overtaken. */
static inline void bench_received(bench_tally_t *tallies, uint64_t lanes, uint64_t number) {
    uint64_t seq = number & ((UINT64_C(1) << BENCH_LANE_SHIFT) - 1);
    if (number >> BENCH_LANE_SHIFT >= lanes) {
        bench_fail("a message arrived that this program did not send");
    }
    bench_tally_t *tally = &tallies[number >> BENCH_LANE_SHIFT];
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
    if (seq - atomic_load_explicit(&tally->received, memory_order_relaxed) < tally->backlog) {
        return;
    }
    /* Until half of them are through: to be woken up for each costs both sides more. */
    uint64_t enough = seq - tally->backlog / 2;
    pthread_mutex_lock(&tally->mutex);
    atomic_store(&tally->wake_at, enough);
    while (atomic_load(&tally->received) < enough) {
        pthread_cond_wait(&tally->changed, &tally->mutex);
    }
    atomic_store(&tally->wake_at, UINT64_MAX);
    pthread_mutex_unlock(&tally->mutex);
}

/* By the main thread: lets the others work, counts over the time after the warm-up, tells the
 * senders to stop. The caller then waits until what is on its way has arrived, and prints. */
typedef struct {
    double seconds;
    double cpu_seconds;
    uint64_t messages;
} bench_measure_t;

static inline uint64_t bench_complete(bench_tally_t *tallies, uint64_t lanes) {
    uint64_t complete = 0;
    for (uint64_t lane = 0; lane < lanes; lane++) {
        complete += atomic_load(&tallies[lane].complete);
    }
    return complete;
}

static inline bench_measure_t bench_measure(bench_tally_t *tallies,
                                            const bench_options_t *options) {
    bench_sleep(options->warmup);
    int64_t cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t complete = bench_complete(tallies, options->producers);
    int64_t start = bench_now();
    bench_sleep(options->seconds);
    bench_measure_t measure;
    measure.messages = bench_complete(tallies, options->producers) - complete;
    measure.seconds = (double)(bench_now() - start) / 1e9;
    measure.cpu_seconds = (double)(bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
    for (uint64_t lane = 0; lane < options->producers; lane++) {
        atomic_store(&tallies[lane].stop, true);
    }
    if (measure.messages == 0) {
        bench_fail("no message was confirmed and received in the time that was measured");
    }
    return measure;
}

/* `more`: further fields, or an empty string. */
static inline void bench_print_throughput(const bench_measure_t *measure, size_t body,
                                          const char *more) {
    double per_second = (double)measure->messages / measure->seconds;
    printf("{\"seconds\": %.3f, \"messages\": %llu, \"per_second\": %.1f, \"mb_per_second\": %.2f, "
           "\"cpu_us_per_message\": %.2f%s}\n",
           measure->seconds, (unsigned long long)measure->messages, per_second,
           per_second * (double)body / 1e6, measure->cpu_seconds * 1e6 / (double)measure->messages,
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

static inline void bench_print_latency(bench_samples_t *samples, const char *more) {
    if (samples->count == 0) {
        bench_fail("no message arrived in the time that was measured");
    }
    qsort(samples->us, samples->count, sizeof *samples->us, bench_compare);
    printf("{\"messages\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"max_us\": %.1f%s}\n",
           samples->count, bench_percentile(samples, 50), bench_percentile(samples, 99),
           bench_percentile(samples, 99.9), samples->us[samples->count - 1], more);
    free(samples->us);
}

/* How long it takes to connect, again and again for the time that is measured: `connect` gives the
 * nanoseconds of one, and leaves nothing open. */
static inline void bench_connect(const bench_options_t *options,
                                 int64_t (*connect)(const bench_options_t *options)) {
    bench_samples_t samples = {0};
    int64_t end = bench_now() + (int64_t)(options->seconds * 1e9);
    (void)connect(options); /* the first meets cold files and caches */
    while (samples.count < 5 || (bench_now() < end && samples.count < 100)) {
        bench_sample(&samples, connect(options));
    }
    qsort(samples.us, samples.count, sizeof *samples.us, bench_compare);
    printf("{\"connections\": %zu, \"median_ms\": %.3f, \"max_ms\": %.3f}\n", samples.count,
           bench_percentile(&samples, 50) / 1e3, samples.us[samples.count - 1] / 1e3);
    free(samples.us);
}

/* An open loop sends by the clock, whatever has come of the messages before, and measures from the
 * time that a message was due: a sender that falls behind does not hide it. So far behind that this
 * many sends wait for their confirm it waits too, and its messages are the later for it. */
#define BENCH_PACED_IN_FLIGHT 10000

typedef struct {
    int64_t start;
    double period;  /* in nanoseconds */
    uint64_t first; /* the first message that is measured, and the one after the last */
    uint64_t end;
} bench_pace_t;

static inline bench_pace_t bench_pace(const bench_options_t *options) {
    /* A moment, so that the first message finds its sender there. */
    return (bench_pace_t){.start = bench_now() + 10000000,
                          .period = 1e9 / options->rate,
                          .first = (uint64_t)(options->warmup * options->rate),
                          .end = (uint64_t)((options->warmup + options->seconds) * options->rate)};
}

static inline int64_t bench_due(const bench_pace_t *pace, uint64_t seq) {
    return pace->start + (int64_t)((double)seq * pace->period);
}

/* A time that is past is no sleep at all: the system's costs as much then as any, and slows down
 * who is late. */
static inline void bench_sleep_until(int64_t until) {
    if (bench_now() >= until) {
        return;
    }
    struct timespec deadline = {until / 1000000000, until % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) == EINTR) {
    }
}

/* --- threads ------------------------------------------------------------------------------ */

static inline pthread_t bench_thread(void *(*run)(void *), void *userdata) {
    pthread_t thread;
    int problem = pthread_create(&thread, NULL, run, userdata);
    if (problem != 0) {
        bench_fail("cannot start a thread: %s", strerror(problem));
    }
    return thread;
}

/* The resident memory of this process, in bytes. */
static inline int64_t bench_resident(void) {
    unsigned long long size, resident;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%llu %llu", &size, &resident) != 2) {
        bench_fail("cannot read /proc/self/statm");
    }
    fclose(statm);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

#endif
