/*
 * Sends, and what becomes of each. A program that includes this defines tell_outcome, which writes
 * into its ledger.
 */
#ifndef FAULTS_SENDING_H
#define FAULTS_SENDING_H

#include "channel_layer.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Userdata that the library has got, and that it has destroyed; and sends that do not wait. */
static atomic_uint_fast64_t given, destroyed;
static atomic_int in_flight;

static void tell_outcome(uint64_t id, layer_status_t status);

/* The userdata of a send that does not wait. */
struct pending {
    uint64_t id;
};

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    const struct pending *pending = userdata;
    (void)error;
    tell_outcome(pending->id, status);
}

static void free_pending(void *userdata) {
    free(userdata);
    atomic_fetch_add(&destroyed, 1);
    atomic_fetch_sub(&in_flight, 1);
}

/* Sends to a group, or where that is NULL to a channel, and tells the outcome, now or later. */
static layer_status_t send_message(layer_t *layer, const char *group, const char *channel,
                                   const uint8_t *message, size_t length, uint64_t id, bool waits) {
    layer_error_t *error = NULL;
    layer_status_t status;
    if (waits) {
        status = group != NULL ? layer_group_send(layer, group, message, length, &error)
                               : layer_send(layer, channel, message, length, &error);
    } else {
        struct pending *pending = malloc(sizeof *pending);
        pending->id = id;
        atomic_fetch_add(&in_flight, 1);
        atomic_fetch_add(&given, 1);
        status = group != NULL ? layer_group_send_async(layer, group, message, length, on_done,
                                                        pending, free_pending, &error)
                               : layer_send_async(layer, channel, message, length, on_done, pending,
                                                  free_pending, &error);
        if (status != LAYER_OK) { /* it has taken nothing */
            free(pending);
            atomic_fetch_sub(&in_flight, 1);
            atomic_fetch_sub(&given, 1);
        }
    }
    if (waits || status != LAYER_OK) {
        tell_outcome(id, status);
    }
    layer_error_free(error);
    return status;
}

/* A number below `below`, and the next state of `random`. */
static uint64_t draw(uint64_t *random, uint64_t below) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

#endif
