/* What the examples do with a call that fails: they say why, and end. */

#ifndef MUST_H
#define MUST_H

#include <stdio.h>
#include <stdlib.h>

#include <channel_layer.h>

/* [must] */
/* Takes a pointer to the error, since in must(call(..., &error), error, ...) the compiler may read
 * `error` before the call has written it. */
static void must(layer_status_t status, layer_error_t **error, const char *what) {
    if (status != LAYER_OK) {
        fprintf(stderr, "cannot %s: %s: %s\n", what, layer_status_name(status),
                layer_error_message(*error));
        layer_error_free(*error);
        exit(1);
    }
}
/* [end] */

#endif
