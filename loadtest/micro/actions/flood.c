/* A closed-loop HTTP client for benchmarks: each connection sends a request, waits for the whole answer, sends the next.

       flood PORT CONNECTIONS WARM_SECONDS SECONDS FIRST <requests

   Standard input is a list of requests, each as its length in bytes, a line feed, and its bytes; connection i sends
   request i modulo their number. In each of them the first run of twelve # is replaced by a number that is never the
   same, from FIRST on. Connects to 127.0.0.1. Prints one JSON object: answers and their times from the end of the warm
   seconds on, statuses, this program's own processor time, the next number that is free.

   One thread, epoll, no pipelining. It takes answers with Content-Length only. An error ends it with status 1 and a
   line on standard error. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DIGITS 12
#define ANSWER_MAX 65536
/* times are counted in steps of 10 us up to 10 s */
#define STEP_NS 10000
#define STEPS 1000000

struct request {
    char *bytes;
    size_t size;
    char *number; /* where its twelve # were, or NULL */
};

struct connection {
    int socket;
    struct request request;
    uint64_t sent_ns;
    size_t have;    /* bytes of the answer */
    size_t whole;   /* bytes it will have, 0 while its head is not complete */
    int status;
    char answer[ANSWER_MAX];
};

static uint32_t times[STEPS];
static uint64_t statuses[1000];
static uint64_t next_number;

static void fail(const char *what) {
    fprintf(stderr, "flood: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static struct request *read_requests(size_t *count) {
    struct request *requests = NULL;
    size_t size;
    *count = 0;
    while (scanf("%zu", &size) == 1) {
        if (getchar() != '\n') fail("standard input");
        requests = realloc(requests, (*count + 1) * sizeof *requests);
        if (requests == NULL) fail("memory");
        struct request *request = &requests[(*count)++];
        request->size = size;
        request->bytes = malloc(size + 1);
        if (request->bytes == NULL || fread(request->bytes, 1, size, stdin) != size) fail("standard input");
        request->bytes[size] = 0;
    }
    if (*count == 0) fail("standard input");
    return requests;
}

static void begin(struct connection *connection, const struct request *request, int port, int epoll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->socket < 0) fail("socket");
    if (connect(connection->socket, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    int on = 1;
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = connection}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->socket, &event) != 0) fail("epoll");
    connection->request = *request;
    connection->request.bytes = malloc(request->size + 1);
    if (connection->request.bytes == NULL) fail("memory");
    memcpy(connection->request.bytes, request->bytes, request->size + 1);
    connection->request.number = strstr(connection->request.bytes, "############");
}

static void send_next(struct connection *connection) {
    struct request *request = &connection->request;
    if (request->number != NULL) {
        uint64_t number = next_number++;
        for (int i = DIGITS - 1; i >= 0; i--, number /= 10) request->number[i] = (char)('0' + number % 10);
    }
    connection->have = connection->whole = 0;
    connection->sent_ns = now_ns();
    /* a request is small and the one before is answered: it fits */
    if (send(connection->socket, request->bytes, request->size, MSG_NOSIGNAL) != (ssize_t)request->size) fail("send");
}

static void read_head(struct connection *connection) {
    connection->answer[connection->have] = 0;
    char *end = strstr(connection->answer, "\r\n\r\n");
    if (end == NULL) return;
    if (sscanf(connection->answer, "HTTP/1.%*d %3d", &connection->status) != 1) fail("an answer's first line");
    for (char *line = connection->answer; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0)
            connection->whole = (size_t)(end + 4 - connection->answer) + strtoul(line + 15, NULL, 10);
    if (connection->whole == 0) fail("an answer without Content-Length");
    if (connection->whole >= ANSWER_MAX) fail("an answer that is too long");
}

/* Return whether the answer is complete. */
static int receive(struct connection *connection) {
    ssize_t got = recv(connection->socket, connection->answer + connection->have, ANSWER_MAX - 1 - connection->have, 0);
    if (got <= 0) fail("a connection was closed");
    connection->have += (size_t)got;
    if (connection->whole == 0) read_head(connection);
    return connection->whole != 0 && connection->have >= connection->whole;
}

static double percentile_us(uint64_t count, double share) {
    uint64_t wanted = (uint64_t)(share * (double)count), seen = 0;
    for (int step = 0; step < STEPS; step++)
        if ((seen += times[step]) > wanted) return (double)(step + 1) * STEP_NS / 1e3;
    return 0;
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
        + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: flood PORT CONNECTIONS WARM_SECONDS SECONDS FIRST");
    int port = atoi(argv[1]), count = atoi(argv[2]);
    double warm_s = atof(argv[3]), seconds = atof(argv[4]);
    next_number = strtoull(argv[5], NULL, 10);
    size_t kinds;
    struct request *requests = read_requests(&kinds);
    int epoll = epoll_create1(0);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    struct epoll_event *events = calloc((size_t)count, sizeof *events);
    if (epoll < 0 || connections == NULL || events == NULL) fail("memory");
    for (int i = 0; i < count; i++) begin(&connections[i], &requests[(size_t)i % kinds], port, epoll);
    uint64_t begun = now_ns() + (uint64_t)(warm_s * 1e9), end = begun + (uint64_t)(seconds * 1e9), now = 0;
    uint64_t answers = 0, most_ns = 0;
    double cpu_before = -1;
    for (int i = 0; i < count; i++) send_next(&connections[i]);
    while (now < end) {
        int ready = epoll_wait(epoll, events, count, 1000);
        if (ready < 0) fail("epoll");
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!receive(connection)) continue;
            now = now_ns();
            if (now >= begun && now < end) {
                if (cpu_before < 0) cpu_before = cpu_s();
                uint64_t took = now - connection->sent_ns;
                answers++;
                statuses[connection->status]++;
                if (took > most_ns) most_ns = took;
                times[took / STEP_NS < STEPS ? took / STEP_NS : STEPS - 1]++;
            }
            send_next(connection);
        }
        if (ready == 0) fail("a second without an answer");
    }
    printf("{\"answers\": %llu, \"seconds\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"most_us\": %.0f, ",
           (unsigned long long)answers, seconds, percentile_us(answers, .5), percentile_us(answers, .99),
           (double)most_ns / 1e3);
    printf("\"cpu_s\": %.6f, \"next\": %llu, \"statuses\": {", cpu_s() - cpu_before, (unsigned long long)next_number);
    const char *comma = "";
    for (int status = 0; status < 1000; status++)
        if (statuses[status]) {
            printf("%s\"%d\": %llu", comma, status, (unsigned long long)statuses[status]);
            comma = ", ";
        }
    printf("}}\n");
    return 0;
}
