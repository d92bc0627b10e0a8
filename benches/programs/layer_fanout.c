/*
 * Local fan-out: one message to a group, and its callbacks on many members.
 *
 *     layer_fanout [members=N] [seconds=S]
 *
 * On `memory://`, so that what is measured lies between the arrival of the message and the last
 * callback. The figure is deliveries per second of processor time of all threads but the sender's:
 * the one that the message arrives on, and the one that runs the callbacks.
 */

#include "layer.h"

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

/* Processor time of all threads but this one. */
static int64_t cpu_of_others(void) {
    return bench_clock(CLOCK_PROCESS_CPUTIME_ID) - bench_clock(CLOCK_THREAD_CPUTIME_ID);
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    uint64_t members = bench_count("members", 1000);
    double seconds = bench_number("seconds", 1);
    bench_no_more_arguments();
    if (members == 0) {
        bench_fail("members is at least 1");
    }
    bench_bound(seconds);
    layer_error_t *error = NULL;
    layer_config_t *config = new_config("memory://fanout");
    set_number(config, "local_capacity", members * 2);
    layer_t *layer = open_layer(config);
    for (uint64_t i = 0; i < members; i++) {
        char channel[LAYER_NAME_SIZE];
        new_channel(layer, channel);
        check(layer_receive(layer, channel, on_message, NULL, NULL, NULL, &error), &error,
              "layer_receive");
        check(layer_group_add(layer, "all", channel, &error), &error, "layer_group_add");
    }

    uint8_t message[BENCH_BODY];
    bench_body(message, sizeof message);
    for (int warm = 0; warm < 2; warm++) {
        uint64_t begin = atomic_load(&delivered), rounds = 0;
        int64_t cpu = cpu_of_others(), wall = bench_now();
        int64_t end = wall + (int64_t)(seconds * 1e9 / (warm == 0 ? 2 : 1));
        for (; bench_now() < end || rounds < 3; rounds++) {
            check(layer_group_send(layer, "all", message, sizeof message, &error), &error,
                  "layer_group_send");
            while (atomic_load_explicit(&delivered, memory_order_acquire) <
                   begin + (rounds + 1) * members) {
                usleep(members > 10000 ? 1000 : 50);
            }
        }
        cpu = cpu_of_others() - cpu;
        wall = bench_now() - wall;
        double count = (double)(rounds * members);
        if (warm == 1) {
            printf("{\"members\": %llu, \"per_cpu_second\": %.0f, \"ns_each\": %.1f, "
                   "\"per_second\": %.0f}\n",
                   (unsigned long long)members, count / (double)cpu * 1e9, (double)cpu / count,
                   count / (double)wall * 1e9);
        }
    }
    layer_free(layer);
    return fflush(stdout) == 0 ? 0 : 1;
}
