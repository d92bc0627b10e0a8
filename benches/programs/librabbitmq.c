/*
 * The yardstick: librabbitmq, used as well as a careful C program would, on the same broker, with
 * the same queue, the same bytes on the wire and the same counting (bench.h).
 *
 *     librabbitmq [measure=throughput|latency|connect] [rate=PER_SECOND] [body=BYTES] [window=N]
 *                 [backlog=N] [prefetch=N] [seconds=S] [warmup=S]
 *
 * Two connections and two blocking threads, as librabbitmq wants them. The publisher goes on while
 * its window has room, and reads confirms only when it is full: by then many have come, and most
 * cover several messages. The consumer acks cumulatively, at half of its prefetch (of an odd one at
 * the greater half, so that a prefetch of 1 acks each message).
 */

#include "librabbitmq.h"

#include <poll.h>
#include <semaphore.h>

#define RECIPIENT_ROOM 128 /* more than the recipient takes in a body */
#define TEXT(number) TEXT_(number)
#define TEXT_(number) #number

/* --- publisher ---------------------------------------------------------------------------- */

typedef struct {
    amqp_connection_state_t connection;
    bench_tally_t *tally; /* NULL for a message that is not counted */
    const bench_options_t *options;
    char queue[32];
    /* What travels: the message as the layer sends it, with its recipient. */
    uint8_t *body;
    size_t length;
    uint8_t *seq_at;
    /* The message after the last one that was published, and the oldest unconfirmed one. */
    uint64_t next;
    uint64_t oldest;
    uint64_t in_flight;
    bool confirmed[BENCH_RING]; /* of the messages from `oldest` to `next` */
} publisher_t;

/* The body of bench.h and one key more, "__asgi_channel__", as the layer writes it. */
static void prepare_body(publisher_t *publisher) {
    static const char key[] = "\xb0__asgi_channel__";
    char channel[64];
    int length = snprintf(channel, sizeof channel, "%s!benchbenchbe", publisher->queue);
    size_t used = publisher->options->body;
    uint8_t *body = bench_allocate(used + RECIPIENT_ROOM);
    publisher->body = body;
    bench_body(body, used);
    body[0]++; /* a map of one more */
    memcpy(body + used, key, sizeof key - 1);
    used += sizeof key - 1;
    body[used++] = 0xd9;
    body[used++] = (uint8_t)length;
    memcpy(body + used, channel, (size_t)length);
    publisher->length = used + (size_t)length;
    publisher->seq_at = bench_find_seq(body, publisher->length);
}

static void publish(publisher_t *publisher, uint64_t seq) {
    char id[24];
    int id_length = snprintf(id, sizeof id, "%llu", (unsigned long long)seq);
    amqp_basic_properties_t properties = {
        ._flags =
            AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
        .delivery_mode = AMQP_DELIVERY_NONPERSISTENT,
        .expiration = amqp_cstring_bytes(TEXT(BENCH_EXPIRY_S) "000"),
        .message_id = {.len = (size_t)id_length, .bytes = id},
    };
    bench_write_seq(publisher->seq_at, seq);
    /* Mandatory, as the layer does: else a missing queue would be confirmed silently. */
    check_io(amqp_basic_publish(publisher->connection, CHANNEL, amqp_empty_bytes,
                                amqp_cstring_bytes(publisher->queue), 1, 0, &properties,
                                (amqp_bytes_t){.len = publisher->length, .bytes = publisher->body}),
             "publish");
    publisher->next++;
    publisher->in_flight++;
}

static void confirm(publisher_t *publisher, uint64_t message) {
    bool *confirmed = &publisher->confirmed[message % BENCH_RING];
    if (!*confirmed) {
        *confirmed = true;
        publisher->in_flight--;
        if (publisher->tally != NULL) {
            bench_mark(publisher->tally, message, BENCH_CONFIRMED);
        }
    }
}

/* Waits for a confirm, and takes all that have come with it. */
static void read_confirms(publisher_t *publisher) {
    do {
        amqp_frame_t frame;
        next_frame(publisher->connection, &frame, "publisher");
        if (frame.frame_type != AMQP_FRAME_METHOD ||
            frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
            check_frame(&frame, "publisher"); /* a nack, a return, a closing: nothing we expect */
        }
        const amqp_basic_ack_t *ack = frame.payload.method.decoded;
        uint64_t message = ack->delivery_tag - 1; /* tags begin at 1 */
        if (ack->delivery_tag == 0 || message >= publisher->next) {
            bench_fail("publisher: the broker confirmed what was not sent");
        }
        if (ack->multiple) {
            for (uint64_t each = publisher->oldest; each < message; each++) {
                confirm(publisher, each);
            }
        }
        confirm(publisher, message);
        while (publisher->oldest < publisher->next &&
               publisher->confirmed[publisher->oldest % BENCH_RING]) {
            publisher->confirmed[publisher->oldest++ % BENCH_RING] = false;
        }
        amqp_maybe_release_buffers_on_channel(publisher->connection, CHANNEL);
    } while (amqp_frames_enqueued(publisher->connection) ||
             amqp_data_in_buffer(publisher->connection));
}

static void await_confirms(publisher_t *publisher) {
    while (publisher->in_flight > 0) {
        read_confirms(publisher);
    }
}

static void *publish_until_stopped(void *userdata) {
    publisher_t *publisher = userdata;
    bench_tally_t *tally = publisher->tally;
    while (!atomic_load_explicit(&tally->stop, memory_order_relaxed)) {
        cork(publisher->connection, 1);
        while (publisher->in_flight < publisher->options->window &&
               publisher->next - atomic_load(&tally->received) < tally->backlog) {
            publish(publisher, publisher->next);
        }
        cork(publisher->connection, 0);
        if (publisher->in_flight >= publisher->options->window) {
            read_confirms(publisher);
        }
        bench_wait_backlog(tally, publisher->next);
    }
    await_confirms(publisher);
    publisher->tally = NULL; /* the last one is not counted */
    publish(publisher, BENCH_LAST);
    await_confirms(publisher);
    return NULL;
}

/* Sends by the clock, and between two messages reads the confirms that are there. The loop is open:
 * the window does not hold it back, so that a late message makes no later one late, as layer_send.c
 * has it. */
static void publish_by_the_clock(publisher_t *publisher, const bench_pace_t *pace) {
    struct pollfd socket = {.fd = amqp_get_sockfd(publisher->connection), .events = POLLIN};
    while (publisher->next < pace->end) {
        int64_t now = bench_now(), due = bench_due(pace, publisher->next);
        if (now < due) {
            struct timespec left = {(due - now) / 1000000000, (due - now) % 1000000000};
            int ready = ppoll(&socket, 1, &left, NULL);
            if (ready < 0 && errno != EINTR) {
                bench_fail("publisher: cannot wait: %s", strerror(errno));
            }
            if (ready > 0) {
                read_confirms(publisher);
            }
            continue;
        }
        cork(publisher->connection, 1);
        while (publisher->next < pace->end && bench_due(pace, publisher->next) <= now &&
               publisher->in_flight < BENCH_PACED_IN_FLIGHT) {
            publish(publisher, publisher->next);
        }
        cork(publisher->connection, 0);
        if (publisher->in_flight >= BENCH_PACED_IN_FLIGHT) {
            read_confirms(publisher);
        }
    }
    await_confirms(publisher);
}

/* --- consumer ----------------------------------------------------------------------------- */

typedef struct {
    amqp_connection_state_t connection;
    const bench_options_t *options;
    bench_tally_t *tally; /* NULL where latency is measured */
    /* Latency at rest: when the message arrived. */
    _Atomic int64_t arrived;
    sem_t arrival;
    /* Latency at a rate: all that arrived. */
    const bench_pace_t *pace;
    bench_samples_t samples;
    uint64_t seen;
} consumer_t;

/* Reads one message into `body`: frame by frame, since amqp_consume_message allocates and copies
 * what nobody looks at here. Returns its length. */
static size_t next_message(consumer_t *consumer, uint8_t *body, size_t room, uint64_t *tag) {
    amqp_frame_t frame;
    next_frame(consumer->connection, &frame, "consumer");
    if (frame.frame_type != AMQP_FRAME_METHOD ||
        frame.payload.method.id != AMQP_BASIC_DELIVER_METHOD) {
        check_frame(&frame, "consumer");
    }
    *tag = ((amqp_basic_deliver_t *)frame.payload.method.decoded)->delivery_tag;
    next_frame(consumer->connection, &frame, "consumer");
    if (frame.frame_type != AMQP_FRAME_HEADER) {
        bench_fail("consumer: a message has no header");
    }
    uint64_t length = frame.payload.properties.body_size;
    if (length > room) {
        bench_fail("consumer: a message of %llu bytes came", (unsigned long long)length);
    }
    for (size_t used = 0; used < length;) {
        next_frame(consumer->connection, &frame, "consumer");
        if (frame.frame_type != AMQP_FRAME_BODY ||
            frame.payload.body_fragment.len > length - used) {
            bench_fail("consumer: the body of a message is not what its header says");
        }
        memcpy(body + used, frame.payload.body_fragment.bytes, frame.payload.body_fragment.len);
        used += frame.payload.body_fragment.len;
    }
    amqp_maybe_release_buffers_on_channel(consumer->connection, CHANNEL);
    return (size_t)length;
}

static void paced(consumer_t *consumer, uint64_t seq, int64_t arrived) {
    if (seq != consumer->seen) {
        bench_fail("message %llu arrived where %llu was due", (unsigned long long)seq,
                   (unsigned long long)consumer->seen);
    }
    consumer->seen++;
    if (seq >= consumer->pace->first) {
        bench_sample(&consumer->samples, arrived - bench_due(consumer->pace, seq));
    }
}

static void *consume_until_last(void *userdata) {
    consumer_t *consumer = userdata;
    uint64_t acked = 0, ack_every = (consumer->options->prefetch + 1) / 2;
    size_t room = consumer->options->body + RECIPIENT_ROOM;
    uint8_t *body = bench_allocate(room);
    for (;;) {
        uint64_t tag;
        size_t length = next_message(consumer, body, room, &tag);
        int64_t arrived = consumer->tally == NULL ? bench_now() : 0;
        uint64_t seq = bench_read_seq(body, length);
        if (seq == BENCH_LAST) {
            free(body);
            return NULL;
        }
        if (consumer->tally != NULL) {
            bench_received(consumer->tally, 1, seq);
        } else if (consumer->pace != NULL) {
            paced(consumer, seq, arrived);
        } else {
            atomic_store(&consumer->arrived, arrived);
            sem_post(&consumer->arrival);
        }
        if (tag - acked >= ack_every) {
            check_io(amqp_basic_ack(consumer->connection, CHANNEL, tag, 1), "ack");
            acked = tag;
        }
    }
}

static void declare_and_consume(amqp_connection_state_t connection, const char *queue,
                                uint64_t prefetch) {
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("x-max-length"),
         {.kind = AMQP_FIELD_KIND_I32, .value.i32 = BENCH_CAPACITY}},
        {amqp_cstring_bytes("x-overflow"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("reject-publish")}},
        {amqp_cstring_bytes("x-message-ttl"),
         {.kind = AMQP_FIELD_KIND_I32, .value.i32 = BENCH_EXPIRY_S * 1000}},
    };
    amqp_table_t arguments = {.num_entries = sizeof entries / sizeof *entries, .entries = entries};
    amqp_bytes_t name = amqp_cstring_bytes(queue);
    amqp_queue_declare(connection, CHANNEL, name, 0, 0, 1, 0, arguments);
    check(amqp_get_rpc_reply(connection), "declare the queue");
    amqp_basic_qos(connection, CHANNEL, 0, (uint16_t)prefetch, 0);
    check(amqp_get_rpc_reply(connection), "set the prefetch");
    amqp_basic_consume(connection, CHANNEL, name, amqp_empty_bytes, 0, 0, 1, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "consume");
}

/* --- what is measured --------------------------------------------------------------------- */

/* Both connections, up to where messages can be sent and arrive. */
static void connect_both(publisher_t *publisher, consumer_t *consumer) {
    const bench_options_t *options = publisher->options;
    consumer->connection = connect_to(options->url);
    publisher->connection = connect_to(options->url);
    /* As long as the layer's queue names. */
    snprintf(publisher->queue, sizeof publisher->queue, "channels_%012llx",
             (unsigned long long)bench_now() & 0xffffffffffff);
    declare_and_consume(consumer->connection, publisher->queue, options->prefetch);
    amqp_confirm_select(publisher->connection, CHANNEL);
    check(amqp_get_rpc_reply(publisher->connection), "ask for confirms");
}

static void throughput(publisher_t *publisher, consumer_t *consumer) {
    const bench_options_t *options = publisher->options;
    bench_tally_t *tally = bench_tallies(options);
    publisher->tally = tally;
    consumer->tally = tally;
    pthread_t consuming = bench_thread(consume_until_last, consumer);
    pthread_t publishing = bench_thread(publish_until_stopped, publisher);
    bench_measure_t measure = bench_measure(tally, options);
    pthread_join(publishing, NULL);
    pthread_join(consuming, NULL);
    uint64_t sent = publisher->next - 1; /* less the last */
    if (atomic_load(&tally->complete) != sent) {
        bench_fail("of %llu messages %llu were confirmed and received", (unsigned long long)sent,
                   (unsigned long long)atomic_load(&tally->complete));
    }
    bench_print_throughput(&measure, options->body, "");
}

static void latency_at_rest(publisher_t *publisher, consumer_t *consumer) {
    const bench_options_t *options = publisher->options;
    bench_samples_t samples = {0};
    sem_init(&consumer->arrival, 0, 0);
    pthread_t consuming = bench_thread(consume_until_last, consumer);
    int64_t begin = bench_now() + (int64_t)(options->warmup * 1e9);
    int64_t end = begin + (int64_t)(options->seconds * 1e9);
    for (;;) {
        int64_t sent = bench_now();
        if (sent >= end) {
            break;
        }
        publish(publisher, publisher->next);
        await_confirms(publisher);
        while (sem_wait(&consumer->arrival) != 0) {
        }
        if (sent >= begin) {
            bench_sample(&samples, atomic_load(&consumer->arrived) - sent);
        }
    }
    publish(publisher, BENCH_LAST);
    pthread_join(consuming, NULL);
    bench_print_latency(&samples, "");
}

static void latency_at_rate(publisher_t *publisher, consumer_t *consumer) {
    const bench_options_t *options = publisher->options;
    bench_pace_t pace = bench_pace(options);
    consumer->pace = &pace;
    pthread_t consuming = bench_thread(consume_until_last, consumer);
    publish_by_the_clock(publisher, &pace);
    publish(publisher, BENCH_LAST);
    pthread_join(consuming, NULL);
    if (consumer->seen != pace.end) {
        bench_fail("of %llu messages %llu arrived", (unsigned long long)pace.end,
                   (unsigned long long)consumer->seen);
    }
    char more[64];
    snprintf(more, sizeof more, ", \"rate\": %.1f", options->rate);
    bench_print_latency(&consumer->samples, more);
}

static int64_t connect_once(const bench_options_t *options) {
    consumer_t consumer = {.options = options};
    publisher_t *publisher = bench_allocate(sizeof *publisher);
    publisher->options = options;
    int64_t start = bench_now();
    connect_both(publisher, &consumer);
    int64_t taken = bench_now() - start;
    close_connection(publisher->connection);
    close_connection(consumer.connection);
    free(publisher);
    return taken;
}

int main(int argc, char **argv) {
    (void)argc;
    bench_options_t options = bench_options(argv);
    static consumer_t consumer;
    static publisher_t publisher;
    if (options.connect) {
        bench_connect(&options, connect_once);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (options.producers != 1 || options.blocking) {
        bench_fail("one thread publishes here; window=N says how many messages are in flight");
    }
    if (options.prefetch == 0 || options.prefetch > UINT16_MAX) {
        bench_fail("prefetch is from 1 to %d: a cumulative ack covers half of it", UINT16_MAX);
    }
    consumer.options = &options;
    publisher.options = &options;
    connect_both(&publisher, &consumer);
    prepare_body(&publisher);
    if (!options.latency) {
        throughput(&publisher, &consumer);
    } else if (options.rate > 0) {
        latency_at_rate(&publisher, &consumer);
    } else {
        latency_at_rest(&publisher, &consumer);
    }
    close_connection(publisher.connection);
    close_connection(consumer.connection);
    return fflush(stdout) == 0 ? 0 : 1;
}
