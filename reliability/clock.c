/* A clock of one's own for the processes that preload this: CLOCK_REALTIME plus the seconds in $CLOCK_OFFSET_FILE.

   Waits until a time of that clock are cut into slices, so that they follow a jump as they do when the system's own
   clock is set. The monotonic clock is left alone: it never jumps. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 20000000L

static volatile long *offset;

__attribute__((constructor)) static void map_offset(void) {
    const char *name = getenv("CLOCK_OFFSET_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) offset = memory;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

/* Whether the time has come; if not, when the next slice ends on the monotonic clock. A condition variable may have been
   told to use that clock itself: its times are those since the machine was started. */
static int is_over(const struct timespec *until, struct timespec *slice) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (until->tv_sec < 500000000L) clock_gettime(CLOCK_MONOTONIC, &now);
    long left = (until->tv_sec - now.tv_sec) > 1 ? SLICE_NS
                                                 : (until->tv_sec - now.tv_sec) * 1000000000L + until->tv_nsec - now.tv_nsec;
    if (left <= 0) return 1;
    clock_gettime(CLOCK_MONOTONIC, slice);
    slice->tv_nsec += left < SLICE_NS ? left : SLICE_NS;
    if (slice->tv_nsec >= 1000000000L) {
        slice->tv_nsec -= 1000000000L;
        slice->tv_sec += 1;
    }
    return 0;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec slice;
    if (is_over(until, &slice)) return ETIMEDOUT;
    int result = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &slice);
    /* Waking without a reason is allowed: the caller looks, and waits again. */
    return result == ETIMEDOUT ? 0 : result;
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec slice;
    int result = pthread_mutex_trylock(mutex);
    while (result == EBUSY || result == ETIMEDOUT) {
        if (is_over(until, &slice)) return ETIMEDOUT;
        result = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &slice);
    }
    return result;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec slice;
    while (sem_trywait(semaphore)) {
        if (errno != EAGAIN) return -1;
        if (is_over(until, &slice)) {
            errno = ETIMEDOUT;
            return -1;
        }
        if (!sem_clockwait(semaphore, CLOCK_MONOTONIC, &slice)) return 0;
        if (errno != ETIMEDOUT) return -1;
    }
    return 0;
}
