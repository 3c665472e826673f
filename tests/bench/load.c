/* A load of an agent: N clients, each of which sends the next request when it has its reply.
 *
 *   load [-r] [-p MICROSECONDS] [-m COUNT] SOCKET CLIENTS SECONDS <request >figures
 *
 * The request is one frame, sent again and again. -r: a new connection for each, as ssh does. -p: each client
 * rests so long after a reply. -m: end after so many replies. Latency is from before connect() or send() to the
 * last byte of the reply. One process with epoll, and nothing done per request but what is measured; what it can
 * do at most is known from the trivial agent beside it (echo.c). Prints names and numbers, times in microseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_FRAME (4 + 256 * 1024)
#define FAILURE 5
#define GRACE 30.0 /* seconds for replies that are under way when time is up */

struct client {
    int fd; /* -1: not connected */
    int waiting;
    double begun, due; /* seconds; when the request was begun, and when the next one is to be */
    uint32_t got;
    unsigned char head[5]; /* length and type of the reply */
};

static unsigned char request[MAX_FRAME];
static size_t request_size;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int reconnect, queue;
static float *latencies;
static size_t replies, room, failures;
static size_t most = SIZE_MAX;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void connect_client(struct client *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if ((c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        die("socket");
    /* Blocking, to wait while the agent's backlog is full. */
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    if (epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void disconnect_client(struct client *c) {
    close(c->fd);
    c->fd = -1;
}

static void begin(struct client *c) {
    c->begun = now();
    c->waiting = 1;
    c->got = 0;
    if (c->fd < 0)
        connect_client(c);
    for (size_t sent = 0; sent < request_size;) {
        ssize_t n = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (n < 0)
            return; /* the connection's end will be read */
        sent += (size_t)n;
    }
}

static void ended(struct client *c, int failed, double pace) {
    double end = now();
    c->waiting = 0;
    c->due = end + pace;
    failures += (size_t)failed;
    if (replies == room) {
        room = room ? 2 * room : 1 << 16;
        if (!(latencies = realloc(latencies, room * sizeof *latencies)))
            die("realloc");
    }
    latencies[replies++] = (float)((end - c->begun) * 1e6);
    if (reconnect)
        disconnect_client(c);
}

/* Reads what is there; 1 when the reply is whole, -1 when the connection is over. */
static int progress(struct client *c) {
    static unsigned char buffer[MAX_FRAME];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    for (size_t i = 0; i < (size_t)n && c->got + i < sizeof c->head; i++)
        c->head[c->got + i] = buffer[i];
    c->got += (uint32_t)n;
    if (c->got < sizeof c->head)
        return 0;
    uint32_t length = (uint32_t)c->head[0] << 24 | c->head[1] << 16 | c->head[2] << 8 | c->head[3];
    return c->got >= 4 + length;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double q) {
    if (!replies)
        return 0;
    size_t rank = (size_t)(q * (double)replies);
    return latencies[rank < replies ? rank : replies - 1];
}

static void serve(struct client *clients, int count, double seconds, double pace) {
    struct epoll_event events[64];
    double end = now() + seconds;
    int waiting = 0;
    for (;;) {
        double at = now(), next = at + 0.1;
        int over = at >= end || replies >= most;
        waiting = 0;
        for (int i = 0; i < count; i++) {
            if (!clients[i].waiting && !over && clients[i].due <= at)
                begin(&clients[i]);
            waiting += clients[i].waiting;
            if (!clients[i].waiting && clients[i].due < next)
                next = clients[i].due;
        }
        if (over && !waiting)
            return;
        if (at > end + GRACE) {
            failures += (size_t)waiting;
            return;
        }
        int wait = over ? 100 : (int)((next - at) * 1000) + (pace > 0);
        int ready = epoll_wait(queue, events, 64, wait);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            int state = progress(c);
            if (state < 0 && c->fd >= 0)
                disconnect_client(c);
            if (state && c->waiting)
                ended(c, state < 0 || c->head[4] == FAILURE, pace);
        }
    }
}

int main(int argc, char **argv) {
    double pace = 0;
    for (int option; (option = getopt(argc, argv, "rp:m:")) != -1;) {
        switch (option) {
        case 'r': reconnect = 1; break;
        case 'p': pace = atof(optarg) / 1e6; break;
        case 'm': most = (size_t)atoll(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 3 || strlen(argv[optind]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[optind]);
    int count = atoi(argv[optind + 1]);
    request_size = fread(request, 1, sizeof request, stdin);
    struct client *clients = calloc((size_t)count, sizeof *clients);
    if (!clients || (queue = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("start");
    for (int i = 0; i < count; i++)
        clients[i].fd = -1;

    double started = now();
    serve(clients, count, atof(argv[optind + 2]), pace);
    double seconds = now() - started;

    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(latencies, replies, sizeof *latencies, ascending);
    printf("replies %zu\nfailures %zu\nseconds %.6f\np50 %.1f\np99 %.1f\np999 %.1f\nmax %.1f\ncpu %.1f\n", replies,
           failures, seconds, quantile(.5), quantile(.99), quantile(.999), quantile(1),
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec));
    return 0;
}
