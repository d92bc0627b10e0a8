/* Sends that do not wait, with their userdata from birth to `destroy`: async [HOST] */

#define _POSIX_C_SOURCE 200809L /* for clock_gettime */

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "must.h"

#define MESSAGES 1000

/* [userdata] */
/* Shared by all sends that are under way; the layer's thread counts, main waits. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int done;
    int failed;
} tally_t;

/* One send. `destroy` frees it: once, after `on_done`, whatever becomes of the layer. */
typedef struct {
    tally_t *tally;
    int number;
} job_t;

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    job_t *job = userdata;
    if (status != LAYER_OK) { /* the error is lent to us: not to be freed */
        fprintf(stderr, "message %d: %s\n", job->number, layer_error_message(error));
    }
    pthread_mutex_lock(&job->tally->lock);
    job->tally->done++;
    job->tally->failed += status != LAYER_OK;
    pthread_cond_signal(&job->tally->changed);
    pthread_mutex_unlock(&job->tally->lock);
}
/* [end] */

/* [send] */
/* Whether the message is on its way; if not, nothing was taken, and the job is still ours. */
static bool send_one(layer_t *layer, const char *channel, tally_t *tally, int number) {
    /* {"type": "tick"} as MessagePack */
    static const char tick[] = "\x81\xa4type\xa4tick";
    layer_error_t *error = NULL;
    job_t *job = malloc(sizeof *job);
    if (job == NULL) {
        abort();
    }
    *job = (job_t){.tally = tally, .number = number};
    layer_status_t status = layer_send_async(layer, channel, (const uint8_t *)tick, strlen(tick),
                                             on_done, job, free, &error);
    if (status == LAYER_OK) {
        return true;
    }
    free(job);
    if (status != LAYER_BUSY) {
        must(status, &error, "send");
    }
    layer_error_free(error);
    return false; /* for now: the places are taken, or the broker blocks publishers */
}
/* [end] */

/* [wait] */
/* Waits for an outcome, but not for ever: the broker may block publishers with none under way. */
static void wait_for_place(tally_t *tally, int before) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    pthread_mutex_lock(&tally->lock);
    while (tally->done == before &&
           pthread_cond_timedwait(&tally->changed, &tally->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&tally->lock);
}
/* [end] */

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://async", &error), &error,
         "set the host");
    must(layer_config_set(config, "max_in_flight", "100", &error), &error, "set max_in_flight");
    must(layer_config_set(config, "remote_capacity", "2000", &error), &error, "set the capacity");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    char channel[LAYER_NAME_SIZE];
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");

    tally_t tally = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    for (int sent = 0; sent < MESSAGES;) {
        pthread_mutex_lock(&tally.lock);
        int before = tally.done;
        pthread_mutex_unlock(&tally.lock);
        if (send_one(layer, channel, &tally, sent)) {
            sent++;
            continue;
        }
        wait_for_place(&tally, before);
    }
    pthread_mutex_lock(&tally.lock);
    while (tally.done < MESSAGES) {
        pthread_cond_wait(&tally.changed, &tally.lock);
    }
    pthread_mutex_unlock(&tally.lock);
    must(layer_close(layer, 10000, &error), &error, "close");
    layer_free(layer);
    printf("%d sends done, %d failed\n", tally.done, tally.failed);
    return tally.failed == 0 ? 0 : 1;
}
