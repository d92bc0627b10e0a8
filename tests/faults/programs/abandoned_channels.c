/*
 * Sends to channels that nobody reads: abandoned_channels HOST ATTEMPTS ACCEPTED AHEAD.
 *
 * First ATTEMPTS sends to a layer whose messages last, each to a channel of its own, so that most
 * find its queue full; then as many as it takes until ACCEPTED were accepted by a layer with
 * `expiry` 0.1. At most AHEAD are in flight. The process is measured in the middle and at the end
 * of each part.
 */
#include "process.h"

/* At most one warning of a kind in this many seconds, and how many kinds there are. */
#define WARNING_SECONDS 5
#define WARNING_KINDS 4

static atomic_llong outcomes[LAYER_INTERNAL + 1], ended;
static atomic_int warnings, expiry_warnings, records;

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)target;
    (void)message;
    atomic_fetch_add(&records, 1);
    if (level <= LAYER_LOG_WARN) {
        atomic_fetch_add(&warnings, 1);
        atomic_fetch_add(&expiry_warnings, strcmp(id, "expired_dropped") == 0);
    }
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    (void)error;
    atomic_fetch_add(&outcomes[status], 1);
    atomic_fetch_add(&ended, 1);
}

static layer_t *open_logged(const char *host, const char *expiry) {
    /* Isolated, the channels would take what is to be refused. */
    layer_config_t *config = configure(host, "expiry", expiry, "stall_after", "0", NULL);
    MUST(layer_config_on_log(config, on_log, NULL, NULL, ERROR));
    return open_config(config);
}

static long long accepted(void) { return atomic_load(&outcomes[LAYER_OK]); }

/* Sends until `attempts` were made, or with 0 until `wanted` were accepted; waits for the outcomes.
 * Gives the number of attempts. */
static long long send_many(layer_t *sender, const char *queue, long long attempts,
                           long long wanted) {
    static long long number;
    long long made = 0;
    while (attempts > 0 ? made < attempts : accepted() < wanted) {
        char channel[LAYER_NAME_SIZE];
        struct number m = number_message(number);
        snprintf(channel, sizeof channel, "%s!abandoned%lld", queue, number);
        layer_status_t status =
            layer_send_async(sender, channel, m.data, m.length, on_done, NULL, NULL, NULL);
        if (status == LAYER_OK) {
            number++;
            made++;
        } else {
            MUST_BE(status == LAYER_BUSY);
            pause_for(0.0005);
        }
    }
    MUST_BE(WAIT(stat_of(sender, LAYER_STAT_IN_FLIGHT) == 0, 60));
    return made;
}

/* Checks the warnings of the layer that was opened at `opened` and is freed: the limit counts the
 * whole time in which it could log, however slow the machine is. */
static void check_rate_of_warnings(const char *claim, double opened, bool expiries) {
    double lasted = now() - opened;
    int most = (int)(lasted / WARNING_SECONDS) + WARNING_KINDS;
    int all = atomic_exchange(&warnings, 0), expired = atomic_exchange(&expiry_warnings, 0);
    check(claim, all <= most && (expired > 0 || !expiries),
          "%d warnings, %d of them of expiry, %d records in all, in %.0f s", all, expired,
          atomic_exchange(&records, 0), lasted);
}

static void queue_of(layer_t *layer, char queue[LAYER_NAME_SIZE]) {
    MUST(layer_new_channel(layer, NULL, queue, LAYER_NAME_SIZE, ERROR));
    *strchr(queue, '!') = '\0';
}

int main(int argc, char **argv) {
    MUST_BE(argc == 5);
    use_one_arena();
    const char *host = argv[1];
    long long attempts = atoll(argv[2]), wanted = atoll(argv[3]);
    char queue[LAYER_NAME_SIZE];
    double began = now();

    /* So that the first half has had as much in flight as there will ever be. */
    layer_t *sender = open_layer(host, "max_in_flight", argv[4], NULL);
    layer_t *abandoned = open_logged(host, "60");
    queue_of(abandoned, queue);
    long long made = send_many(sender, queue, attempts / 2, 0);
    struct memory first = measure_memory();
    made += send_many(sender, queue, attempts - attempts / 2, 0);
    struct memory second = measure_memory();
    double lasted = now() - began;
    long long full = atomic_load(&outcomes[LAYER_FULL]);
    check("each attempt is accepted or LAYER_FULL, and most are full",
          accepted() + full == made && full > made / 2, "%lld attempts, %lld accepted, %lld full",
          made, accepted(), full);
    check_flat("the second half of the attempts grows by less than 1 MiB", first, second);
    figure("attempts a second", "%.0f", (double)made / lasted);
    layer_free(abandoned);
    check_rate_of_warnings("warnings are rate-limited", began, false);

    long long before = accepted();
    began = now();
    layer_t *forgetful = open_logged(host, "0.1");
    queue_of(forgetful, queue);
    long long more = send_many(sender, queue, 0, before + wanted / 2);
    first = measure_memory();
    more += send_many(sender, queue, 0, before + wanted);
    second = measure_memory();
    lasted = now() - began;
    full = atomic_load(&outcomes[LAYER_FULL]) - full;
    check("each attempt is accepted or LAYER_FULL", accepted() - before + full == more,
          "%lld attempts, %lld accepted, %lld full", more, accepted() - before, full);
    check_flat("the second half of what is accepted grows by less than 1 MiB", first, second);
    /* For a moment all is gone while the broker is about to send more: so until it adds up. */
    uint64_t arrived = 0, dropped = 0;
    bool gone = WAIT((dropped = stat_of(forgetful, LAYER_STAT_DROPPED_EXPIRED),
                      arrived = stat_of(forgetful, LAYER_STAT_DELIVERIES),
                      arrived == dropped && stat_of(forgetful, LAYER_STAT_BACKLOG) == 0 &&
                          stat_of(forgetful, LAYER_STAT_CHANNELS) == 0 &&
                          stat_of(forgetful, LAYER_STAT_DELIVERIES_HELD) == 0),
                     20);
    check("what has arrived has expired, been counted and left no channel",
          gone && arrived > 0 && arrived == dropped, "%llu arrived, %llu expired, %llu channels",
          (unsigned long long)arrived, (unsigned long long)dropped,
          (unsigned long long)stat_of(forgetful, LAYER_STAT_CHANNELS));
    layer_free(forgetful);
    check_rate_of_warnings("warnings of expiry are rate-limited, and there are some", began, true);
    figure("accepted a second", "%.0f", (double)wanted / lasted);
    layer_free(sender);
    /* What grew with the load and not with time was the layers'. */
    figure("heap once all layers are freed", "%ld KiB", heap_kib());
    return 0;
}
