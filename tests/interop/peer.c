/*
 * A process with a layer, driven by another: one command per line on standard input, one JSON
 * object per line on standard output, in turn.
 *
 *     peer OPTION=VALUE...      opens a layer, waits until it is ready, answers as to a command
 *     new-channel               {"status", "channel"}
 *     send CHANNEL HEX          a MessagePack map in hexadecimal digits
 *     send-json CHANNEL JSON
 *     group-send GROUP HEX
 *     group-send-json GROUP JSON
 *     group-add GROUP CHANNEL
 *     group-discard GROUP CHANNEL
 *     receive CHANNEL MS        {"status", "channel", "group", "type", "data": HEX, "json"}
 *     wait-ready MS
 *     stat NUMBER               {"status", "value"}
 *     prometheus LABELS         {"status", "text"}: labels without a blank
 *     log                       {"status", "log": [TEXT, ...]}: what was logged since the last time
 *
 * A failure is {"status": NAME, "error": TEXT}. The end of the input closes the layer. Two more
 * words may stand among the options: `ready-ms=MS`, how long to wait for the layer at first, which
 * is 20000 otherwise, and `log=stderr`, which prints its log records.
 */

#define _GNU_SOURCE

#include "channel_layer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A driver that breaks the protocol, or a machine without memory: no test can go on. */
static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("peer: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static void print_string(const char *text) {
    if (text == NULL) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            printf("\\%c", *at);
        } else if (*at < 0x20) {
            printf("\\u%04x", *at);
        } else {
            putchar(*at);
        }
    }
    putchar('"');
}

static void print_field(const char *name, const char *text) {
    printf(", \"%s\": ", name);
    print_string(text);
}

static void begin_answer(layer_status_t status) {
    fputs("{\"status\": ", stdout);
    print_string(layer_status_name(status));
}

static void end_answer(void) {
    puts("}");
    if (fflush(stdout) != 0) {
        die("cannot answer: %s", strerror(errno));
    }
}

/* Answers with nothing but how the call ended. Takes the error. */
static void answer(layer_status_t status, layer_error_t *error) {
    begin_answer(status);
    if (error != NULL) {
        print_field("error", layer_error_message(error));
        layer_error_free(error);
    }
    end_answer();
}

static uint8_t hex_digit(char digit) {
    static const char digits[] = "0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);
    if (found == NULL) {
        die("'%c' is no hexadecimal digit", digit);
    }
    return (uint8_t)(found - digits);
}

static uint8_t *bytes_from_hex(const char *hex, size_t *length) {
    if (strlen(hex) % 2 != 0) {
        die("half a byte: %.100s", hex);
    }
    *length = strlen(hex) / 2;
    /* One more, since malloc(0) may give NULL. */
    uint8_t *bytes = malloc(*length + 1);
    if (bytes == NULL) {
        die("no memory for %zu bytes", *length);
    }
    for (size_t i = 0; i < *length; i++) {
        bytes[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    }
    return bytes;
}

static void print_hex(const uint8_t *bytes, size_t length) {
    static const char digits[] = "0123456789abcdef";
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        putchar(digits[bytes[i] >> 4]);
        putchar(digits[bytes[i] & 15]);
    }
    putchar('"');
}

/* --- The log --------------------------------------------------------------------------------- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char *log_lines[4096];
static size_t log_count;

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)level;
    (void)target;
    pthread_mutex_lock(&log_lock);
    /* What is too much would be more than any test expects. */
    if (log_count < sizeof log_lines / sizeof log_lines[0]) {
        size_t room = strlen(id) + strlen(message) + sizeof ": ";
        log_lines[log_count] = malloc(room);
        if (log_lines[log_count] == NULL) {
            die("no memory for a line of the log");
        }
        snprintf(log_lines[log_count], room, "%s: %s", id, message);
        log_count++;
    }
    pthread_mutex_unlock(&log_lock);
}

static void print_log(void) {
    pthread_mutex_lock(&log_lock);
    begin_answer(LAYER_OK);
    fputs(", \"log\": [", stdout);
    for (size_t i = 0; i < log_count; i++) {
        fputs(i == 0 ? "" : ", ", stdout);
        print_string(log_lines[i]);
        free(log_lines[i]);
    }
    log_count = 0;
    pthread_mutex_unlock(&log_lock);
    putchar(']');
    end_answer();
}

/* --- Commands -------------------------------------------------------------------------------- */

static void new_channel(const layer_t *layer) {
    char channel[LAYER_NAME_SIZE];
    layer_error_t *error = NULL;
    layer_status_t status = layer_new_channel(layer, NULL, channel, sizeof channel, &error);
    if (status != LAYER_OK) {
        answer(status, error);
        return;
    }
    begin_answer(status);
    print_field("channel", channel);
    end_answer();
}

typedef layer_status_t (*send_bytes)(const layer_t *, const char *, const uint8_t *, size_t,
                                     layer_error_t **);

static void send_hex(const layer_t *layer, send_bytes call, const char *to, const char *hex) {
    size_t length;
    uint8_t *bytes = bytes_from_hex(hex, &length);
    layer_error_t *error = NULL;
    layer_status_t status = call(layer, to, bytes, length, &error);
    free(bytes);
    answer(status, error);
}

/* layer_send_json and its like, and those that take a group and a channel. */
typedef layer_status_t (*two_strings)(const layer_t *, const char *, const char *,
                                      layer_error_t **);

static void call_with(const layer_t *layer, two_strings call, const char *first,
                      const char *second) {
    layer_error_t *error = NULL;
    layer_status_t status = call(layer, first, second, &error);
    answer(status, error);
}

static void receive(const layer_t *layer, const char *channel, const char *milliseconds) {
    layer_error_t *error = NULL;
    layer_message_t *message = NULL;
    uint32_t timeout = (uint32_t)strtoul(milliseconds, NULL, 10);
    layer_status_t status = layer_receive_next(layer, channel, timeout, &message, &error);
    if (status != LAYER_OK) {
        answer(status, error);
        return;
    }
    begin_answer(status);
    print_field("channel", layer_message_channel(message));
    print_field("group", layer_message_group(message));
    print_field("type", layer_message_type(message));
    size_t length = 0;
    const uint8_t *data = layer_message_data(message, &length);
    fputs(", \"data\": ", stdout);
    print_hex(data, length);
    const char *json = NULL;
    if (layer_message_json(message, &json, &error) == LAYER_OK) {
        printf(", \"json\": %s", json);
    } else {
        print_field("json_error", layer_error_message(error));
        layer_error_free(error);
    }
    end_answer();
    layer_message_free(message);
}

static void wait_ready(const layer_t *layer, const char *milliseconds) {
    layer_error_t *error = NULL;
    layer_status_t status =
        layer_wait_ready(layer, (uint32_t)strtoul(milliseconds, NULL, 10), &error);
    answer(status, error);
}

static void stat(const layer_t *layer, const char *number) {
    layer_error_t *error = NULL;
    uint64_t value = 0;
    layer_status_t status = layer_stat(layer, (uint32_t)strtoul(number, NULL, 10), &value, &error);
    if (status != LAYER_OK) {
        answer(status, error);
        return;
    }
    begin_answer(status);
    printf(", \"value\": %" PRIu64, value);
    end_answer();
}

static void prometheus(const layer_t *layer, const char *labels) {
    layer_error_t *error = NULL;
    char text[32768];
    layer_status_t status = layer_stats_prometheus(layer, labels, text, sizeof text, NULL, &error);
    if (status != LAYER_OK) {
        answer(status, error);
        return;
    }
    begin_answer(status);
    print_field("text", text);
    end_answer();
}

static void obey(const layer_t *layer, char *line) {
    char *rest = line;
    const char *command = strsep(&rest, " ");
    if (strcmp(command, "new-channel") == 0) {
        new_channel(layer);
        return;
    }
    if (strcmp(command, "log") == 0) {
        print_log();
        return;
    }
    const char *first = strsep(&rest, " ");
    if (strcmp(command, "wait-ready") == 0 && first != NULL) {
        wait_ready(layer, first);
        return;
    }
    if (strcmp(command, "stat") == 0 && first != NULL) {
        stat(layer, first);
        return;
    }
    if (strcmp(command, "prometheus") == 0 && first != NULL) {
        prometheus(layer, first);
        return;
    }
    if (first == NULL || rest == NULL) {
        die("'%s' wants two arguments", command);
    }
    if (strcmp(command, "send") == 0) {
        send_hex(layer, layer_send, first, rest);
    } else if (strcmp(command, "group-send") == 0) {
        send_hex(layer, layer_group_send, first, rest);
    } else if (strcmp(command, "send-json") == 0) {
        call_with(layer, layer_send_json, first, rest);
    } else if (strcmp(command, "group-send-json") == 0) {
        call_with(layer, layer_group_send_json, first, rest);
    } else if (strcmp(command, "group-add") == 0) {
        call_with(layer, layer_group_add, first, rest);
    } else if (strcmp(command, "group-discard") == 0) {
        call_with(layer, layer_group_discard, first, rest);
    } else if (strcmp(command, "receive") == 0) {
        receive(layer, first, rest);
    } else {
        die("there is no command '%s'", command);
    }
}

/* --- The process ----------------------------------------------------------------------------- */

static void print_record(void *userdata, layer_log_level_t level, const char *id,
                         const char *target, const char *message) {
    (void)userdata;
    fprintf(stderr, "log %d %s %s %s\n", (int)level, id, target, message);
}

/* Whether `name` was one of our own words and no option. */
static bool is_our_own(layer_config_t *config, const char *name, const char *value,
                       uint32_t *ready_ms) {
    if (strcmp(name, "ready-ms") == 0) {
        *ready_ms = (uint32_t)strtoul(value, NULL, 10);
        return true;
    }
    if (strcmp(name, "log") == 0 && strcmp(value, "stderr") == 0) {
        if (layer_config_on_log(config, print_record, NULL, NULL, NULL) != LAYER_OK) {
            die("the log cannot be had");
        }
        return true;
    }
    return false;
}

/* Whether the layer was opened and is ready; answers either way. */
static layer_t *open_layer(char **options) {
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    uint32_t ready_ms = 20000;
    layer_status_t status = layer_config_on_log(config, on_log, NULL, NULL, &error);
    for (; *options != NULL && status == LAYER_OK; options++) {
        char *value = *options;
        const char *name = strsep(&value, "=");
        if (value == NULL) {
            die("'%s' is not OPTION=VALUE", name);
        }
        if (!is_our_own(config, name, value, &ready_ms)) {
            status = layer_config_set(config, name, value, &error);
        }
    }
    layer_t *layer = NULL;
    if (status == LAYER_OK) {
        status = layer_new(config, &layer, &error);
    }
    layer_config_free(config);
    if (status == LAYER_OK) {
        status = layer_wait_ready(layer, ready_ms, &error);
    }
    answer(status, error);
    if (status != LAYER_OK) {
        layer_free(layer);
        return NULL;
    }
    return layer;
}

int main(int argc, char **argv) {
    (void)argc;
    layer_t *layer = open_layer(argv + 1);
    if (layer == NULL) {
        return 1;
    }
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        if (line[length - 1] == '\n') {
            line[length - 1] = '\0';
        }
        obey(layer, line);
    }
    free(line);
    layer_error_t *error = NULL;
    layer_status_t status = layer_close(layer, 10000, &error);
    if (status != LAYER_OK) {
        fprintf(stderr, "peer: close: %s: %s\n", layer_status_name(status),
                layer_error_message(error));
    }
    layer_error_free(error);
    layer_free(layer);
    return status == LAYER_OK ? 0 : 1;
}
