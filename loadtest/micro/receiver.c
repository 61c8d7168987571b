/* Many WebSocket connections in one process that does nothing but read: the receiver of every fan-out benchmark.

       receiver PORT COUNT [CHANNEL]

   Opens COUNT connections to 127.0.0.1:PORT, asks each for an upgrade of /ws, and subscribes to CHANNEL on each that is
   open. Polls without ever sleeping once told to, so that a sender never pays for waking it. Commands on standard
   input, one a line, each answered with one line of JSON:

       poll    read without sleeping from now on
       sleep   wait for data in the kernel instead
       begin   forget what was counted
       report  frames, payload bytes, latencies, what each tick took
       storm   close every connection at once, open all again, each resuming where it stood; answered when all are in
               step again, which is when they have had a frame that is younger than IN_STEP_NS, or after STORM_NS;
               says how many were told that they resume, how often one was told that frames were left out, and how many
               connections were reset before anything came, and tried again
       quit    end

   Latency is the time of receipt minus the `sent_ns` that a frame carries (msgpack, or eight bytes as msgpack has
   them), both on CLOCK_REALTIME; `sent_ns` counts from the `origin_unix_ms` of the server's hello, where there is one.
   A tick is complete when every connection has its frame; frames are told apart by their sent_ns. A state frame whose
   `base` is not the `seq` before it is counted as a gap. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 1024,
    READ_BYTES = 1 << 18,
    HEAD_BYTES = 512,       /* of a frame: fields that are looked at come first, but sent_ns may come late */
    OPENING_MAX = 256,      /* connections that may wait for their upgrade at a time */
    BUCKET_NS = 50000,      /* of the latency histogram */
    BUCKETS = 200000,       /* up to 10 s */
    TICKS = 1 << 16,
    PER_ADDRESS = 20000,    /* connections from one address of 127/8: there are 28,000 ports */
    MESSAGE_BYTES = 128,    /* of a subscribe message with its frame */
    AGAIN_MAX = 10          /* connections in a storm that are tried again; of 10,000 one was, now and then */
};

static const uint64_t IN_STEP_NS = 200000000u, STORM_NS = 60000000000u;

enum state { CLOSED, UPGRADING, OPEN };

struct connection {
    int fd;
    enum state state;
    uint32_t kept;          /* bytes of head that are filled: of the answer, or of the frame under way */
    uint64_t rest;          /* bytes of the payload that are still to come */
    uint64_t length;        /* of the payload under way */
    uint8_t header;         /* bytes of the frame's header that are there */
    uint8_t opcode;
    uint32_t seq;           /* of the last state frame, 0 before */
    uint8_t in_step;        /* since the last storm */
    uint8_t frame[14];
    uint8_t head[HEAD_BYTES];
};

static struct connection *connections;
static int count, port, opened, opening, closed_early, epoll_fd;
static char request[512], epoch[17];
static const char *channel;
static uint8_t *buffer;
static int storms, in_step, again;
static uint32_t *histogram;
static uint64_t frames, bytes, gaps, resumed, lagged, late_max_ns, origin_ns;
static struct { uint64_t sent_ns, last_ns; uint32_t count; } ticks[TICKS];
static uint32_t tick_count;
static int has_command;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "receiver: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Read an unsigned msgpack integer; return how many bytes it has, 0 if it is none. */
static size_t integer(const uint8_t *at, size_t left, uint64_t *value) {
    int width = 0;
    if (left == 0) return 0;
    if (*at < 0x80) { *value = *at; return 1; }
    if (*at >= 0xcc && *at <= 0xcf) width = 1 << (*at - 0xcc);
    if (width == 0 || left <= (size_t)width) return 0;
    *value = 0;
    for (int i = 1; i <= width; i++) *value = *value << 8 | at[i];
    return 1 + (size_t)width;
}

/* Return the unsigned msgpack integer behind a key, or none. */
static int number(const uint8_t *head, size_t length, const char *key, uint64_t none, uint64_t *value) {
    size_t size = strlen(key);
    const uint8_t *at = memmem(head, length, key, size);
    *value = none;
    if (at == NULL) return 0;
    at += size;
    return integer(at, length - (size_t)(at - head), value) > 0;
}

/* Read the head of a delta, a list: channel, seq, ticks since its base, sent_ns. */
static int delta(const uint8_t *head, size_t length, uint64_t *seq, uint64_t *base, uint64_t *sent) {
    uint64_t values[4];
    size_t at = 1;
    if (length == 0 || (head[0] & 0xf0) != 0x90) return 0;
    for (int i = 0; i < 4; i++) {
        size_t size = integer(head + at, length - at, &values[i]);
        if (size == 0) return 0;
        at += size;
    }
    *seq = values[1];
    *base = values[1] - values[2];
    *sent = values[3];
    return 1;
}

static void watch(struct connection *one, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    if (epoll_ctl(epoll_fd, operation, one->fd, &event) < 0) fail("epoll_ctl");
}

static void open_one(struct connection *one) {
    int index = (int)(one - connections);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    /* another address in each storm: the ports of the last one are not free yet */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / PER_ADDRESS + 4 * storms));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->kept = one->header = one->in_step = 0;
    one->rest = 0;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0) fail("socket");
    int yes = 1;
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(one->fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind");
    if (connect(one->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect");
    one->state = UPGRADING;
    opening++;
    watch(one, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void lose(struct connection *one) {
    close(one->fd);
    if (one->state == UPGRADING && one->kept == 0 && storms > 0 && again < AGAIN_MAX) {
        /* the kernel of the server had no room in its queue, and resets who waited for too long: once more */
        opening--;
        again++;
        open_one(one);
        return;
    }
    if (one->state == UPGRADING) { fprintf(stderr, "receiver: refused: %.*s\n", (int)one->kept, one->head); opening--; }
    else opened--;
    closed_early++;
    one->state = CLOSED;
}

static void send_all(struct connection *one, const void *data, size_t length) {
    if (send(one->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length) lose(one);
}

static size_t text(uint8_t *at, const char *value) {
    size_t length = strlen(value);
    at[0] = (uint8_t)(0xa0 | length);
    memcpy(at + 1, value, length);
    return length + 1;
}

/* Subscribe, after the last frame where there was one. The mask is zero: the bytes stay as they are. */
static void subscribe(struct connection *one) {
    uint8_t message[MESSAGE_BYTES] = {0x82};
    size_t at = 6;
    int resumes = one->seq > 0 && epoch[0] != 0;
    message[at++] = resumes ? 0x85 : 0x83;
    at += text(message + at, "op");
    at += text(message + at, "subscribe");
    at += text(message + at, "id");
    message[at++] = 1;
    at += text(message + at, "channel");
    at += text(message + at, channel);
    if (resumes) {
        at += text(message + at, "epoch");
        at += text(message + at, epoch);
        at += text(message + at, "seq");
        message[at++] = 0xce;
        for (int shift = 24; shift >= 0; shift -= 8) message[at++] = (uint8_t)(one->seq >> shift);
    }
    message[1] = (uint8_t)(0x80 | (at - 6));
    send_all(one, message, at);
}

static void take_data(struct connection *one, uint64_t at_ns) {
    uint64_t sent, seq, base, origin_ms;
    if (number(one->head, one->kept, "origin_unix_ms", 0, &origin_ms)) origin_ns = origin_ms * 1000000;
    int is_delta = delta(one->head, one->kept, &seq, &base, &sent);
    int is_data = is_delta
        || (number(one->head, one->kept, "sent_ns", 0, &sent) && memmem(one->head, one->kept, "channel", 7) != NULL);
    if (!is_data) {
        resumed += memmem(one->head, one->kept, "\xa7resumed\xc3", 9) != NULL;
        lagged += memmem(one->head, one->kept, "\xa4type\xa6lagged", 12) != NULL;
        return;
    }
    frames++;
    bytes += one->length;
    if (is_delta) {
        if (one->seq != base) gaps++;
        one->seq = (uint32_t)seq;
    } else if (number(one->head, one->kept, "\xa3seq", 0, &seq) && memmem(one->head, one->kept, "\xa3""ack", 4) == NULL) {
        if (number(one->head, one->kept, "\xa4""base", 0, &base) && one->seq != base) gaps++;
        one->seq = (uint32_t)seq;
        const uint8_t *name = epoch[0] ? NULL : memmem(one->head, one->kept, "\xa5""epoch\xb0", 7);
        if (name != NULL && name + 23 <= one->head + one->kept) memcpy(epoch, name + 7, 16);
    }
    sent += origin_ns;
    uint64_t late = at_ns > sent ? at_ns - sent : 0;
    if (!one->in_step && late < IN_STEP_NS) {
        one->in_step = 1;
        in_step++;
    }
    histogram[late / BUCKET_NS < BUCKETS ? late / BUCKET_NS : BUCKETS - 1]++;
    if (late > late_max_ns) late_max_ns = late;
    uint32_t i = tick_count;
    while (i > 0 && i + 64 > tick_count && ticks[i - 1].sent_ns != sent) i--;
    if (i == 0 || ticks[i - 1].sent_ns != sent) {
        if (tick_count == TICKS) return;
        i = ++tick_count;
        ticks[i - 1].sent_ns = sent;
        ticks[i - 1].count = 0;
    }
    ticks[i - 1].last_ns = at_ns;
    ticks[i - 1].count++;
}

static void take_frame(struct connection *one, uint64_t at_ns) {
    if (one->opcode == 9) {
        uint8_t pong[6 + 125] = {0x8a, (uint8_t)(0x80 | one->length)};
        memcpy(pong + 6, one->head, one->length);
        send_all(one, pong, 6 + one->length);
    } else if (one->opcode == 8) {
        if (one->length >= 2) {
            fprintf(stderr, "receiver: closed with %d: %.*s\n", one->head[0] << 8 | one->head[1],
                    (int)one->length - 2, one->head + 2);
        }
        lose(one);
    } else {
        take_data(one, at_ns);
    }
}

static void take(struct connection *one, const uint8_t *data, size_t length, uint64_t at_ns) {
    while (length > 0 && one->state == OPEN) {
        if (one->rest == 0) {
            one->frame[one->header++] = *data++;
            length--;
            uint8_t size = one->header > 1 ? one->frame[1] & 127 : 0;
            uint8_t full = size == 126 ? 4 : size == 127 ? 10 : 2;
            if (one->header < full) continue;
            one->length = size < 126 ? size : 0;
            for (int i = 2; i < full; i++) one->length = one->length << 8 | one->frame[i];
            one->opcode = one->frame[0] & 15;
            one->rest = one->length;
            one->kept = 0;
            one->header = 0;
            if (one->length == 0) take_frame(one, at_ns);
            continue;
        }
        size_t part = length < one->rest ? length : one->rest;
        size_t keep = part < HEAD_BYTES - one->kept ? part : HEAD_BYTES - one->kept;
        memcpy(one->head + one->kept, data, keep);
        one->kept += (uint32_t)keep;
        one->rest -= part;
        data += part;
        length -= part;
        if (one->rest == 0) take_frame(one, at_ns);
    }
}

static void upgrade(struct connection *one, uint32_t events) {
    if (events & EPOLLOUT && one->kept == 0) {
        int before = again;
        watch(one, EPOLLIN, EPOLL_CTL_MOD);
        send_all(one, request, strlen(request));
        /* what was told is of the connection before */
        if (again != before) return;
    }
    /* byte for byte up to the end of the headers: it happens once, and frames may follow at once */
    while (one->state == UPGRADING && recv(one->fd, one->head + one->kept, 1, 0) == 1) {
        if (++one->kept == HEAD_BYTES) { lose(one); return; }
        if (one->kept >= 4 && memcmp(one->head + one->kept - 4, "\r\n\r\n", 4) == 0) {
            if (memcmp(one->head, "HTTP/1.1 101", 12) != 0) { lose(one); return; }
            one->state = OPEN;
            one->kept = 0;
            opening--;
            opened++;
            if (channel != NULL) subscribe(one);
        }
    }
    if (one->state == UPGRADING && events & (EPOLLERR | EPOLLHUP)) lose(one);
}

static void turn(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);
    for (int i = 0; i < ready; i++) {
        struct connection *one = events[i].data.ptr;
        if (one == NULL) { has_command = 1; continue; }
        if (one->state == UPGRADING) upgrade(one, events[i].events);
        if (one->state != OPEN) continue;
        ssize_t got = recv(one->fd, buffer, READ_BYTES, 0);
        if (got > 0) take(one, buffer, (size_t)got, now_ns());
        else if (got == 0 || errno != EAGAIN) {
            fprintf(stderr, "receiver: lost: %s\n", got == 0 ? "the end" : strerror(errno));
            lose(one);
        }
    }
}

static void open_all(void) {
    int next = 0;
    while (opened + closed_early < count) {
        while (next < count && opening < OPENING_MAX) open_one(&connections[next++]);
        turn(10);
    }
}

static void storm(void) {
    uint64_t began = now_ns(), all_open = 0, all_in_step = 0;
    int before = opened, lost = closed_early;
    storms++;
    opened = in_step = again = 0;
    gaps = resumed = lagged = 0;
    for (int i = 0; i < count; i++) if (connections[i].state == OPEN) close(connections[i].fd);
    for (int i = 0; i < count; i++) {
        if (connections[i].state != OPEN) continue;
        open_one(&connections[i]);
        /* let go of nothing: answers that come meanwhile are taken */
        if (i % OPENING_MAX == 0) turn(0);
    }
    while (now_ns() - began < STORM_NS && all_in_step == 0) {
        turn(10);
        if (all_open == 0 && opened == before) all_open = now_ns();
        if (in_step == before) all_in_step = now_ns();
    }
    printf("{\"connections\": %d, \"open\": %d, \"in_step\": %d, \"lost\": %d, \"gaps\": %llu, "
           "\"resumed\": %llu, \"lagged\": %llu, \"again\": %d, \"open_s\": %.3f, "
           "\"in_step_s\": %.3f}\n", before, opened, in_step, closed_early - lost, (unsigned long long)gaps,
           (unsigned long long)resumed, (unsigned long long)lagged, again,
           all_open ? (double)(all_open - began) / 1e9 : -1.0, all_in_step ? (double)(all_in_step - began) / 1e9 : -1.0);
}

static void begin(void) {
    memset(histogram, 0, BUCKETS * sizeof *histogram);
    frames = bytes = gaps = lagged = late_max_ns = tick_count = 0;
}

static double percentile_ms(double share) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total > 0 && (double)seen >= share * (double)total) return (double)(i + 1) * BUCKET_NS / 1e6;
    }
    return 0.0;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How long ticks took until their last receiver had them; the first and the last one seen may be cut and are left out. */
static void report(void) {
    static double took[TICKS];
    int whole = 0, partial = 0, late = 0;
    for (uint32_t i = 1; i + 1 < tick_count; i++) {
        if (ticks[i].count < (uint32_t)opened) partial++;
        if (ticks[i].last_ns > ticks[i + 1].sent_ns) late++;
        took[whole++] = (double)(ticks[i].last_ns - ticks[i].sent_ns) / 1e6;
    }
    qsort(took, (size_t)whole, sizeof *took, by_size);
    printf("{\"open\": %d, \"closed_early\": %d, \"frames\": %llu, \"payload_bytes\": %llu, \"gaps\": %llu, \"lagged\": %llu, "
           "\"latency_ms\": {\"p50\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"max\": %.3f}, "
           "\"ticks\": %d, \"ticks_partial\": %d, \"ticks_late\": %d, \"tick_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}}\n",
           opened, closed_early, (unsigned long long)frames, (unsigned long long)bytes, (unsigned long long)gaps, (unsigned long long)lagged,
           percentile_ms(0.5), percentile_ms(0.99), percentile_ms(0.999), (double)late_max_ns / 1e6, whole, partial, late,
           whole ? took[whole / 2] : 0.0, whole ? took[whole * 99 / 100] : 0.0, whole ? took[whole - 1] : 0.0);
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: receiver PORT COUNT [CHANNEL]\n"); return 2; }
    port = atoi(argv[1]);
    count = atoi(argv[2]);
    snprintf(request, sizeof request,
             "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
             port);
    channel = argc > 3 ? argv[3] : NULL;
    if (channel != NULL && strlen(channel) > 31) { fprintf(stderr, "receiver: no such channel\n"); return 2; }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    buffer = malloc(READ_BYTES);
    histogram = calloc(BUCKETS, sizeof *histogram);
    connections = calloc((size_t)count, sizeof *connections);
    if (buffer == NULL || histogram == NULL || connections == NULL) fail("memory");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1");
    open_all();
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &commands) < 0) fail("epoll_ctl");
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("{\"open\": %d, \"closed_early\": %d}\n", opened, closed_early);
    char line[256];
    size_t filled = 0;
    int timeout_ms = -1;
    for (;;) {
        turn(timeout_ms);
        if (!has_command) continue;
        has_command = 0;
        ssize_t got = read(0, line + filled, sizeof line - filled - 1);
        if (got == 0) return 0;
        if (got < 0) continue;
        filled += (size_t)got;
        line[filled] = 0;
        char *end = strchr(line, '\n');
        if (end == NULL) continue;
        *end = 0;
        if (strcmp(line, "quit") == 0) return 0;
        if (strcmp(line, "report") == 0) report();
        else if (strcmp(line, "storm") == 0) storm();
        else {
            if (strcmp(line, "poll") == 0) timeout_ms = 0;
            else if (strcmp(line, "sleep") == 0) timeout_ms = -1;
            else if (strcmp(line, "begin") == 0) begin();
            else { fprintf(stderr, "receiver: no such command: %s\n", line); return 2; }
            printf("{}\n");
        }
        filled = 0;
    }
}
