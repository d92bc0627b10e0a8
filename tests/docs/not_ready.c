/* Prints the first record in which a layer says why it is not ready: not_ready OPTION=VALUE... */

#include <semaphore.h>
#include <string.h>

#include "must.h"

typedef struct {
    sem_t said;
    char why[1024];
} record_t;

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    record_t *record = userdata;
    (void)id;
    (void)target;
    if (level <= LAYER_LOG_WARN && record->why[0] == '\0') {
        snprintf(record->why, sizeof record->why, "%s", message);
        sem_post(&record->said);
    }
}

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    record_t record = {.why = ""};
    sem_init(&record.said, 0, 0);
    layer_config_t *config = layer_config_new();
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) {
            fprintf(stderr, "usage: %s OPTION=VALUE...\n", argv[0]);
            return 2;
        }
        *value++ = '\0';
        must(layer_config_set(config, argv[i], value, &error), &error, argv[i]);
    }
    must(layer_config_on_log(config, on_log, &record, NULL, &error), &error, "set the log");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    while (sem_wait(&record.said) != 0) {
    }
    printf("%s\n", record.why);
    layer_free(layer);
    sem_destroy(&record.said);
    return 0;
}
