/*
 * What the programs of librabbitmq share: how a connection is opened and closed, and what becomes
 * of an error.
 */

#ifndef BENCH_LIBRABBITMQ_H
#define BENCH_LIBRABBITMQ_H

#include "bench.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

#define CHANNEL 1

static inline void check(amqp_rpc_reply_t reply, const char *what) {
    switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
        return;
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        bench_fail("%s: %s", what, amqp_error_string2(reply.library_error));
    case AMQP_RESPONSE_SERVER_EXCEPTION:
        if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
            amqp_connection_close_t *close = reply.reply.decoded;
            bench_fail("%s: %d %.*s", what, close->reply_code, (int)close->reply_text.len,
                       (char *)close->reply_text.bytes);
        }
        if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
            amqp_channel_close_t *close = reply.reply.decoded;
            bench_fail("%s: %d %.*s", what, close->reply_code, (int)close->reply_text.len,
                       (char *)close->reply_text.bytes);
        }
        bench_fail("%s: the broker sent %s", what, amqp_method_name(reply.reply.id));
    default:
        bench_fail("%s: the broker closed the connection", what);
    }
}

static inline void check_io(int status, const char *what) {
    if (status != AMQP_STATUS_OK) {
        bench_fail("%s: %s", what, amqp_error_string2(status));
    }
}

static inline void open_channel(amqp_connection_state_t connection, amqp_channel_t channel) {
    amqp_channel_open(connection, channel);
    check(amqp_get_rpc_reply(connection), "open a channel");
}

static inline amqp_connection_state_t connect_to(const char *url) {
    struct amqp_connection_info info;
    char *copy = strdup(url); /* amqp_parse_url writes into it */
    /* The address is not repeated in messages: it holds a password. */
    if (copy == NULL || amqp_parse_url(copy, &info) != AMQP_STATUS_OK || info.ssl) {
        bench_fail("CHANNEL_LAYER_TEST_AMQP must be one address, amqp://user:password@host/vhost");
    }
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = connection == NULL ? NULL : amqp_tcp_socket_new(connection);
    if (socket == NULL) {
        bench_fail("out of memory");
    }
    struct timeval timeout = {.tv_sec = 10};
    check_io(amqp_socket_open_noblock(socket, info.host, info.port, &timeout), "connect");
    /* No heartbeat: they would only cost the peer time. */
    check(amqp_login(connection, info.vhost, 0, AMQP_DEFAULT_FRAME_SIZE, 0, AMQP_SASL_METHOD_PLAIN,
                     info.user, info.password),
          "log in");
    open_channel(connection, CHANNEL);
    free(copy);
    return connection;
}

/* Ends the program if the frame is news of a failure. */
static inline void check_frame(const amqp_frame_t *frame, const char *who) {
    if (frame->frame_type != AMQP_FRAME_METHOD) {
        bench_fail("%s: the broker sent a frame of type %d out of turn", who, frame->frame_type);
    }
    /* Its text is part of the reply that `check` knows how to print. */
    amqp_rpc_reply_t reply = {.reply_type = AMQP_RESPONSE_SERVER_EXCEPTION,
                              .reply = frame->payload.method};
    check(reply, who);
}

static inline void next_frame(amqp_connection_state_t connection, amqp_frame_t *frame,
                              const char *who) {
    do {
        check_io(amqp_simple_wait_frame(connection, frame), who);
    } while (frame->frame_type == AMQP_FRAME_HEARTBEAT);
}

/* librabbitmq writes each of a message's three frames by itself. A corked socket makes full packets
 * of them, which the broker takes in at less cost; nothing is held back but while we still write.
 */
static inline void cork(amqp_connection_state_t connection, int on) {
    if (setsockopt(amqp_get_sockfd(connection), IPPROTO_TCP, TCP_CORK, &on, sizeof on)) {
        bench_fail("cannot cork the socket: %s", strerror(errno));
    }
}

static inline void close_connection(amqp_connection_state_t connection) {
    /* What was measured is measured: a failure here changes nothing. */
    (void)amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    (void)amqp_destroy_connection(connection);
}

#endif
