/*
 * Distinct groups of one channel: how many are added each second by layer_group_add_async, and
 * discarded, each until the broker routes them or has stopped to; and the memory of one.
 *
 *     layer_groups [groups=N] [in_flight=N]
 *
 * Resident memory grows by whole pages, stacks and buffers of the calls in flight too, which with
 * few groups is most of it. So the bytes of the heap that are in use are counted beside it, once
 * what only the calls needed is released.
 */

#include "layer.h"

#include <malloc.h>

/* How long buffers of calls that have ended may take to be released. */
#define SETTLE_S 2

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t done, wake_at;

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status != LAYER_OK) {
        bench_fail("layer_group_add_async: %s: %s", layer_status_name(status),
                   layer_error_message(error));
    }
    pthread_mutex_lock(&mutex);
    if (++done >= wake_at) {
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&mutex);
}

static void wait_for(uint64_t count) {
    pthread_mutex_lock(&mutex);
    wake_at = count;
    while (done < count) {
        pthread_cond_wait(&changed, &mutex);
    }
    wake_at = UINT64_MAX;
    pthread_mutex_unlock(&mutex);
}

static uint64_t bound(layer_t *layer) {
    layer_error_t *error = NULL;
    uint64_t value;
    check(layer_stat(layer, LAYER_STAT_GROUPS_BOUND, &value, &error), &error, "layer_stat");
    return value;
}

static void name_of(char *group, size_t size, uint64_t number) {
    snprintf(group, size, "bench-group-%08llu", (unsigned long long)number);
}

/* What malloc has given out, in all arenas, with its own headers. */
static int64_t heap(void) {
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *url = bench_url();
    uint64_t groups = bench_count("groups", 1000), in_flight = bench_count("in_flight", 1000);
    bench_no_more_arguments();
    if (groups == 0 || in_flight == 0) {
        bench_fail("groups and in_flight are at least 1");
    }
    bench_bound(300);
    layer_config_t *config = new_config(url);
    set_option(config, "timeout", "300"); /* so that what is slow is measured, not given up */
    layer_t *layer = open_layer(config);
    char channel[LAYER_NAME_SIZE], group[LAYER_NAME_SIZE];
    layer_error_t *error = NULL;
    new_channel(layer, channel);
    /* The first one sets things up that later ones find. */
    check(layer_group_add(layer, "bench-first", channel, &error), &error, "layer_group_add");

    malloc_trim(0);
    int64_t memory = bench_resident(), used = heap();
    int64_t cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    int64_t start = bench_now();
    for (uint64_t i = 0; i < groups; i++) {
        if (i >= in_flight && i % (in_flight / 2 + 1) == 0) {
            wait_for(i - in_flight / 2);
        }
        name_of(group, sizeof group, i);
        check(layer_group_add_async(layer, group, channel, on_done, NULL, NULL, &error), &error,
              "layer_group_add_async");
    }
    wait_for(groups);
    double added = (double)(bench_now() - start) / 1e9;
    cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (bound(layer) != groups + 1) {
        bench_fail("%llu groups are bound, and not those %llu that were added",
                   (unsigned long long)bound(layer), (unsigned long long)groups + 1);
    }
    bench_sleep(SETTLE_S);
    malloc_trim(0);
    memory = bench_resident() - memory;
    used = heap() - used;
    name_of(group, sizeof group, 0); /* all names have one length */
    double beyond_name = (double)used / (double)groups - (double)strlen(group);

    start = bench_now();
    for (uint64_t i = 0; i < groups; i++) {
        name_of(group, sizeof group, i);
        check(layer_group_discard(layer, group, channel, &error), &error, "layer_group_discard");
    }
    while (bound(layer) != 1) {
        bench_sleep(0.001);
    }
    double discarded = (double)(bench_now() - start) / 1e9;
    printf("{\"groups\": %llu, \"adds_per_second\": %.1f, \"discards_per_second\": %.1f, "
           "\"bytes_per_group\": %.1f, \"bytes_beyond_name\": %.1f, \"cpu_us_per_add\": %.2f}\n",
           (unsigned long long)groups, (double)groups / added, (double)groups / discarded,
           (double)memory / (double)groups, beyond_name, (double)cpu / 1e3 / (double)groups);
    layer_free(layer);
    return fflush(stdout) == 0 ? 0 : 1;
}
