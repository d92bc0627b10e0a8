/* The header needs nothing before it, and can be included twice. */
#include "channel_layer.h"

#include "channel_layer.h"

int main(void) {
    layer_status_t status = LAYER_OK;
    return status == LAYER_OK && layer_abi_version() == LAYER_ABI_VERSION ? 0 : 1;
}
