/*
 * How long it takes from layer_new to a layer that is ready: both connections, the queue, the
 * consumer.
 *
 *     layer_connect measure=connect [seconds=S]
 */

#include "layer.h"

static int64_t connect_once(const bench_options_t *options) {
    layer_config_t *config = new_config(options->url);
    int64_t start = bench_now();
    layer_t *layer = open_layer(config);
    int64_t taken = bench_now() - start;
    layer_free(layer);
    return taken;
}

int main(int argc, char **argv) {
    (void)argc;
    bench_options_t options = bench_options(argv);
    if (!options.connect) {
        bench_fail("measure=connect is all that this program does");
    }
    bench_connect(&options, connect_once);
    return fflush(stdout) == 0 ? 0 : 1;
}
