/*
 * What backup.c tells its user: errors, the library's log, how far it is. Licence: Apache-2.0 OR MIT, like the library.
 */
#ifndef EXAMPLES_SAY_H
#define EXAMPLES_SAY_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "vixDiskLib.h"

static bool verbose;

static void on_log(const char *fmt, va_list args)
{
    if (verbose)
        vfprintf(stderr, fmt, args);
}

static void on_error(const char *fmt, va_list args)
{
    vfprintf(stderr, fmt, args);
}

static int vix_failed(const char *what, VixError err)
{
    char *text = VixDiskLib_GetErrorText(err, NULL);
    fprintf(stderr, "backup: %s: error %" PRIu64 " (%s)\n", what, (uint64_t)VIX_ERROR_CODE(err), text ? text : "?");
    VixDiskLib_FreeErrorText(text);
    return 1;
}

static int failed(const char *what)
{
    fprintf(stderr, "backup: %s: %s\n", what, strerror(errno));
    return 1;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A bar that redraws itself on a terminal, and a line for every tenth elsewhere. */
struct progress {
    bool terminal;
    double began, drawn;
    int percent;
};

static void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    double now = seconds(), rate = now > p->began ? (double)done * 512 / 1048576 / (now - p->began) : 0;
    int percent = total ? (int)((double)done * 100 / (double)total) : 100, i;
    bool last = done == total;

    if (p->terminal ? !last && now - p->drawn < 0.1 : !last && percent / 10 == p->percent / 10)
        return;
    p->drawn = now;
    p->percent = percent;
    fprintf(stderr, "%s[", p->terminal ? "\r" : "");
    for (i = 0; i < 40; i++)
        fputc(i < percent * 40 / 100 ? '#' : '.', stderr);
    fprintf(stderr, "] %3d%%  %8.1f MiB  %8.1f MiB/s%s", percent, (double)done / 2048, rate,
            p->terminal && !last ? "" : "\n");
}

#endif
