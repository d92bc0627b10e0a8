/* A program that has two copies of the library: it is linked with the static one and loads the
 * shared one, if it is given its file. Prints the record that says so. */

#include <channel_layer.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata, (void)level, (void)target, (void)message;
    if (strcmp(id, "other_copy") == 0) {
        puts(id);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    layer_t *layer = NULL;
    if (layer_config_set(config, "host", "memory://copies", &error) != LAYER_OK ||
        layer_config_on_log(config, on_log, NULL, NULL, &error) != LAYER_OK ||
        layer_new(config, &layer, &error) != LAYER_OK ||
        layer_wait_ready(layer, 5000, &error) != LAYER_OK ||
        layer_close(layer, 5000, &error) != LAYER_OK) {
        fprintf(stderr, "%s\n", layer_error_message(error));
        return 1;
    }
    layer_free(layer);
    layer_config_free(config);
    return 0;
}
