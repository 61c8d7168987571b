/* Tells when the machine itself stood still: a real-time thread on each processor asks to be woken every half
 * millisecond, and nothing of this system but the kernel's own work can keep it waiting.
 *
 *     stalls
 *
 * Prints {"granted": true} when it watches, false when the system refuses a real-time thread, then answers `report` on
 * standard input with {"stalls": [[begin, end], ...]}, seconds of the monotonic clock. Shorter ones than SHORTEST_S are
 * left out: so long the kernel takes to bring a batch of packets. Ends with its standard input. Linux.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PERIOD_NS 500000
#define SHORTEST_S 0.003
#define KEPT 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double stalls[KEPT][2];
static int count;

static void note(double begin, double end) {
    pthread_mutex_lock(&lock);
    if (count < KEPT) {
        stalls[count][0] = begin;
        stalls[count][1] = end;
        count++;
    }
    pthread_mutex_unlock(&lock);
}

static double seconds(const struct timespec *moment) { return moment->tv_sec + moment->tv_nsec / 1e9; }

static void *watch(void *unused) {
    (void)unused;
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (;;) {
        due.tv_nsec += PERIOD_NS;
        if (due.tv_nsec >= 1000000000) {
            due.tv_nsec -= 1000000000;
            due.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (seconds(&now) - seconds(&due) >= SHORTEST_S) note(seconds(&due), seconds(&now));
        if (seconds(&now) > seconds(&due)) due = now;
    }
    return NULL;
}

static int start(int processor) {
    pthread_t thread;
    pthread_attr_t attributes;
    cpu_set_t one;
    struct sched_param priority = {.sched_priority = 50};
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
    pthread_attr_setschedparam(&attributes, &priority);
    pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
    return pthread_create(&thread, &attributes, watch, NULL);
}

int main(void) {
    cpu_set_t ours;
    char line[64];
    int refused = sched_getaffinity(0, sizeof ours, &ours);
    for (int processor = 0; processor < CPU_SETSIZE && !refused; processor++)
        if (CPU_ISSET(processor, &ours)) refused = start(processor);
    printf("{\"granted\": %s}\n", refused ? "false" : "true");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "report\n")) continue;
        pthread_mutex_lock(&lock);
        printf("{\"stalls\": [");
        for (int i = 0; i < count; i++) printf("%s[%.6f, %.6f]", i ? ", " : "", stalls[i][0], stalls[i][1]);
        printf("]}\n");
        pthread_mutex_unlock(&lock);
        fflush(stdout);
    }
    return 0;
}
