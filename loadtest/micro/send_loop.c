/* The least a server can do for a fan-out: one send for each connection and tick, nothing else.

       send_loop COUNT BYTES

   Listens on a free port of 127.0.0.1, prints it, accepts COUNT connections and answers each request with a WebSocket
   upgrade. Then each line `N` on standard input sends N frames of BYTES payload to all, one every 100 ms, and prints
   the number of frames that were sent whole. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const uint8_t MARK[] = {0xa7, 'c', 'h', 'a', 'n', 'n', 'e', 'l', 0xc0, 0xa7, 's', 'e', 'n', 't', '_', 'n', 's', 0xcf};

static void fail(const char *what) {
    fprintf(stderr, "send_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: send_loop COUNT BYTES\n"); return 2; }
    int count = atoi(argv[1]), size = atoi(argv[2]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int *peers = malloc((size_t)count * sizeof *peers);
    for (int i = 0; i < count; i++) {
        char request[4096];
        peers[i] = accept(listener, NULL, NULL);
        if (peers[i] < 0) fail("accept");
        size_t got = 0;
        do {
            ssize_t more = recv(peers[i], request + got, sizeof request - got, 0);
            if (more <= 0) fail("recv");
            got += (size_t)more;
        } while (memmem(request, got, "\r\n\r\n", 4) == NULL);
        if (send(peers[i], ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0) fail("send");
    }
    uint8_t *frame = calloc(1, (size_t)size + 4);
    frame[0] = 0x82;
    frame[1] = 126;
    frame[2] = (uint8_t)(size >> 8);
    frame[3] = (uint8_t)size;
    memcpy(frame + 4, MARK, sizeof MARK);
    uint8_t *stamp = frame + 4 + sizeof MARK;

    int ticks;
    while (scanf("%d", &ticks) == 1) {
        uint64_t due = now_ns(CLOCK_MONOTONIC);
        long long sent = 0;
        for (int tick = 0; tick < ticks; tick++, due += 100000000u) {
            struct timespec until = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            uint64_t at = now_ns(CLOCK_REALTIME);
            for (int i = 0; i < 8; i++) stamp[i] = (uint8_t)(at >> (56 - 8 * i));
            for (int i = 0; i < count; i++)
                sent += send(peers[i], frame, (size_t)size + 4, MSG_NOSIGNAL | MSG_DONTWAIT) == size + 4;
        }
        printf("%lld\n", sent);
        fflush(stdout);
    }
    return 0;
}
