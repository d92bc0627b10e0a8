// The header needs nothing before it, can be included twice, and links from C++.
#include "channel_layer.h"

#include "channel_layer.h"

static_assert(sizeof(layer_status_t) == 4, "a status is an int32_t in C++ too");
static_assert(sizeof(layer_state_t) == 4, "a state is an int32_t in C++ too");

int main() {
    layer_status_t status = LAYER_OK;
    return status == LAYER_OK && layer_abi_version() == LAYER_ABI_VERSION ? 0 : 1;
}
