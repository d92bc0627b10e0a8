/*
 * A slow receiver among fast ones: messages by the clock, to each channel in turn, where the first
 * channel's callback takes its time. What the others feel of it is measured.
 *
 *     layer_slow [channels=N] [rate=PER_SECOND] [slow_ms=MS] [holding=1] [seconds=S]
 *
 * Capacities are the library's defaults, since they decide what happens. Two threads run callbacks,
 * so that a callback that sleeps blocks one of them only. A message that is refused (LAYER_FULL),
 * or has not arrived a second after the last was sent, is counted as lost.
 */

#include "layer.h"

typedef struct {
    bench_samples_t samples;
    uint64_t received;
    bool slow;
} channel_t;

static bench_pace_t pace;
static double slow_seconds;
static _Atomic bool ending;
static _Atomic uint64_t refused, outcomes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    channel_t *channel = userdata;
    if (status != LAYER_OK || atomic_load(&ending)) {
        return LAYER_STOP;
    }
    int64_t now = bench_now();
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    uint64_t seq = bench_read_seq(data, length);
    pthread_mutex_lock(&mutex); /* against the reading at the end */
    channel->received++;
    bench_sample(&channel->samples, now - bench_due(&pace, seq));
    pthread_mutex_unlock(&mutex);
    if (channel->slow) {
        bench_sleep(slow_seconds);
    }
    return LAYER_CONTINUE;
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status == LAYER_FULL) {
        atomic_fetch_add(&refused, 1);
    } else if (status != LAYER_OK) {
        bench_fail("%s: %s", layer_status_name(status), layer_error_message(error));
    }
    atomic_fetch_add(&outcomes, 1);
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *url = bench_url();
    uint64_t channels = bench_count("channels", 16);
    bool holding = bench_count("holding", 0) != 0;
    slow_seconds = bench_number("slow_ms", 50) / 1e3;
    bench_options_t options = {.seconds = bench_number("seconds", 5),
                               .rate = bench_number("rate", 2000)};
    bench_no_more_arguments();
    if (channels < 2 || options.rate <= 0) {
        bench_fail("channels is at least 2, rate above 0");
    }
    bench_bound(options.seconds + 20);
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    set_option(config, "host", url);
    set_option(config, "dispatch_threads", "2");
    if (holding) {
        set_option(config, "stall_after", "0");
    }
    layer_t *receiving = open_layer(config);
    config = layer_config_new();
    set_option(config, "host", url);
    layer_t *sending = open_layer(config);

    char(*names)[LAYER_NAME_SIZE] = bench_allocate(channels * sizeof *names);
    channel_t *all = bench_allocate(channels * sizeof *all);
    pace = bench_pace(&options);
    all[0].slow = true;
    for (uint64_t i = 0; i < channels; i++) {
        new_channel(receiving, names[i]);
        check(layer_receive(receiving, names[i], on_message, &all[i], NULL, NULL, &error), &error,
              "layer_receive");
    }
    pace = bench_pace(&options);
    uint8_t body[BENCH_BODY];
    bench_body(body, sizeof body);
    void *seq_at = bench_find_seq(body, sizeof body);
    for (uint64_t seq = 0; seq < pace.end; seq++) {
        bench_sleep_until(bench_due(&pace, seq));
        bench_write_seq(seq_at, seq);
        check(layer_send_async(sending, names[seq % channels], body, sizeof body, on_done, NULL,
                               NULL, &error),
              &error, "layer_send_async");
    }
    while (atomic_load(&outcomes) < pace.end) {
        bench_sleep(0.001);
    }
    bench_sleep(1);
    atomic_store(&ending, true);

    pthread_mutex_lock(&mutex);
    bench_samples_t fast = {0};
    uint64_t sent_to_fast = 0, sent_to_slow = (pace.end + channels - 1) / channels;
    sent_to_fast = pace.end - sent_to_slow;
    for (uint64_t i = 1; i < channels; i++) {
        for (size_t j = 0; j < all[i].samples.count; j++) {
            bench_sample(&fast, (int64_t)(all[i].samples.us[j] * 1e3));
        }
    }
    char more[256];
    snprintf(more, sizeof more,
             ", \"fast_received_percent\": %.2f, \"slow_received_percent\": %.2f, "
             "\"refused\": %llu, \"rate\": %.1f",
             100.0 * (double)fast.count / (double)sent_to_fast,
             100.0 * (double)all[0].received / (double)sent_to_slow,
             (unsigned long long)atomic_load(&refused), options.rate);
    bench_print_latency(&fast, more);
    pthread_mutex_unlock(&mutex);
    layer_free(sending);
    layer_free(receiving);
    return fflush(stdout) == 0 ? 0 : 1;
}
