/*
 * What the programs of this library share: how a layer is opened, and what becomes of an error.
 */

#ifndef BENCH_LAYER_H
#define BENCH_LAYER_H

#include "bench.h"

#include "channel_layer.h"

#define LAYER_READY_MS 20000
#define TEXT(number) TEXT_(number)
#define TEXT_(number) #number

/* `error` by its address: what a call writes may be read only after it, and the arguments of a call
 * are read in any order. */
static inline void check(layer_status_t status, layer_error_t *const *error, const char *what) {
    if (status != LAYER_OK) {
        bench_fail("%s: %s: %s", what, layer_status_name(status), layer_error_message(*error));
    }
}

static inline void print_log(void *userdata, layer_log_level_t level, const char *id,
                             const char *target, const char *message) {
    (void)userdata;
    if (level <= LAYER_LOG_WARN) {
        fprintf(stderr, "%s: %s: %s\n", target, id, message);
    }
}

static inline void set_option(layer_config_t *config, const char *name, const char *value) {
    layer_error_t *error = NULL;
    check(layer_config_set(config, name, value, &error), &error, name);
}

static inline void set_number(layer_config_t *config, const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    set_option(config, name, text);
}

/* Options that no workload wants otherwise: capacities that are never reached. */
static inline layer_config_t *new_config(const char *url) {
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    if (config == NULL) {
        bench_fail("out of memory");
    }
    set_option(config, "host", url);
    set_option(config, "local_capacity", TEXT(BENCH_CAPACITY));
    set_option(config, "remote_capacity", TEXT(BENCH_CAPACITY));
    set_option(config, "expiry", TEXT(BENCH_EXPIRY_S));
    check(layer_config_on_log(config, print_log, NULL, NULL, &error), &error, "log");
    return config;
}

/* Takes the config. */
static inline layer_t *open_layer(layer_config_t *config) {
    layer_error_t *error = NULL;
    layer_t *layer;
    check(layer_new(config, &layer, &error), &error, "layer_new");
    layer_config_free(config);
    check(layer_wait_ready(layer, LAYER_READY_MS, &error), &error, "layer_wait_ready");
    return layer;
}

static inline void new_channel(layer_t *layer, char channel[LAYER_NAME_SIZE]) {
    layer_error_t *error = NULL;
    check(layer_new_channel(layer, NULL, channel, LAYER_NAME_SIZE, &error), &error,
          "layer_new_channel");
}

#endif
