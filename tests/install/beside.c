/* A program that links the static library beside another library of Rust. */

#include <channel_layer.h>
#include <stdint.h>
#include <stdio.h>

uint32_t beside_sum(uint32_t to);

int main(void) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    char name[LAYER_NAME_SIZE];
    layer_config_t *config = layer_config_new();
    if (layer_config_set(config, "host", "memory://beside", &error) != LAYER_OK ||
        layer_new(config, &layer, &error) != LAYER_OK ||
        layer_new_channel(layer, NULL, name, sizeof name, &error) != LAYER_OK ||
        layer_send_json(layer, name, "{\"type\":\"hello\"}", &error) != LAYER_OK) {
        fprintf(stderr, "%s\n", layer_error_message(error));
        return 1;
    }
    layer_message_t *message = NULL;
    if (layer_receive_next(layer, name, 5000, &message, &error) != LAYER_OK) {
        return 1;
    }
    printf("%s and %u\n", layer_message_type(message), (unsigned)beside_sum(4));
    layer_message_free(message);
    layer_free(layer);
    layer_config_free(config);
    return 0;
}
