/*
 * The memory of idle channels, all of them members of one group, and what a receiver by callback
 * adds to each.
 *
 *     layer_idle [channels=N]
 *
 * Resident memory before and after, with what the allocator holds free given back. The names, which
 * a server would keep with its clients, are made before and not counted.
 */

#include "layer.h"

#include <malloc.h>

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)message;
    return status == LAYER_OK ? LAYER_CONTINUE : LAYER_STOP;
}

static int64_t memory(void) {
    malloc_trim(0);
    return bench_resident();
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *url = bench_url();
    uint64_t channels = bench_count("channels", 100000);
    bench_no_more_arguments();
    if (channels == 0) {
        bench_fail("channels is at least 1");
    }
    bench_bound(60);
    layer_t *layer = open_layer(new_config(url));
    layer_error_t *error = NULL;
    char(*names)[LAYER_NAME_SIZE] = bench_allocate(channels * sizeof *names);
    for (uint64_t i = 0; i < channels; i++) {
        new_channel(layer, names[i]);
    }

    int64_t before = memory();
    for (uint64_t i = 0; i < channels; i++) {
        check(layer_group_add(layer, "everyone", names[i], &error), &error, "layer_group_add");
    }
    int64_t members = memory();
    for (uint64_t i = 0; i < channels; i++) {
        check(layer_receive(layer, names[i], on_message, NULL, NULL, NULL, &error), &error,
              "layer_receive");
    }
    int64_t receivers = memory();
    printf("{\"channels\": %llu, \"bytes_each\": %.1f, \"bytes_each_with_receiver\": %.1f}\n",
           (unsigned long long)channels, (double)(members - before) / (double)channels,
           (double)(receivers - before) / (double)channels);
    layer_free(layer);
    return fflush(stdout) == 0 ? 0 : 1;
}
