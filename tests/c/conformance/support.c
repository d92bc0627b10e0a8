#include "support.h"

#define MOST_LAYERS 64

static layer_t *layers[MOST_LAYERS];
static layer_config_t *configs[MOST_LAYERS];
static bool freed_elsewhere;

static _Thread_local layer_error_t *error_slot;
static _Thread_local bool error_asked_for;
static _Thread_local char last_error[1024];

/* --- The broker ------------------------------------------------------------------------------ */

const char *test_host(void) {
    const char *host = getenv("CHANNEL_LAYER_TEST_HOST");
    if (host == NULL || *host == '\0') {
        fputs("CHANNEL_LAYER_TEST_HOST is not set: name the broker to test, as memory://test or "
              "amqp://guest:guest@127.0.0.1/asgi\n",
              stderr);
        exit(1);
    }
    return host;
}

bool on_memory(void) { return strncmp(test_host(), "memory://", 9) == 0; }

/* Its allocator may be locked by another thread as the process forks, for good in the child. */
const char *forks_safely(void) {
#ifdef __SANITIZE_ADDRESS__
    return "a child of many threads cannot allocate under AddressSanitizer";
#else
    return NULL;
#endif
}

const char *amqp_only(void) { return on_memory() ? "it needs a RabbitMQ server" : NULL; }

/* --- Calls ----------------------------------------------------------------------------------- */

layer_error_t **fresh_error(void) {
    layer_error_free(error_slot);
    error_slot = NULL;
    error_asked_for = true;
    return &error_slot;
}

const char *error_text(void) { return last_error; }

layer_status_t seen_status(const char *file, int line, const char *call, layer_status_t status) {
    last_error[0] = '\0';
    if (!error_asked_for) {
        return status;
    }
    error_asked_for = false;
    layer_error_t *error = error_slot;
    error_slot = NULL;
    snprintf(last_error, sizeof last_error, "%s", layer_error_message(error));
    layer_status_t of_error = layer_error_status(error);
    if ((error != NULL) != (status != LAYER_OK)) {
        harness_fail(file, line, call, "returned %s and its error object is %s",
                     layer_status_name(status), error == NULL ? "NULL" : "set");
    } else if (of_error != status) {
        harness_fail(file, line, call, "returned %s and the status of its error is %s",
                     layer_status_name(status), layer_status_name(of_error));
    } else if (status != LAYER_OK && last_error[0] == '\0') {
        harness_fail(file, line, call, "returned %s and its error says nothing",
                     layer_status_name(status));
    }
    layer_error_free(error);
    if (status < LAYER_OK || status > LAYER_INTERNAL) {
        harness_fail(file, line, call, "returned %d, which is no status", (int)status);
    } else if (status == LAYER_INTERNAL) {
        harness_fail(file, line, call, "returned LAYER_INTERNAL: %s", last_error);
    }
    return status;
}

bool is_status(const char *file, int line, const char *call, layer_status_t expected,
               layer_status_t status) {
    layer_status_t seen = seen_status(file, line, call, status);
    if (seen != expected) {
        harness_fail(file, line, call, "returned %s (%s), not %s", layer_status_name(seen),
                     error_text(), layer_status_name(expected));
    }
    return seen == expected;
}

/* --- Layers ---------------------------------------------------------------------------------- */

layer_config_t *new_config_of(const char *const *options) {
    layer_config_t *config = layer_config_new();
    CHECK(config != NULL, "layer_config_new gave NULL");
    size_t place = 0;
    while (place < MOST_LAYERS && configs[place] != NULL) {
        place++;
    }
    CHECK(place < MOST_LAYERS, "more than %d configs", MOST_LAYERS);
    configs[place] = config;
    CHECK_OK(layer_config_set(config, "host", test_host(), ERR));
    if (harness_scaled(1) > 1) {
        /* What ends by the default timeout is then a fault, and not the tool that slows us down. */
        CHECK_OK(layer_config_set(config, "timeout", text("%.3f", harness_scaled(10)), ERR));
        CHECK_OK(
            layer_config_set(config, "connect_timeout", text("%.3f", harness_scaled(10)), ERR));
    }
    for (; options[0] != NULL; options += 2) {
        layer_status_t status = STATUS(layer_config_set(config, options[0], options[1], ERR));
        CHECK(status == LAYER_OK, "option %s=%s: %s", options[0], options[1], error_text());
    }
    return config;
}

void own_layer(layer_t *layer) {
    harness_lock();
    size_t place = 0;
    while (place < MOST_LAYERS && layers[place] != NULL) {
        place++;
    }
    if (place < MOST_LAYERS) {
        layers[place] = layer;
    }
    harness_unlock();
    CHECK(place < MOST_LAYERS, "more than %d layers", MOST_LAYERS);
}

static void forget_layer(layer_t *layer) {
    harness_lock();
    for (size_t i = 0; i < MOST_LAYERS; i++) {
        if (layers[i] == layer) {
            layers[i] = NULL;
        }
    }
    harness_unlock();
}

void disown_layer(layer_t *layer) {
    forget_layer(layer);
    freed_elsewhere = true;
}

layer_t *open_with(layer_config_t *config) {
    layer_t *layer = NULL;
    CHECK_OK(layer_new(config, &layer, ERR));
    CHECK(layer != NULL, "layer_new gave no layer");
    own_layer(layer);
    return layer;
}

layer_t *open_layer_of(bool wait, const char *const *options) {
    bool polls = false;
    for (size_t i = 0; options[i] != NULL; i += 2) {
        polls |= strcmp(options[i], "dispatch") == 0 && strcmp(options[i + 1], "poll") == 0;
    }
    layer_config_t *config = new_config_of(options);
    if (!polls) { /* There, a record would be one more callback that is due. */
        CHECK_OK(on_log(config, probe_new("log")));
    }
    layer_t *layer = open_with(config);
    free_config(config);
    if (wait) {
        CHECK_OK(layer_wait_ready(layer, (uint32_t)(harness_scaled(WAIT_SECONDS) * 1000), ERR));
    }
    return layer;
}

void free_layer(layer_t *layer) {
    forget_layer(layer);
    layer_free(layer);
}

void free_config(layer_config_t *config) {
    for (size_t i = 0; i < MOST_LAYERS; i++) {
        if (configs[i] == config) {
            configs[i] = NULL;
        }
    }
    layer_config_free(config);
}

const char *new_channel(layer_t *layer) {
    char *name = case_alloc(LAYER_NAME_SIZE);
    CHECK_OK(layer_new_channel(layer, NULL, name, LAYER_NAME_SIZE, ERR));
    return name;
}

uint64_t stat_of(layer_t *layer, uint32_t which) {
    uint64_t value = UINT64_MAX;
    CHECK_OK(layer_stat(layer, which, &value, ERR));
    return value;
}

void wait_stat_at(const char *file, int line, layer_t *layer, uint32_t which, const char *name,
                  uint64_t expected) {
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    uint64_t seen;
    while ((seen = stat_of(layer, which)) != expected && harness_now() < deadline) {
        harness_pause(0.001);
    }
    if (seen != expected) {
        harness_fail(file, line, name, "is %llu after %.0f s, not %llu", (unsigned long long)seen,
                     harness_scaled(WAIT_SECONDS), (unsigned long long)expected);
        harness_leave();
    }
}

/* --- Messages -------------------------------------------------------------------------------- */

struct numbered number_message(int64_t number) {
    static const uint8_t head[] = "\x82\xa4type\xa4test\xa1n\xd3";
    struct numbered message = {.length = sizeof head - 1 + 8};
    memcpy(message.data, head, sizeof head - 1);
    for (unsigned i = 0; i < 8; i++) {
        message.data[sizeof head - 1 + i] = (uint8_t)((uint64_t)number >> (56 - 8 * i));
    }
    return message;
}

struct mp padded_message(int64_t number, uint32_t pad) {
    struct mp message = {0};
    mp_map(&message, 3);
    mp_str(&message, "type");
    mp_str(&message, "test");
    mp_str(&message, "n");
    mp_int(&message, number);
    mp_str(&message, "pad");
    mp_blob(&message, pad);
    return message;
}

int64_t number_of(const layer_message_t *message) {
    size_t length = 0;
    const uint8_t *data = layer_message_data(message, &length);
    int64_t number = INT64_MIN;
    if (data != NULL) {
        mp_read_int(mp_find(data, length, "n"), data + length, &number);
    }
    return number;
}

layer_status_t send_number(layer_t *layer, const char *channel, int64_t number) {
    struct numbered message = number_message(number);
    return layer_send(layer, channel, message.data, message.length, ERR);
}

layer_status_t group_send_number(layer_t *layer, const char *group, int64_t number) {
    struct numbered message = number_message(number);
    return layer_group_send(layer, group, message.data, message.length, ERR);
}

static layer_message_t *pull_at(const char *file, int line, layer_t *layer, const char *channel) {
    layer_message_t *message = NULL;
    uint32_t timeout_ms = (uint32_t)(harness_scaled(WAIT_SECONDS) * 1000);
    layer_status_t status = STATUS(layer_receive_next(layer, channel, timeout_ms, &message, ERR));
    if (status != LAYER_OK || message == NULL) {
        harness_fail(file, line, "layer_receive_next", "returned %s (%s) and message %p",
                     layer_status_name(status), error_text(), (void *)message);
        harness_leave();
    }
    return message;
}

layer_message_t *pull(layer_t *layer, const char *channel) {
    return pull_at(__FILE__, __LINE__, layer, channel);
}

int64_t pull_number_at(const char *file, int line, layer_t *layer, const char *channel) {
    layer_message_t *message = pull_at(file, line, layer, channel);
    int64_t number = number_of(message);
    layer_message_free(message);
    return number;
}

/* --- The end of a case ----------------------------------------------------------------------- */

static void after_case(enum harness_phase phase, bool failed) {
    if (phase == HARNESS_STOP) {
        for (size_t i = 0; failed && i < MOST_LAYERS; i++) {
            if (layers[i] != NULL) { /* Ends the calls that threads of the case are inside of. */
                layer_close(layers[i], 10000, NULL);
            }
        }
        return;
    }
    for (size_t i = 0; i < MOST_LAYERS; i++) {
        layer_free(layers[i]);
        layers[i] = NULL;
        layer_config_free(configs[i]);
        configs[i] = NULL;
    }
    probes_settle(failed, freed_elsewhere);
    freed_elsewhere = false;
}

__attribute__((constructor)) static void prepare(void) { harness_after_case(after_case); }
