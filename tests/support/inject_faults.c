/* Count the file operations of a process below one folder, and inject a fault at one of them.

   Built and loaded by inject_faults.py with LD_PRELOAD. Modes: 0 count only; 1 SIGKILL at operation `at` (a write is
   done by half first); 2 the disk is full from operation `at` on (a write is done by half first, then ENOSPC).
   Repeated writes to one file count once, and operations that change nothing (`mkdir` of a folder that exists) do not
   count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

static char folder[PATH_MAX], log_file[PATH_MAX];
static long at, count;
static int mode, ready, owner;

void inject_arm(const char *below, long n, int how, const char *log) {
  snprintf(folder, sizeof folder, "%s", below);
  snprintf(log_file, sizeof log_file, "%s", log ? log : "");
  at = n, mode = how, count = 0, ready = 1, owner = getpid();
}
long inject_count(void) { return count; }

__attribute__((constructor)) static void begin(void) {
  const char *below = getenv("INJECT_FOLDER"), *n = getenv("INJECT_AT"), *how = getenv("INJECT_MODE");
  if (below) inject_arm(below, n ? atol(n) : 0, how ? atoi(how) : 0, getenv("INJECT_LOG"));
}

static int below(const char *path) {
  /* Event files are written by a thread of TensorBoard: their operations have no fixed order. */
  return strncmp(path, folder, strlen(folder)) == 0 && !strstr(path, "/tensorboard");
}
static int of_path(int at_fd, const char *path) {
  char whole[2 * PATH_MAX], base[PATH_MAX];
  if (!ready || !folder[0] || !path) return 0;
  if (path[0] == '/') return below(path);
  if (at_fd == AT_FDCWD) {
    if (!getcwd(base, sizeof base)) return 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at_fd);
    ssize_t n = readlink(link, base, sizeof base - 1);
    if (n < 0) return 0;
    base[n] = 0;
  }
  snprintf(whole, sizeof whole, "%s/%s", base, path);
  return below(whole);
}
static int of_fd(int fd, char *path) {
  char link[64];
  if (!ready || !folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH_MAX - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return below(path);
}
/* Return 0 to go on, 1 if the operation must fail, 2 if the process must end (after half of a write). */
static int strikes(const char *what, const char *path) {
  if (mode != 2 && getpid() != owner) return 0; /* kill the main process only, not its workers */
  static char before[2 * PATH_MAX];
  char here[2 * PATH_MAX];
  snprintf(here, sizeof here, "%s %s", what, path);
  int repeats = count && !strcmp(here, before); /* parts of one content, written one after the other */
  strcpy(before, here);
  if (repeats && !(mode == 2 && at && count >= at)) return 0;
  long now = repeats ? count : __sync_add_and_fetch(&count, 1);
  if (log_file[0] && !repeats) {
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open");
    int fd = real(log_file, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) {
      char line[2 * PATH_MAX];
      int n = snprintf(line, sizeof line, "%ld %s %s\n", now, what, path);
      static ssize_t (*put)(int, const void *, size_t);
      if (!put) put = dlsym(RTLD_NEXT, "write");
      put(fd, line, n), close(fd);
    }
  }
  if (mode == 1 && now == at) return 2;
  if (mode == 2 && at && now >= at) return 1;
  return 0;
}
static int stop(int verdict) {
  if (verdict == 2) kill(getpid(), SIGKILL);
  errno = ENOSPC;
  return -1;
}
#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define CHECK(test, path) \
  if (test) { int verdict = strikes(__func__, path); if (verdict) return stop(verdict); }

#define BITS \
  mode_t bits = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); bits = va_arg(a, mode_t); va_end(a); }
#define WRITES (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
int open(const char *path, int flags, ...) {
  BITS
  REAL(open);
  if (WRITES) CHECK(of_path(AT_FDCWD, path), path)
  return real(path, flags, bits);
}
int open64(const char *path, int flags, ...) {
  BITS
  REAL(open64);
  if (WRITES) CHECK(of_path(AT_FDCWD, path), path)
  return real(path, flags, bits);
}
int openat(int dir, const char *path, int flags, ...) {
  BITS
  REAL(openat);
  if (WRITES) CHECK(of_path(dir, path), path)
  return real(dir, path, flags, bits);
}
int openat64(int dir, const char *path, int flags, ...) {
  BITS
  REAL(openat64);
  if (WRITES) CHECK(of_path(dir, path), path)
  return real(dir, path, flags, bits);
}
#define FOPEN(name) \
  FILE *name(const char *path, const char *how) { \
    REAL(name); \
    if (strpbrk(how, "wa+") && of_path(AT_FDCWD, path)) { \
      int verdict = strikes(__func__, path); \
      if (verdict) { stop(verdict); return NULL; } \
    } \
    return real(path, how); \
  }
FOPEN(fopen)
FOPEN(fopen64)
#define HALF(call) { \
    char path[PATH_MAX]; \
    if (of_fd(fd, path)) { \
      int verdict = strikes(__func__, path); \
      if (verdict) { call; return stop(verdict); } \
    } }
ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  HALF(if (size > 1) real(fd, data, size / 2))
  return real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
  REAL(pwrite);
  HALF(if (size > 1) real(fd, data, size / 2, where))
  return real(fd, data, size, where);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
  REAL(pwrite64);
  HALF(if (size > 1) real(fd, data, size / 2, where))
  return real(fd, data, size, where);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  REAL(writev);
  HALF(if (n > 1) real(fd, parts, n / 2))
  return real(fd, parts, n);
}
ssize_t sendfile(int fd, int from, off_t *where, size_t size) {
  REAL(sendfile);
  HALF(real(fd, from, where, size / 2))
  return real(fd, from, where, size);
}
ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *where, size_t size, unsigned flags) {
  REAL(copy_file_range);
  HALF(real(from, start, fd, where, size / 2, flags))
  return real(from, start, fd, where, size, flags);
}
#define ON_FD(name) \
  int name(int fd) { REAL(name); char path[PATH_MAX]; CHECK(of_fd(fd, path), path) return real(fd); }
ON_FD(fsync)
ON_FD(fdatasync)
int ftruncate(int fd, off_t size) {
  REAL(ftruncate);
  char path[PATH_MAX];
  CHECK(of_fd(fd, path), path)
  return real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
  REAL(ftruncate64);
  char path[PATH_MAX];
  CHECK(of_fd(fd, path), path)
  return real(fd, size);
}
int rename(const char *old, const char *new) {
  REAL(rename);
  CHECK(of_path(AT_FDCWD, new), new)
  return real(old, new);
}
int renameat(int a, const char *old, int b, const char *new) {
  REAL(renameat);
  CHECK(of_path(b, new), new)
  return real(a, old, b, new);
}
int link(const char *old, const char *new) {
  REAL(link);
  CHECK(of_path(AT_FDCWD, new), new)
  return real(old, new);
}
int symlink(const char *old, const char *new) {
  REAL(symlink);
  CHECK(of_path(AT_FDCWD, new), new)
  return real(old, new);
}
int mkdir(const char *path, mode_t bits) {
  REAL(mkdir);
  CHECK(access(path, F_OK) && of_path(AT_FDCWD, path), path)
  return real(path, bits);
}
int mkdirat(int fd, const char *path, mode_t bits) {
  REAL(mkdirat);
  CHECK(faccessat(fd, path, F_OK, 0) && of_path(fd, path), path)
  return real(fd, path, bits);
}
/* Removing works on a full disk. */
int unlink(const char *path) {
  REAL(unlink);
  if (mode != 2) CHECK(!access(path, F_OK) && of_path(AT_FDCWD, path), path)
  return real(path);
}
int unlinkat(int fd, const char *path, int flags) {
  REAL(unlinkat);
  if (mode != 2) CHECK(!faccessat(fd, path, F_OK, 0) && of_path(fd, path), path)
  return real(fd, path, flags);
}
int rmdir(const char *path) {
  REAL(rmdir);
  if (mode != 2) CHECK(!access(path, F_OK) && of_path(AT_FDCWD, path), path)
  return real(path);
}
