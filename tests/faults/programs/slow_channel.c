/*
 * One channel among 1,000 that gets messages and that nobody receives, and that is isolated:
 * slow_channel HOST ROUNDS SECONDS RATE LIMIT.
 *
 * In each of ROUNDS there are three runs of SECONDS, in turn: `none` sends RATE messages a second
 * to 999 channels; `received` sends as many more, one for every four of those, to a channel that is
 * received from; `abandoned` sends them to one that is not. The p99 of the way of a message to one
 * of the 999, as the median of many short runs, must stay within LIMIT times; with LIMIT 0 it is
 * only told. A machine that stands still for a moment spoils a run and not the median.
 */
#include "process.h"

#include <math.h>

#define OTHERS 999
#define CAPACITY 10
#define ONE_FOR 4
#define MOST_ROUNDS 100

enum arm { NONE, RECEIVED, ABANDONED, ARMS };
static const char *const ARM_NAMES[] = {"none", "received", "abandoned"};

static layer_t *receiver, *sender;
static char others[OTHERS][LAYER_NAME_SIZE], slow[LAYER_NAME_SIZE];
static atomic_llong received, received_slow, confirmed, refused, ended;
static double *latencies;
static size_t room;

static int64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* One callback thread: one writer. */
static int32_t on_other(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    if (status == LAYER_OK) {
        size_t place = (size_t)atomic_load(&received);
        MUST_BE(place < room);
        latencies[place] = (double)(nanoseconds() - number_of(message)) * 1e-6;
        atomic_fetch_add(&received, 1);
    }
    return LAYER_CONTINUE;
}

static int32_t on_slow(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)message;
    atomic_fetch_add(&received_slow, status == LAYER_OK);
    return LAYER_CONTINUE;
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    (void)error;
    atomic_fetch_add(status == LAYER_OK ? &confirmed : &refused, 1);
    atomic_fetch_add(&ended, 1);
}

static void submit(const char *channel, int64_t number) {
    struct number m = number_message(number);
    MUST(layer_send_async(sender, channel, m.data, m.length, on_done, NULL, NULL, ERROR));
}

static int by_size(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double percentile(double *values, size_t count, double part) {
    MUST_BE(count > 0);
    qsort(values, count, sizeof *values, by_size);
    return values[(size_t)ceil(part * (double)count) - 1];
}

static long long lost, wrong_kept, kept, dropped, sent_slow;

/* The p50 and p99 of one run, in ms. */
static void run(enum arm arm, double seconds, double rate, double results[2]) {
    uint64_t dropped_before = stat_of(receiver, LAYER_STAT_DROPPED_CHANNEL_FULL), number = 0;
    long long sent = 0, to_slow = 0, refused_before = atomic_load(&refused);
    long long received_slow_before = atomic_load(&received_slow);
    atomic_store(&received, 0);
    atomic_store(&ended, 0);
    if (arm == RECEIVED) {
        MUST(layer_receive(receiver, slow, on_slow, NULL, NULL, &number, ERROR));
    }
    double began = now();
    while (now() - began < seconds) {
        double due = (now() - began) * rate;
        for (; (double)sent < due; sent++) {
            if (arm != NONE && sent % ONE_FOR == 0) {
                submit(slow, to_slow++);
            }
            submit(others[lrand48() % OTHERS], nanoseconds());
        }
        pause_for(0.0005);
    }
    MUST_BE(WAIT(atomic_load(&ended) == sent + to_slow, 20));
    WAIT(atomic_load(&received) == sent, 20);
    lost += sent - atomic_load(&received) + atomic_load(&refused) - refused_before;
    results[0] = percentile(latencies, (size_t)atomic_load(&received), 0.5);
    results[1] = percentile(latencies, (size_t)atomic_load(&received), 0.99);
    if (arm == RECEIVED) {
        /* Even a channel that is received from may be too slow for a moment. */
        MUST_BE(WAIT(atomic_load(&received_slow) - received_slow_before +
                             (long long)(stat_of(receiver, LAYER_STAT_DROPPED_CHANNEL_FULL) -
                                         dropped_before) ==
                         to_slow,
                     20));
        MUST(layer_receive_cancel(receiver, number, ERROR));
    }
    if (arm == ABANDONED) {
        /* The last of the slow channel's own may still be on its way. */
        WAIT(stat_of(receiver, LAYER_STAT_DROPPED_CHANNEL_FULL) - dropped_before ==
                 (uint64_t)(to_slow - CAPACITY),
             20);
        layer_message_t *message;
        int64_t expected = 0;
        while (layer_receive_next(receiver, slow, 0, &message, NULL) == LAYER_OK) {
            wrong_kept += number_of(message) != expected++;
            layer_message_free(message);
        }
        kept += expected;
        sent_slow += to_slow;
        dropped += (long long)(stat_of(receiver, LAYER_STAT_DROPPED_CHANNEL_FULL) - dropped_before);
    }
}

int main(int argc, char **argv) {
    MUST_BE(argc == 6);
    const char *host = argv[1];
    int rounds = atoi(argv[2]);
    double seconds = atof(argv[3]), rate = atof(argv[4]), limit = atof(argv[5]);
    MUST_BE(rounds > 0 && rounds <= MOST_ROUNDS);
    room = (size_t)(seconds * rate) + 1000;
    latencies = calloc(room, sizeof *latencies);
    sender = open_layer(host, NULL);
    /* What it may hold before it is isolated is less than what it keeps then, and takes no time. */
    receiver = open_layer(host, "local_capacity", "1", "stall_after", "0.001", "channel_capacity",
                          "10", "remote_capacity", "10000", NULL);
    for (int i = 0; i < OTHERS; i++) {
        MUST(layer_new_channel(receiver, NULL, others[i], sizeof others[i], ERROR));
        MUST(layer_receive(receiver, others[i], on_other, NULL, NULL, NULL, ERROR));
    }
    MUST(layer_new_channel(receiver, NULL, slow, sizeof slow, ERROR));

    static double p[ARMS][2][MOST_ROUNDS];
    double warm[2];
    run(RECEIVED, seconds / 2, rate, warm);
    for (int round = 0; round < rounds; round++) {
        for (int turn = 0; turn < ARMS; turn++) {
            /* Each arm is first, second and last equally often. */
            enum arm arm = (enum arm)((turn + round) % ARMS);
            double results[2];
            run(arm, seconds, rate, results);
            p[arm][0][round] = results[0];
            p[arm][1][round] = results[1];
        }
    }
    check("nobody else loses a message", lost == 0, "%lld lost", lost);
    check("the slow channel keeps its oldest messages and loses only its newest, which are counted",
          wrong_kept == 0 && kept == (long long)rounds * CAPACITY && dropped == sent_slow - kept &&
              dropped > 0,
          "%lld sent, %lld kept, %lld of them wrong, %lld dropped", sent_slow, kept, wrong_kept,
          dropped);
    double p99[ARMS];
    for (int arm = 0; arm < ARMS; arm++) {
        char claim[64];
        snprintf(claim, sizeof claim, "p50 and p99 with %s", ARM_NAMES[arm]);
        p99[arm] = percentile(p[arm][1], (size_t)rounds, 0.5);
        figure(claim, "%.2f and %.2f ms", percentile(p[arm][0], (size_t)rounds, 0.5), p99[arm]);
    }
    double ratio = p99[ABANDONED] / p99[NONE];
    figure("p99 to that without the channel, and with it received", "%.2f and %.2f", ratio,
           p99[ABANDONED] / p99[RECEIVED]);
    if (limit > 0) {
        check("the p99 of the others stays within the limit", ratio <= limit,
              "%.2f times that without the channel, of at most %.2f", ratio, limit);
    }
    layer_free(receiver);
    layer_free(sender);
    free(latencies);
    return 0;
}
