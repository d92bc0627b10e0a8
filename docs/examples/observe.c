/* What a layer reports: log records, isolation, counters and gauges: observe [HOST] */

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "must.h"

/* [log] */
static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    static const char *const names[] = {"", "ERROR", "WARN", "INFO", "DEBUG"};
    FILE *file = userdata;
    if (level <= LAYER_LOG_INFO) {
        fprintf(file, "%s %s %s: %s\n", names[level], target, id, message);
    }
}
/* [end] */

/* [isolation] */
static void on_isolation(void *userdata, layer_isolation_t event, const char *channel,
                         uint64_t count) {
    FILE *file = userdata;
    switch (event) {
    case LAYER_ISOLATION_BEGAN:
        fprintf(file, "channels are isolated, %" PRIu64 " messages wait\n", count);
        break;
    case LAYER_ISOLATION_LOST: /* the newest of this channel, which does not keep up */
        fprintf(file, "%s lost %" PRIu64 " messages\n", channel ? channel : "others", count);
        break;
    case LAYER_ISOLATION_ENDED:
        fprintf(file, "isolation has ended, %" PRIu64 " messages were lost\n", count);
        break;
    }
}
/* [end] */

/* [stat] */
static uint64_t stat_of(const layer_t *layer, layer_stat_t which) {
    uint64_t value = 0;
    return layer_stat(layer, which, &value, NULL) == LAYER_OK ? value : 0;
}

/* What a health check looks at. */
static void report(const layer_t *layer) {
    printf("backlog %" PRIu64 ", held %" PRIu64 ", in flight %" PRIu64 "\n",
           stat_of(layer, LAYER_STAT_BACKLOG), stat_of(layer, LAYER_STAT_DELIVERIES_HELD),
           stat_of(layer, LAYER_STAT_IN_FLIGHT));
    printf("confirmed %" PRIu64 ", full %" PRIu64 ", unknown %" PRIu64 ", expired %" PRIu64 "\n",
           stat_of(layer, LAYER_STAT_SENDS_CONFIRMED), stat_of(layer, LAYER_STAT_SENDS_FULL),
           stat_of(layer, LAYER_STAT_SENDS_UNKNOWN), stat_of(layer, LAYER_STAT_DROPPED_EXPIRED));
    printf("isolating %" PRIu64 ", lost by full channels %" PRIu64 "\n",
           stat_of(layer, LAYER_STAT_ISOLATING),
           stat_of(layer, LAYER_STAT_DROPPED_CHANNEL_FULL) +
               stat_of(layer, LAYER_STAT_DROPPED_TOTAL_FULL));
}
/* [end] */

/* [prometheus] */
/* What a server answers at /metrics, to be freed; NULL if it cannot be made. */
static char *metrics(const layer_t *layer) {
    const char *labels = "site=\"a\"";
    size_t length = 0;
    if (layer_stats_prometheus(layer, labels, NULL, 0, &length, NULL) != LAYER_OK) {
        return NULL;
    }
    char *text = malloc(length + 1);
    if (text != NULL &&
        layer_stats_prometheus(layer, labels, text, length + 1, NULL, NULL) != LAYER_OK) {
        free(text);
        text = NULL;
    }
    return text;
}
/* [end] */

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://observe", &error), &error,
         "set the host");
    /* [on log] */
    must(layer_config_on_log(config, on_log, stderr, NULL, &error), &error, "set the log");
    /* [end] */
    /* [on isolation] */
    must(layer_config_on_isolation(config, on_isolation, stderr, NULL, &error), &error,
         "watch isolation");
    /* [end] */
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    char channel[LAYER_NAME_SIZE];
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");
    must(layer_send_json(layer, channel, "{\"type\": \"hello\"}", &error), &error, "send");
    report(layer);
    char *text = metrics(layer);
    bool told = text != NULL && strstr(text, "channel_layer_ready{site=\"a\"} 1\n") != NULL;
    free(text);
    uint64_t confirmed = stat_of(layer, LAYER_STAT_SENDS_CONFIRMED);
    layer_free(layer);
    return confirmed == 1 && told ? 0 : 1;
}
