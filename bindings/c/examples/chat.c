/*
 * A chat on the channel layer: four members in a room, a word in private, and one who leaves.
 *
 *     chat                      one process, on a broker inside it (memory://demo)
 *     chat amqp://HOST/VHOST    two processes, on RabbitMQ, with two members each
 *
 * It prints what happens and checks it: the exit status is 0 only if every message reached those
 * that it was meant for, in order, and nobody else. Nothing here sleeps: each step waits until it
 * has happened, so that the lines always come in the same order.
 *
 * To be read from the bottom: `main`, `play`, `play_scene`.
 */

#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel_layer.h"

#define READY_MS 15000
#define CLOSE_MS 10000
/* How long an expected message may take; it takes a few milliseconds. */
#define EVENT_SECONDS 20
#define LINE_SIZE 256
#define HEARD_MAX 32

/* --- the script --------------------------------------------------------------------------- */

enum { ALICE, BOB, CAROL, DAVE, MEMBERS, ROOM = -1 };

static const char *const names[MEMBERS] = {"alice", "bob", "carol", "dave"};

typedef enum { ANNOUNCE, SAY, LEAVE } act_t;

typedef struct {
    act_t act;
    int from;
    int to; /* a member, or ROOM */
    const char *text;
} scene_t;

/* One member acts at a time. The texts hold nothing that JSON would have to escape. */
static const scene_t script[] = {
    {ANNOUNCE, ALICE, ROOM, "I am here, and this is my channel."},
    {ANNOUNCE, BOB, ROOM, "So am I, on mine."},
    {ANNOUNCE, CAROL, ROOM, "And I on mine."},
    {ANNOUNCE, DAVE, ROOM, "And I."},
    {SAY, ALICE, ROOM, "Good morning!"},
    {SAY, BOB, ROOM, "Morning, all."},
    {SAY, CAROL, ROOM, "Hello! I have to go soon."},
    {SAY, DAVE, ROOM, "Hi there."},
    {SAY, ALICE, DAVE, "Lunch at noon? Only you can read this."},
    {SAY, DAVE, ALICE, "Gladly."},
    {LEAVE, CAROL, ROOM, NULL},
    {SAY, BOB, ROOM, "Where is carol?"},
    {SAY, DAVE, ROOM, "She has left, and cannot hear us."},
};

/* --- the state ---------------------------------------------------------------------------- */

typedef struct chat chat_t;

typedef struct {
    chat_t *chat;
    const char *name;
    bool local;                    /* lives in this process */
    char channel[LAYER_NAME_SIZE]; /* of a local member */
    bool left;
    size_t expected; /* how many messages should have been heard so far */

    /* By the callbacks, under the chat's mutex. */
    size_t heard_count;
    char heard[HEARD_MAX][LINE_SIZE];
    layer_status_t ended; /* why the receiver was ended; LAYER_OK while it was not */
    int destroyed;
} member_t;

struct chat {
    layer_t *layer;
    char room[LAYER_NAME_SIZE];
    int process; /* 1, or 2 in the child */
    int processes;
    int other;          /* a socket to the other process, or -1 */
    FILE *other_output; /* the parent's: what the child prints comes here */

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    member_t members[MEMBERS];
    /* Whom to write to in private: what the members have announced to the room. */
    char addresses[MEMBERS][LAYER_NAME_SIZE];
};

/* --- printing ----------------------------------------------------------------------------- */

/* Says on stderr what went wrong. Returns false, so that a caller can return it too. */
__attribute__((format(printf, 2, 3))) static bool problem(const chat_t *chat, const char *format,
                                                          ...) {
    char text[4 * LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "chat, process %d: %s\n", chat->process, text);
    return false;
}

/* The same for a call of the library that failed. Takes the error. */
static bool failed(const chat_t *chat, const char *what, layer_error_t *error) {
    problem(chat, "cannot %s: %s: %s", what, layer_status_name(layer_error_status(error)),
            layer_error_message(error));
    layer_error_free(error);
    return false;
}

/* Writes to the other process. If that is gone, this shall fail and not raise SIGPIPE. */
static bool tell_other(const chat_t *chat, const char *text) {
    size_t length = strlen(text);
    return send(chat->other, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* Prints a line that both processes know: only the first one does. */
static void print_title(const chat_t *chat, const char *title) {
    if (chat->process == 1) {
        printf("%s\n", title);
    }
}

/* Prints a line about this process. The second one's goes to the first, which prints it at the end
 * of the step: two writers on one terminal would take turns at random. */
__attribute__((format(printf, 2, 3))) static void print_line(const chat_t *chat, const char *format,
                                                             ...) {
    char line[4 * LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (chat->processes == 1) {
        printf("    %s\n", line);
    } else if (chat->process == 1) {
        printf("    process 1: %s\n", line);
    } else {
        /* If the other one is gone, the next meeting finds out. */
        char told[sizeof line + 32];
        snprintf(told, sizeof told, "    process 2: %s\n", line);
        (void)tell_other(chat, told);
    }
}

#define END_OF_STEP ".\n"

/* Ends a step: the two processes go on together, and the second one's lines get printed. They meet
 * only so that their lines keep their order; all else goes through the layer. */
static bool meet(chat_t *chat) {
    if (chat->processes == 1) {
        return true;
    }
    if (chat->process == 2) {
        char go;
        return (tell_other(chat, END_OF_STEP) && read(chat->other, &go, 1) == 1) ||
               problem(chat, "the other process has ended");
    }
    char line[4 * LINE_SIZE];
    while (fgets(line, sizeof line, chat->other_output) != NULL) {
        if (strcmp(line, END_OF_STEP) == 0) {
            return tell_other(chat, "g") || problem(chat, "the other process has ended");
        }
        fputs(line, stdout);
    }
    return problem(chat, "the other process has ended");
}

/* --- what a message says ------------------------------------------------------------------ */

/* Copies a string out of a flat JSON object; false if it is not there. It is enough for what this
 * program sends itself, in which nothing is escaped; a real one uses its JSON library. */
static bool json_string(const char *json, const char *key, char *out, size_t size) {
    char quoted[32];
    int length = snprintf(quoted, sizeof quoted, "\"%s\"", key);
    for (const char *at = strstr(json, quoted); at != NULL; at = strstr(at + 1, quoted)) {
        const char *value = at + length;
        value += strspn(value, " ");
        if (*value != ':') {
            continue; /* the text of another value */
        }
        value += 1 + strspn(value + 1, " ");
        size_t count = *value == '"' ? strcspn(value + 1, "\"\\") : size;
        if (count >= size || value[1 + count] != '"') {
            return false;
        }
        memcpy(out, value + 1, count);
        out[count] = '\0';
        return true;
    }
    return false;
}

/* The line that stands for a message, here where it is expected and there where it is heard. */
static void write_line(char line[LINE_SIZE], const char *from, const char *to, const char *text) {
    /* Names are cut to what they are at most, so that the line always has room. */
    snprintf(line, LINE_SIZE, "%.63s to %.32s: %.127s", from, to, text);
}

static const char *target_name(int to) { return to == ROOM ? "the room" : names[to]; }

/* Reads a message. Where it is not as this program writes them, the line says so, and will not be
 * the one that is expected. */
static void describe(const member_t *member, const layer_message_t *message, char line[LINE_SIZE],
                     char from[LINE_SIZE], char address[LAYER_NAME_SIZE]) {
    char text[LINE_SIZE / 2] = "";
    const char *json;
    const char *group = layer_message_group(message);
    const char *type = layer_message_type(message);
    layer_error_t *error = NULL;
    from[0] = address[0] = '\0';
    if (strcmp(layer_message_channel(message), member->channel) != 0) {
        snprintf(line, LINE_SIZE, "a message of another channel");
    } else if (group != NULL && strcmp(group, member->chat->room) != 0) {
        snprintf(line, LINE_SIZE, "a message of another group");
    } else if (layer_message_json(message, &json, &error) != LAYER_OK) {
        snprintf(line, LINE_SIZE, "no JSON: %.200s", layer_error_message(error));
        layer_error_free(error);
    } else if (type == NULL || !json_string(json, "from", from, LINE_SIZE / 4) ||
               !json_string(json, "text", text, sizeof text)) {
        snprintf(line, LINE_SIZE, "unknown: %.200s", json);
    } else if (strcmp(type, "chat.announce") == 0 &&
               !json_string(json, "channel", address, LAYER_NAME_SIZE)) {
        snprintf(line, LINE_SIZE, "an announcement without a channel");
    } else {
        write_line(line, from, group != NULL ? "the room" : member->name, text);
    }
}

/* --- callbacks: they run on a thread of the library --------------------------------------- */

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    member_t *member = userdata;
    chat_t *chat = member->chat;
    char line[LINE_SIZE] = "";
    char from[LINE_SIZE] = "";
    char address[LAYER_NAME_SIZE] = "";
    if (status == LAYER_OK) {
        describe(member, message, line, from, address);
    }

    pthread_mutex_lock(&chat->mutex);
    if (status != LAYER_OK) { /* the last call: the channel was discarded or the layer closed */
        member->ended = status;
    } else if (member->heard_count++ < HEARD_MAX) {
        memcpy(member->heard[member->heard_count - 1], line, sizeof line);
    }
    for (int i = 0; address[0] != '\0' && i < MEMBERS; i++) {
        if (strcmp(from, names[i]) == 0) {
            memcpy(chat->addresses[i], address, sizeof address);
        }
    }
    pthread_cond_broadcast(&chat->changed);
    pthread_mutex_unlock(&chat->mutex);
    return LAYER_CONTINUE;
}

/* The library has let go of the member. A program that had allocated it would free it here. */
static void on_destroy(void *userdata) {
    member_t *member = userdata;
    pthread_mutex_lock(&member->chat->mutex);
    member->destroyed++;
    pthread_cond_broadcast(&member->chat->changed);
    pthread_mutex_unlock(&member->chat->mutex);
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    if (level <= LAYER_LOG_WARN) {
        problem(userdata, "%s: %s: %s", target, id, message);
    }
}

/* --- waiting ------------------------------------------------------------------------------ */

typedef bool (*condition_t)(const member_t *member);

/* Has heard as many messages as it should, or more. */
static bool has_heard(const member_t *member) { return member->heard_count >= member->expected; }

static bool has_ended(const member_t *member) { return member->destroyed > 0; }

/* Waits until the condition holds for a member. False if it does not within EVENT_SECONDS. */
static bool wait_for(member_t *member, condition_t condition) {
    chat_t *chat = member->chat;
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += EVENT_SECONDS;
    pthread_mutex_lock(&chat->mutex);
    int status = 0;
    while (!condition(member) && status == 0) {
        status = pthread_cond_timedwait(&chat->changed, &chat->mutex, &deadline);
    }
    bool holds = condition(member);
    pthread_mutex_unlock(&chat->mutex);
    return holds;
}

/* Waits until a local member has heard the line, and nothing before it that it should not have. */
static bool expect(member_t *member, const char *line) {
    char heard[LINE_SIZE];
    member->expected++;
    if (!wait_for(member, has_heard)) {
        return problem(member->chat, "%s did not hear '%s'", member->name, line);
    }
    pthread_mutex_lock(&member->chat->mutex);
    memcpy(heard, member->heard[member->expected - 1], sizeof heard);
    pthread_mutex_unlock(&member->chat->mutex);
    return strcmp(heard, line) == 0 ||
           problem(member->chat, "%s heard '%s' where '%s' was due", member->name, heard, line);
}

/* --- the acts ----------------------------------------------------------------------------- */

static bool open_layer(chat_t *chat, const char *host) {
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    if (config == NULL) {
        return problem(chat, "out of memory");
    }
    if (layer_config_set(config, "host", host, &error) != LAYER_OK ||
        layer_config_on_log(config, on_log, chat, NULL, &error) != LAYER_OK ||
        layer_new(config, &chat->layer, &error) != LAYER_OK) {
        layer_config_free(config);
        return failed(chat, "open a layer", error);
    }
    layer_config_free(config);
    /* The layer connects by itself and for ever; whoever wants to know when, waits. */
    if (layer_wait_ready(chat->layer, READY_MS, &error) != LAYER_OK) {
        return failed(chat, "reach the broker", error);
    }
    return true;
}

/* Each local member gets a channel, receives on it, and joins the room. */
static bool join(chat_t *chat) {
    for (int i = 0; i < MEMBERS; i++) {
        member_t *member = &chat->members[i];
        layer_error_t *error = NULL;
        if (!member->local) {
            continue;
        }
        /* The name's prefix is for people who read logs. */
        if (layer_new_channel(chat->layer, "chat.", member->channel, sizeof member->channel,
                              &error) != LAYER_OK ||
            layer_receive(chat->layer, member->channel, on_message, member, on_destroy, NULL,
                          &error) != LAYER_OK ||
            layer_group_add(chat->layer, chat->room, member->channel, &error) != LAYER_OK) {
            return failed(chat, "join the room", error);
        }
    }
    return true;
}

static bool speak(chat_t *chat, const scene_t *scene) {
    const char *from = names[scene->from];
    char json[4 * LINE_SIZE];
    layer_error_t *error = NULL;
    layer_status_t status;
    if (scene->act == ANNOUNCE) {
        snprintf(json, sizeof json,
                 "{\"type\": \"chat.announce\", \"from\": \"%s\", \"text\": \"%s\", "
                 "\"channel\": \"%s\"}",
                 from, scene->text, chat->members[scene->from].channel);
    } else {
        snprintf(json, sizeof json, "{\"type\": \"chat.say\", \"from\": \"%s\", \"text\": \"%s\"}",
                 from, scene->text);
    }
    if (scene->to == ROOM) {
        status = layer_group_send_json(chat->layer, chat->room, json, &error);
    } else {
        char address[LAYER_NAME_SIZE];
        pthread_mutex_lock(&chat->mutex);
        memcpy(address, chat->addresses[scene->to], sizeof address);
        pthread_mutex_unlock(&chat->mutex);
        status = layer_send_json(chat->layer, address, json, &error);
    }
    return status == LAYER_OK || failed(chat, "send a message", error);
}

/* What a server does when a client has gone. */
static bool leave(member_t *member) {
    chat_t *chat = member->chat;
    layer_error_t *error = NULL;
    if (layer_group_discard(chat->layer, chat->room, member->channel, &error) != LAYER_OK ||
        layer_channel_discard(chat->layer, member->channel, &error) != LAYER_OK) {
        return failed(chat, "leave the room", error);
    }
    if (!wait_for(member, has_ended)) {
        return problem(chat, "%s's receiver did not end", member->name);
    }
    print_line(chat, "%s's receiver has ended with %s", member->name,
               layer_status_name(member->ended));
    return true;
}

static bool play_scene(chat_t *chat, const scene_t *scene) {
    member_t *actor = &chat->members[scene->from];
    char line[LINE_SIZE];
    if (scene->act == LEAVE) {
        snprintf(line, sizeof line, "%s leaves the room", actor->name);
        print_title(chat, line);
        actor->left = true; /* in both processes */
        return (!actor->local || leave(actor)) && meet(chat);
    }
    write_line(line, actor->name, target_name(scene->to), scene->text);
    print_title(chat, line);
    if (actor->local && !speak(chat, scene)) {
        return false;
    }
    char hearers[LINE_SIZE] = "";
    for (int i = 0; i < MEMBERS; i++) {
        member_t *member = &chat->members[i];
        if (member->local && !member->left && (scene->to == ROOM || scene->to == i)) {
            if (!expect(member, line)) {
                return false;
            }
            strcat(hearers, hearers[0] == '\0' ? "heard by " : ", ");
            strcat(hearers, member->name);
        }
    }
    if (hearers[0] != '\0') {
        print_line(chat, "%s", hearers);
    }
    return meet(chat);
}

/* Closes the layer, after which no callback runs any more, and checks what was heard in all.
 *
 * That carol hears nothing after she has left is no matter of waiting long enough: all messages for
 * a process come through one queue, in order. Dave shares hers, and has heard what came later. */
static bool close_and_check(chat_t *chat) {
    layer_error_t *error = NULL;
    if (layer_close(chat->layer, CLOSE_MS, &error) != LAYER_OK) {
        return failed(chat, "close the layer", error);
    }
    layer_free(chat->layer);
    chat->layer = NULL;
    bool good = true;
    for (int i = 0; i < MEMBERS; i++) {
        const member_t *member = &chat->members[i];
        if (!member->local) {
            continue;
        }
        layer_status_t ending = member->left ? LAYER_CANCELLED : LAYER_CLOSED;
        if (member->heard_count != member->expected) {
            good = problem(chat, "%s heard %zu messages and not %zu", member->name,
                           member->heard_count, member->expected);
        }
        if (member->ended != ending || member->destroyed != 1) {
            good = problem(chat, "%s's receiver ended with %s and not %s, and destroy ran %d times",
                           member->name, layer_status_name(member->ended),
                           layer_status_name(ending), member->destroyed);
        }
        print_line(chat, "%s heard %zu messages%s", member->name, member->heard_count,
                   member->left ? ", none after leaving" : "");
    }
    return good;
}

/* The whole play, in each process. */
static bool play(chat_t *chat, const char *host) {
    if (!open_layer(chat, host)) {
        return false;
    }
    print_title(chat, "alice, bob, carol and dave join the room");
    if (!join(chat) || !meet(chat)) {
        return false;
    }
    for (size_t i = 0; i < sizeof script / sizeof *script; i++) {
        if (!play_scene(chat, &script[i])) {
            return false;
        }
    }
    print_title(chat, "the end");
    return close_and_check(chat) && meet(chat);
}

/* --- one process or two ------------------------------------------------------------------- */

/* Makes the second process. Before any layer is opened: a layer cannot be used across a fork, so
 * that a server that forks its workers lets each of them open its own. */
static bool split(chat_t *chat, pid_t *child) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        return problem(chat, "cannot make a socket pair: %s", strerror(errno));
    }
    chat->processes = 2;
    *child = fork();
    if (*child < 0) {
        return problem(chat, "cannot fork: %s", strerror(errno));
    }
    chat->process = *child == 0 ? 2 : 1;
    chat->other = ends[*child == 0];
    close(ends[*child != 0]);
    if (chat->process == 1) {
        chat->other_output = fdopen(chat->other, "r");
        if (chat->other_output == NULL) {
            return problem(chat, "cannot read from the other process: %s", strerror(errno));
        }
    }
    return true;
}

/* Whether the child has ended well. It ends soon, whatever has happened: closing our end of the
 * socket tells it that we go. */
static bool reap(chat_t *chat, pid_t child) {
    int status;
    if (chat->other_output != NULL) {
        fclose(chat->other_output);
    } else {
        close(chat->other);
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return problem(chat, "cannot wait for the other process: %s", strerror(errno));
        }
    }
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
           problem(chat, "the other process has failed");
}

static bool prepare(chat_t *chat) {
    /* A name of this run: others may be running this program on the same broker. */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(chat->room, sizeof chat->room, "room.%ld.%ld.%ld", (long)getpid(), (long)now.tv_sec,
             now.tv_nsec);
    pthread_condattr_t attributes;
    if (pthread_mutex_init(&chat->mutex, NULL) != 0 || pthread_condattr_init(&attributes) != 0 ||
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&chat->changed, &attributes) != 0) {
        return problem(chat, "cannot make a condition variable");
    }
    pthread_condattr_destroy(&attributes);
    return true;
}

int main(int argc, char **argv) {
    static chat_t chat = {.process = 1, .processes = 1, .other = -1};
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        fprintf(stderr,
                "usage: %s [HOST]\n"
                "HOST: memory://NAME (default memory://demo): one process;\n"
                "      amqp://USER:PASSWORD@HOST/VHOST: two processes on RabbitMQ\n",
                argv[0]);
        return 2;
    }
    const char *host = argc == 2 ? argv[1] : "memory://demo";
    /* Only a broker outside can be shared; what else HOST may be, the library judges. */
    bool shared = strncmp(host, "amqp", strlen("amqp")) == 0;
    pid_t child = -1;
    if (!prepare(&chat) || (shared && !split(&chat, &child))) {
        return 1;
    }
    for (int i = 0; i < MEMBERS; i++) {
        chat.members[i].chat = &chat;
        chat.members[i].name = names[i];
        /* Alice and bob live in the first process, carol and dave in the second, if there is one.
         */
        chat.members[i].local = chat.processes == 1 || chat.process == (i < CAROL ? 1 : 2);
    }
    if (chat.process == 1) {
        setvbuf(stdout, NULL, _IOLBF, 0); /* through a pipe too, lines come as things happen */
        /* Not the address of a broker: it may hold a password. */
        printf("a chat of %d members in %s\n", MEMBERS,
               shared ? "two processes, on RabbitMQ" : "one process");
    }
    bool good = play(&chat, host);
    layer_free(chat.layer); /* NULL unless something failed */
    if (child > 0) {
        good = reap(&chat, child) && good;
    }
    if (chat.process == 1) {
        printf(good ? "every message came, and none that should not have\n" : "FAILED\n");
        if (ferror(stdout) || fflush(stdout) != 0) {
            good = problem(&chat, "cannot write: %s", strerror(errno));
        }
    }
    return good ? 0 : 1;
}
