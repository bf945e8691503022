/* Counts calls that change files below a folder, and at call n kills or fails; or writes down every
   such call with its bytes, for power.py to replay: LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* CREATE_*: only calls that make a file or a folder are counted. */
enum { OFF, KILL, TORN, ENOSPACE, EINOUT, SHORT, CREATE_COUNT, CREATE_ENOSPACE, CREATE_EINOUT };

static char root[PATH_MAX];
static int mode, armed, journal = -1;
static long target, counted;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void torture_arm(const char *folder, int how, long n) {
    strncpy(root, folder, sizeof root - 1);
    mode = how; target = n; counted = 0; armed = 1;
}
long torture_counted(void) { armed = 0; return counted; }
static int truly_open(const char *path, int flags, int rights) {
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    return real(path, flags, rights);
}
static void taken(void) { pthread_mutex_lock(&turn); }
static void given(void) { pthread_mutex_unlock(&turn); }
/* Write down what is done below the folder; programs that are started do so too. */
void torture_record(const char *folder, const char *path) {
    setenv("TORTURE_ROOT", folder, 1);
    setenv("TORTURE_JOURNAL", path, 1);
    static int once;
    if (!once++) pthread_atfork(taken, given, given);
    journal = truly_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    torture_arm(folder, OFF, 0);
}
__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("TORTURE_ROOT"), *path = getenv("TORTURE_JOURNAL");
    if (folder && path) torture_record(folder, path);
}

static int below(const char *path) {
    return armed && path && !strncmp(path, root, strlen(root));
}
static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return 1;
}
static int fd_below(int fd) {
    char path[PATH_MAX];
    return armed && path_of(fd, path) && below(path);
}
/* The whole path of one that is relative to an open folder. */
static const char *whole(int folder, const char *name, char *path) {
    if (!name || name[0] == '/') return name;
    if (folder == AT_FDCWD) {
        if (!getcwd(path, PATH_MAX)) return name;
    } else if (!path_of(folder, path)) return name;
    size_t n = strlen(path);
    snprintf(path + n, PATH_MAX - n, "/%s", name);
    return path;
}
static ssize_t (*truly_writev)(int, const struct iovec *, int);
static void note(char what, unsigned long long node, long long at, const void *data, size_t n,
                 const char *a, const char *b) {
    char head[128];
    size_t n_a = a ? strlen(a) : 0, n_b = b ? strlen(b) : 0;
    int n_head = snprintf(head, sizeof head, "%c %llu %lld %zu %zu %zu\n", what, node, at, n_a,
                          n_b, n);
    struct iovec parts[4] = {{head, n_head}, {(void *)a, n_a}, {(void *)b, n_b}, {(void *)data, n}};
    if (!truly_writev) truly_writev = dlsym(RTLD_NEXT, "writev");
    if (truly_writev(journal, parts, 4) != (ssize_t)(n_head + n_a + n_b + n))
        fprintf(stderr, "torture: the journal could not be written\n");
}
static unsigned long long node_of(int fd) {
    struct stat is;
    return fstat(fd, &is) ? 0 : is.st_ino;
}
static unsigned long long node_at(const char *path) {
    struct stat is;
    return lstat(path, &is) ? 0 : is.st_ino;
}
static void noted_fd(char what, int fd, long long at, const void *data, size_t n) {
    char path[PATH_MAX];
    int kept = errno;
    if (path_of(fd, path) && below(path)) note(what, node_of(fd), at, data, n, path, NULL);
    errno = kept;
}
static int recording(void) { return armed && journal >= 0; }
/* 0: go on; 1: this is the call; 2: it fails, errno is set */
static int due(void) {
    if (mode >= CREATE_COUNT) return 0;
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
/* The place in the file goes down before the call: it moves. */
#define PLACE \
    long long place = 0; \
    if (recording() && fd_below(fd)) { \
        struct stat is; \
        int appends = fcntl(fd, F_GETFL) & O_APPEND; \
        place = appends && !fstat(fd, &is) ? is.st_size : lseek(fd, 0, SEEK_CUR); \
    }
#define RECORDED(call, at, data) \
    if (recording()) { \
        pthread_mutex_lock(&turn); \
        ssize_t done = call; \
        if (done > 0) noted_fd('w', fd, at, data, done); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
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
    PLACE RECORDED(real(fd, data, n), place, data)
    WRITES(real(fd, data, n), n, real(fd, data, n / 2));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    RECORDED(real(fd, data, n, at), at, data)
    WRITES(real(fd, data, n, at), n, real(fd, data, n / 2, at));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    RECORDED(real(fd, data, n, at), at, data)
    WRITES(real(fd, data, n, at), n, real(fd, data, n / 2, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (recording() && fd_below(fd)) { /* one after the other, as they are written down so */
        ssize_t total = 0;
        for (int i = 0; i < n; i++) {
            ssize_t done = parts[i].iov_len ? write(fd, parts[i].iov_base, parts[i].iov_len) : 0;
            if (done < 0) return total ? total : done;
            total += done;
            if ((size_t)done < parts[i].iov_len) break;
        }
        return total;
    }
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

/* Make the call; write it down where it went well. */
#define KNOWN(watched, call, entry) \
    if (recording() && (watched)) { \
        pthread_mutex_lock(&turn); \
        int done = call, kept = errno; \
        if (done >= 0) { entry; } \
        pthread_mutex_unlock(&turn); \
        errno = kept; \
        return done; \
    }

int fsync(int fd) {
    REAL(int, "fsync", int);
    KNOWN(fd_below(fd), real(fd), noted_fd('f', fd, 0, NULL, 0))
    PLAIN(fd_below(fd), 0, real(fd));
}
int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    KNOWN(fd_below(fd), real(fd), noted_fd('f', fd, 0, NULL, 0))
    PLAIN(fd_below(fd), 0, real(fd));
}
int ftruncate(int fd, off_t n) {
    REAL(int, "ftruncate", int, off_t);
    KNOWN(fd_below(fd), real(fd, n), noted_fd('t', fd, n, NULL, 0))
    PLAIN(fd_below(fd), 1, real(fd, n));
}
int ftruncate64(int fd, off64_t n) {
    REAL(int, "ftruncate64", int, off64_t);
    KNOWN(fd_below(fd), real(fd, n), noted_fd('t', fd, n, NULL, 0))
    PLAIN(fd_below(fd), 1, real(fd, n));
}
int rename(const char *a, const char *b) {
    REAL(int, "rename", const char *, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    const char *from = whole(AT_FDCWD, a, one), *to = whole(AT_FDCWD, b, two);
    KNOWN(below(from) || below(to), real(a, b), note('r', node_at(to), 0, NULL, 0, from, to))
    PLAIN(below(b), 0, real(a, b));
}
int renameat(int d, const char *a, int e, const char *b) {
    REAL(int, "renameat", int, const char *, int, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    const char *from = whole(d, a, one), *to = whole(e, b, two);
    KNOWN(below(from) || below(to), real(d, a, e, b), note('r', node_at(to), 0, NULL, 0, from, to))
    PLAIN(below(b), 0, real(d, a, e, b));
}
int unlink(const char *a) {
    REAL(int, "unlink", const char *);
    char one[PATH_MAX];
    const char *path = whole(AT_FDCWD, a, one);
    KNOWN(below(path), real(a), note('u', 0, 0, NULL, 0, path, NULL))
    PLAIN(below(a), 1, real(a));
}
int unlinkat(int d, const char *a, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char one[PATH_MAX];
    const char *path = whole(d, a, one);
    KNOWN(below(path), real(d, a, flags), note('u', 0, 0, NULL, 0, path, NULL))
    PLAIN(below(a) || fd_below(d), 1, real(d, a, flags));
}
int rmdir(const char *a) {
    REAL(int, "rmdir", const char *);
    char one[PATH_MAX];
    const char *path = whole(AT_FDCWD, a, one);
    KNOWN(below(path), real(a), note('u', 0, 0, NULL, 0, path, NULL))
    return real(a);
}
int link(const char *a, const char *b) {
    REAL(int, "link", const char *, const char *);
    KNOWN(below(b), real(a, b), note('l', node_at(b), 0, NULL, 0, a, b))
    return real(a, b);
}
int symlink(const char *a, const char *b) {
    REAL(int, "symlink", const char *, const char *);
    KNOWN(below(b), real(a, b), note('s', node_at(b), 0, NULL, 0, a, b))
    return real(a, b);
}

/* Calls that make a file or a folder. */
static int no_more(const char *path) {
    struct stat is;
    if (!below(path) || mode < CREATE_COUNT || !lstat(path, &is)) return 0;
    long n = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (mode == CREATE_COUNT || n < target) return 0;
    if (mode == CREATE_EINOUT && n > target) return 0;
    errno = mode == CREATE_EINOUT ? EIO : ENOSPC;
    return 1;
}
#define MADE(folder, name, call, what) \
    char one[PATH_MAX]; \
    const char *path = armed ? whole(folder, name, one) : name; \
    if (no_more(path)) return -1; \
    KNOWN(below(path), call, note(what, node_at(path), 0, NULL, 0, path, NULL)) \
    return call
int mkdir(const char *a, mode_t rights) {
    REAL(int, "mkdir", const char *, mode_t);
    MADE(AT_FDCWD, a, real(a, rights), 'm');
}
int mkdirat(int d, const char *a, mode_t rights) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    MADE(d, a, real(d, a, rights), 'm');
}
/* 'o' of a file that may have been there: the replay knows. */
#define OPENED(folder, call) \
    int rights = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        rights = va_arg(more, int); \
        va_end(more); \
    } \
    char one[PATH_MAX]; \
    const char *path = armed ? whole(folder, a, one) : a; \
    if ((flags & O_CREAT) && no_more(path)) return -1; \
    KNOWN((flags & (O_CREAT | O_TRUNC)) && below(path), call, \
          note(flags & O_TRUNC ? 'O' : 'o', node_of(done), 0, NULL, 0, path, NULL)) \
    return call
int open(const char *a, int flags, ...) {
    REAL(int, "open", const char *, int, ...);
    OPENED(AT_FDCWD, real(a, flags, rights));
}
int open64(const char *a, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    OPENED(AT_FDCWD, real(a, flags, rights));
}
int openat(int d, const char *a, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    OPENED(d, real(d, a, flags, rights));
}
int openat64(int d, const char *a, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    OPENED(d, real(d, a, flags, rights));
}
/* Python's copies then read and write, which is written down. */
ssize_t sendfile(int out, int in, off_t *at, size_t n) {
    REAL(ssize_t, "sendfile", int, int, off_t *, size_t);
    if (recording() && fd_below(out)) { errno = ENOTSOCK; return -1; }
    return real(out, in, at, n);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    if (recording() && fd_below(out)) { errno = ENOTSOCK; return -1; }
    return real(out, in, at, n);
}
