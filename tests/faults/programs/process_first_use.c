/*
 * Forks at the moment of the first use: process_first_use HOST RUNS.
 *
 * What is set up once in a process is set up by one thread while another forks, at a random moment
 * of it; the child must find nothing half done. Each run is a process of its own, since a first use
 * comes once: process_first_use --once HOST MICROSECONDS.
 */
#include "process.h"

static void *use(void *host) {
    use_and_close(host);
    return NULL;
}

static int once(char *host, double seconds) {
    pthread_t first = start(use, host);
    double until = now() + seconds;
    while (now() < until) {
    }
    pid_t child = fork();
    if (child == 0) {
        use_and_close(host);
        _exit(0);
    }
    int status = end_of(child, 20);
    pthread_join(first, NULL);
    return status == 0 ? 0 : status == -1 ? 1 : 2;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--once") == 0) {
        return once(argv[2], atof(argv[3]) * 1e-6);
    }
    MUST_BE(argc == 3);
    int runs = atoi(argv[2]), hung = 0, wrong = 0;
    char text[64] = "";
    srand48(getpid());
    for (int i = 0; i < runs; i++) {
        char delay[32];
        /* Most of what is set up once is so in the first millisecond. */
        snprintf(delay, sizeof delay, "%.1f", drand48() * (i % 2 ? 200 : 5000));
        pid_t child = fork();
        if (child == 0) {
            execl(argv[0], argv[0], "--once", argv[1], delay, (char *)NULL);
            _exit(98);
        }
        int status = end_of(child, 60);
        hung += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        if (status != 0) {
            wrong++;
            ending(status, text);
        }
    }
    check("a child forked while another thread uses the library first can use it", wrong == 0,
          "%d of %d runs went wrong, in %d the child hung %s", wrong, runs, hung, text);
    return 0;
}
