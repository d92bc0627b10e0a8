/*
 * layer_config_check: it refuses what layer_new refuses, with the same error, and neither starts a
 * thread nor opens a socket while it looks: the kernel kills a process that does either.
 */
#define _GNU_SOURCE

#include <channel_layer.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    failures++;
}

static const char certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBNDCB56ADAgECAhR1AWi+AdC9wQ47Biu7TYeOSl28hTAFBgMrZXAwDzENMAsG\n"
    "A1UEAwwEdGVzdDAgFw0yNjExMzAxNzU2NDFaGA8yMTI2MTEwNjE3NTY0MVowDzEN\n"
    "MAsGA1UEAwwEdGVzdDAqMAUGAytlcAMhAJJPmoqEttS4kPcsa4qiU+dlQq+ddfi1\n"
    "sBjp9T6OnDiEo1MwUTAdBgNVHQ4EFgQU3X/73piK9DQ964YTj+erM115CSgwHwYD\n"
    "VR0jBBgwFoAU3X/73piK9DQ964YTj+erM115CSgwDwYDVR0TAQH/BAUwAwEB/zAF\n"
    "BgMrZXADQQDh9oGdYPgLwcfuaZ5BXpZG1SZ30X0WhKKuuirlvne9ywbao7Bf4ETO\n"
    "c/XLJjkpXCyTj8jU0baHJosyyyo/lfsE\n"
    "-----END CERTIFICATE-----\n";
/* Of that certificate, made for this test. */
static const char key[] = "-----BEGIN PRIVATE KEY-----\n"
                          "MC4CAQAwBQYDK2VwBCIEIJMi/jy+S5KTcvEJRWRRfpIyG5Wk8aq0Mqgd1PTjcc90\n"
                          "-----END PRIVATE KEY-----\n";
static const char damaged[] =
    "-----BEGIN CERTIFICATE-----\n?no base64?\n-----END CERTIFICATE-----\n";

#define AMQPS "host", "amqps://me:secret@nowhere.invalid/"

/* Options by name and value; a path stands in the folder of the test unless it begins with '/'. */
static const struct {
    layer_status_t expected;
    const char *options[9];
} rows[] = {
    {LAYER_OK, {NULL}},
    {LAYER_OK, {"host", "memory://check"}},
    {LAYER_OK, {"expiry", "30", "dispatch", "poll", "local_capacity", "0"}},
    {LAYER_OK, {AMQPS}}, /* The system's authorities are in a file of ours. */
    {LAYER_OK, {AMQPS, "tls_ca_file", "certificate.pem"}},
    {LAYER_OK, {AMQPS, "tls_ca_pem", certificate}},
    {LAYER_OK,
     {AMQPS, "tls_ca_file", "certificate.pem", "tls_cert_file", "certificate.pem", "tls_key_file",
      "key.pem"}},
    {LAYER_OK, {"host", "memory://check", "tls_ca_file", "missing.pem"}},
    {LAYER_INVALID, {"tls_ca_file", "certificate.pem"}}, /* Nothing would be encrypted. */
    {LAYER_INVALID, {"host", "amqps://1.2.3/", "tls_ca_file", "certificate.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_cert_file", "certificate.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_key_file", "key.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_file", "missing.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_file", "/"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_file", "/dev/null"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_file", "key.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_file", "damaged.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_ca_pem", damaged}},
    {LAYER_INVALID, {AMQPS, "tls_ca_pem", "no certificate"}},
    {LAYER_INVALID, {AMQPS, "tls_cert_file", "certificate.pem", "tls_key_file", "damaged.pem"}},
    {LAYER_INVALID, {AMQPS, "tls_cert_file", "key.pem", "tls_key_file", "key.pem"}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static layer_config_t *configs[ROWS];
static layer_error_t *errors[ROWS];
static char folder[] = "/tmp/config_check.XXXXXX";

static const char *in_folder(const char *name) {
    static char path[sizeof folder + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text) {
    FILE *file = fopen(in_folder(name), "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0) {
        fail("cannot write %s: %s", name, strerror(errno));
    }
}

static void make_configs(void) {
    for (size_t i = 0; i < ROWS; i++) {
        configs[i] = layer_config_new();
        for (const char *const *option = rows[i].options; option[0] != NULL; option += 2) {
            const char *name = option[0], *value = option[1];
            if (strstr(name, "_file") != NULL && value[0] != '/') {
                value = in_folder(value);
            }
            if (layer_config_set(configs[i], name, value, NULL) != LAYER_OK) {
                fail("row %zu: option %s=%s is not taken", i, name, value);
            }
        }
    }
}

static void each_config_is_checked(void) {
    for (size_t i = 0; i < ROWS; i++) {
        layer_status_t status = layer_config_check(configs[i], &errors[i]);
        if (status != rows[i].expected) {
            fail("row %zu: %s, not %s: %s", i, layer_status_name(status),
                 layer_status_name(rows[i].expected), layer_error_message(errors[i]));
        }
        if ((status == LAYER_OK) != (errors[i] == NULL)) {
            fail("row %zu: %s, and the error is %p", i, layer_status_name(status),
                 (void *)errors[i]);
        }
        if (layer_config_check(configs[i], NULL) != status) {
            fail("row %zu: another status without a place for the error", i);
        }
    }
    if (layer_config_check(NULL, NULL) != LAYER_OK) {
        fail("the defaults are refused");
    }
}

static void opening_says_the_same(void) {
    for (size_t i = 0; i < ROWS; i++) {
        layer_t *layer = NULL;
        layer_error_t *error = NULL;
        layer_status_t status = layer_new(configs[i], &layer, &error);
        const char *checked = layer_error_message(errors[i]), *opened = layer_error_message(error);
        if (status != rows[i].expected || strcmp(opened, checked) != 0) {
            fail("row %zu: layer_new says %s, '%s'; layer_config_check said '%s'", i,
                 layer_status_name(status), opened, checked);
        }
        layer_error_free(error);
        layer_free(layer);
    }
}

/* From now on the kernel kills this process where it starts a thread or opens a socket. */
static void forbid_threads_and_sockets(void) {
#define KILL_AT(number)                                                                            \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),                                             \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL_AT(SYS_socket),
        KILL_AT(SYS_clone),
        KILL_AT(SYS_clone3),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof instructions / sizeof instructions[0], instructions};
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        fail("no filter for system calls: %s", strerror(errno));
    }
}

static void a_layer_is_opened(void) {
    layer_t *layer = NULL;
    if (layer_new(configs[1], &layer, NULL) != LAYER_OK) {
        fail("no layer");
    }
}

/* How a child process ends that does this while it may neither start a thread nor open a socket. */
static int status_of_confined(void (*act)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        forbid_threads_and_sockets();
        act();
        fflush(stdout);
        _exit(failures != 0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        fail("no child: %s", strerror(errno));
    }
    return status;
}

int main(void) {
    if (mkdtemp(folder) == NULL) {
        perror("mkdtemp");
        return 1;
    }
    write_file("certificate.pem", certificate);
    write_file("key.pem", key);
    write_file("damaged.pem", damaged);
    setenv("SSL_CERT_FILE", in_folder("certificate.pem"), 1);
    make_configs();

    int status = status_of_confined(each_config_is_checked);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fail("a check ends a process that may start no thread and open no socket: %d", status);
    }
    /* Else that would say nothing. */
    status = status_of_confined(a_layer_is_opened);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
        fail("a layer starts a thread, and the filter lets it: %d", status);
    }
    each_config_is_checked();
    opening_says_the_same();

    for (size_t i = 0; i < ROWS; i++) {
        layer_error_free(errors[i]);
        layer_config_free(configs[i]);
    }
    static const char *const files[] = {"certificate.pem", "key.pem", "damaged.pem"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        unlink(in_folder(files[i]));
    }
    rmdir(folder);
    return failures != 0;
}
