/* Counts calls that change files below a folder, and at call n kills or fails: LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, KILL, TORN, ENOSPACE, EINOUT, SHORT };

static char root[PATH_MAX];
static int mode, armed;
static long target, counted;

void torture_arm(const char *folder, int how, long n) {
    strncpy(root, folder, sizeof root - 1);
    mode = how; target = n; counted = 0; armed = 1;
}
long torture_counted(void) { armed = 0; return counted; }

static int below(const char *path) { return path && !strncmp(path, root, strlen(root)); }
static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return below(path);
}
/* 0: go on; 1: this is the call; 2: it fails, errno is set */
static int due(void) {
    long n = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (mode == OFF || n < target) return 0;
    if (n > target && mode != ENOSPACE) return 0; /* a full disk stays full */
    if (mode == KILL) kill(getpid(), SIGKILL);
    if (mode == ENOSPACE) { errno = ENOSPC; return 2; }
    if (mode == EINOUT) { errno = EIO; return 2; }
    return 1;
}
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)
#define WRITES(call, length, half) \
    if (fd_below(fd)) { \
        int is = due(); \
        if (is == 2) return -1; \
        if (is == 1 && (length) > 1) { \
            ssize_t done = half; \
            if (mode == TORN) kill(getpid(), SIGKILL); \
            return done; \
        } \
        if (is == 1 && mode == TORN) kill(getpid(), SIGKILL); \
    } \
    return call

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITES(real(fd, data, n), n, real(fd, data, n / 2));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    WRITES(real(fd, data, n, at), n, real(fd, data, n / 2, at));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITES(real(fd, data, n, at), n, real(fd, data, n / 2, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    WRITES(real(fd, parts, n), n, real(fd, parts, n / 2));
}
/* Calls without data: those that free space never fail for want of it. */
#define PLAIN(watched, frees, call) \
    if (armed && (watched)) { \
        int is = due(); \
        if (is == 2 && !((frees) && mode == ENOSPACE)) return -1; \
        if (is == 1 && mode == TORN) kill(getpid(), SIGKILL); \
    } \
    return call

int fsync(int fd) { REAL(int, "fsync", int); PLAIN(fd_below(fd), 0, real(fd)); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); PLAIN(fd_below(fd), 0, real(fd)); }
int ftruncate(int fd, off_t n) {
    REAL(int, "ftruncate", int, off_t); PLAIN(fd_below(fd), 1, real(fd, n));
}
int ftruncate64(int fd, off64_t n) {
    REAL(int, "ftruncate64", int, off64_t); PLAIN(fd_below(fd), 1, real(fd, n));
}
int rename(const char *a, const char *b) {
    REAL(int, "rename", const char *, const char *); PLAIN(below(b), 0, real(a, b));
}
int renameat(int d, const char *a, int e, const char *b) {
    REAL(int, "renameat", int, const char *, int, const char *);
    PLAIN(below(b), 0, real(d, a, e, b));
}
int unlink(const char *a) { REAL(int, "unlink", const char *); PLAIN(below(a), 1, real(a)); }
int unlinkat(int d, const char *a, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    PLAIN(below(a) || fd_below(d), 1, real(d, a, flags));
}
