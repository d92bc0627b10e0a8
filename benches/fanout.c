/*
 * Local fan-out: one message to a group, and its callbacks on many members: fanout MEMBERS
 *
 * On `memory://`, so that what is measured lies between the arrival of the message and the last
 * callback. The figure is deliveries per second of processor time of all threads but the sender's:
 * the one that the message arrives on, and the one that runs the callbacks.
 */
#include "bench.h"

#include "channel_layer.h"

static atomic_uint_fast64_t delivered;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    (void)status;
    if (message != NULL) {
        atomic_store_explicit(&delivered,
                              atomic_load_explicit(&delivered, memory_order_relaxed) + 1,
                              memory_order_release); /* one thread runs all callbacks */
    }
    return LAYER_CONTINUE;
}

static void check(layer_status_t status, layer_error_t *error, const char *call) {
    if (status != LAYER_OK) {
        bench_fail("%s: %s", call, layer_error_message(error));
    }
}

/* Processor time of all threads but this one. */
static int64_t cpu_of_others(void) {
    return bench_clock(CLOCK_PROCESS_CPUTIME_ID) - bench_clock(CLOCK_THREAD_CPUTIME_ID);
}

int main(int argc, char **argv) {
    uint64_t members = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    if (members == 0) {
        fprintf(stderr, "usage: fanout MEMBERS\n");
        return 2;
    }
    char capacity[32];
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    snprintf(capacity, sizeof capacity, "%llu", (unsigned long long)members * 2);
    check(layer_config_set(config, "host", "memory://fanout", &error), error, "host");
    check(layer_config_set(config, "local_capacity", capacity, &error), error, "local_capacity");
    check(layer_new(config, &layer, &error), error, "layer_new");
    layer_config_free(config);
    check(layer_wait_ready(layer, 10000, &error), error, "layer_wait_ready");
    for (uint64_t i = 0; i < members; i++) {
        char channel[128];
        uint64_t receiver;
        check(layer_new_channel(layer, NULL, channel, sizeof channel, &error), error, "channel");
        check(layer_receive(layer, channel, on_message, NULL, NULL, &receiver, &error), error,
              "layer_receive");
        check(layer_group_add(layer, "all", channel, &error), error, "layer_group_add");
    }

    uint8_t message[BENCH_BODY] = {0x81, 0xa1, 'p', 0xc4, BENCH_BODY - 5};
    uint64_t rounds = 5000000 / members + 1;
    for (int warm = 0; warm < 2; warm++) {
        uint64_t begin = atomic_load(&delivered);
        int64_t cpu = cpu_of_others(), wall = bench_clock(CLOCK_MONOTONIC);
        for (uint64_t round = 1; round <= rounds; round++) {
            check(layer_group_send(layer, "all", message, sizeof message, &error), error, "send");
            while (atomic_load_explicit(&delivered, memory_order_acquire) <
                   begin + round * members) {
                usleep(members > 10000 ? 1000 : 50);
            }
        }
        cpu = cpu_of_others() - cpu;
        wall = bench_clock(CLOCK_MONOTONIC) - wall;
        double count = (double)(rounds * members);
        if (warm == 1) {
            printf("{\"members\": %llu, \"per_cpu_second\": %.0f, \"ns_each\": %.1f, "
                   "\"per_second\": %.0f}\n",
                   (unsigned long long)members, count / (double)cpu * 1e9, (double)cpu / count,
                   count / (double)wall * 1e9);
        }
    }
    layer_free(layer);
    return 0;
}
