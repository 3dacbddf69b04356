/* SPDX-License-Identifier: 0BSD
 * Preloaded into an agent: the FAULT_AT-th change below FAULT_ROOT fails with EIO; with FAULT_STAYS=1 all after it, too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long done_so_far;

static int fails(const char *path)
{
    const char *root = getenv("FAULT_ROOT");
    const char *at = getenv("FAULT_AT");
    const char *stays = getenv("FAULT_STAYS");
    if (!root || !at || !path || strncmp(path, root, strlen(root)) != 0)
        return 0;
    long now = done_so_far++;
    if (now == atol(at) || (now > atol(at) && stays && *stays == '1')) {
        errno = EIO;
        return 1;
    }
    return 0;
}

static int fails_fd(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return fails_fd(fd) ? -1 : real(fd, data, size);
}

int fsync(int fd)
{
    REAL(fsync);
    return fails_fd(fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return fails(to) ? -1 : real(from, to);
}

int symlink(const char *target, const char *path)
{
    REAL(symlink);
    return fails(path) ? -1 : real(target, path);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return fails(path) ? -1 : real(path, mode);
}

int unlink(const char *path)
{
    REAL(unlink);
    return fails(path) ? -1 : real(path);
}
