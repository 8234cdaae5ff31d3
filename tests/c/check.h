/* What the C programs of the interface share: checks that name their line, a log that is kept. C99 and C++17. */
#ifndef CHECK_H
#define CHECK_H

#include "vixDiskLib.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

#define CODE(call, expected)                                                                      \
    do {                                                                                          \
        VixError got_ = (call), expected_ = (VixError)(expected);                                 \
        if (got_ != expected_) {                                                                  \
            fprintf(stderr, "%s:%d: %s gave %lu, expected %lu\n", __FILE__, __LINE__, #call,      \
                    (unsigned long)got_, (unsigned long)expected_);                               \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* Everything said since kept_clear, by kind. */
static char kept_log[1 << 16];
static char kept_warn[1 << 16];
static int kept_panics;

static void keep(char *where, size_t size, const char *fmt, va_list args) {
    char line[1024];
    va_list copy;
    int length;
    va_copy(copy, args);
    length = vsnprintf(line, sizeof line, fmt, args);
    CHECK(length > 0 && (size_t)length < sizeof line && line[length - 1] == '\n');
    CHECK(strchr(line, '\n') == line + length - 1);
    CHECK(vsnprintf(NULL, 0, fmt, copy) == length);
    va_end(copy);
    if (strlen(where) + (size_t)length + 1 < size) {
        strcat(where, line);
    }
}

static void on_log(const char *fmt, va_list args) { keep(kept_log, sizeof kept_log, fmt, args); }
static void on_warn(const char *fmt, va_list args) { keep(kept_warn, sizeof kept_warn, fmt, args); }
static void on_panic(const char *fmt, va_list args) {
    (void)fmt;
    (void)args;
    kept_panics++;
}

static void kept_clear(void) { kept_log[0] = kept_warn[0] = 0; }

static inline void start(void) {
    kept_clear();
    CODE(VixDiskLib_InitEx(8, 0, on_log, on_warn, on_panic, NULL, NULL), VIX_OK);
}

static inline VixDiskLibConnection local(void) {
    VixDiskLibConnection connection = NULL;
    CODE(VixDiskLib_Connect(NULL, &connection), VIX_OK);
    CHECK(connection != NULL);
    return connection;
}

static inline VixDiskLibHandle garbage(unsigned long value) { return (VixDiskLibHandle)value; }

/* A disk of 1 MiB with every sector's number in it. */
static inline VixDiskLibHandle new_disk(VixDiskLibConnection connection, const char *path, VixDiskLibDiskType type) {
    VixDiskLibCreateParams params;
    VixDiskLibHandle disk = NULL;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    uint64 i;
    memset(&params, 0, sizeof params);
    params.diskType = type;
    params.adapterType = VIXDISKLIB_ADAPTER_SCSI_LSILOGIC;
    params.hwVersion = VIXDISKLIB_HWVERSION_WORKSTATION_5;
    params.capacity = 2048;
    CODE(VixDiskLib_Create(connection, path, &params, NULL, NULL), VIX_OK);
    CODE(VixDiskLib_Open(connection, path, 0, &disk), VIX_OK);
    CHECK(disk != NULL);
    for (i = 0; i < params.capacity; i += 64) {
        memset(sector, (int)(i / 64), sizeof sector);
        CODE(VixDiskLib_Write(disk, i, 1, sector), VIX_OK);
    }
    return disk;
}

#endif
