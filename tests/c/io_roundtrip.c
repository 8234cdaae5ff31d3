/* Creates disks of two kinds, writes, reads, submits, queries, reads metadata and closes; small, so that it can run under
 * valgrind. The only argument is a folder to work in. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vixDiskLib.h"

#define CAPACITY 70001
#define PIECES 24
#define PIECE 300

static char last_line[4000];

static void keep(const char *format, va_list arguments)
{
    vsnprintf(last_line, sizeof last_line, format, arguments);
}

static void must(const char *what, VixError error)
{
    if (VIX_FAILED(error)) {
        char *text = VixDiskLib_GetErrorText(error, NULL);
        fprintf(stderr, "%s: %llu %s\nlast line: %s\n", what, (unsigned long long)error, text, last_line);
        free(text); /* a plain free works as well */
        exit(1);
    }
}

static void expect(const char *what, int condition)
{
    if (!condition) {
        fprintf(stderr, "%s\nlast line: %s\n", what, last_line);
        exit(1);
    }
}

static void fill(uint8 *buffer, uint64 start, uint64 count, uint8 salt)
{
    uint64 n;
    for (n = 0; n < count * 512; n++) {
        buffer[n] = (uint8)((start + n / 512) * 7 + n % 512 + salt);
    }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int completed;

static void on_completion(void *data, VixError result)
{
    *(VixError *)data = result;
    pthread_mutex_lock(&lock);
    completed++;
    pthread_mutex_unlock(&lock);
}

static char on_progress(void *data, int percent)
{
    *(int *)data = percent;
    return 0; /* ignored */
}

static void submit_and_check(VixDiskLibHandle disk, uint8 *wanted)
{
    uint8 *buffers[PIECES];
    VixError results[PIECES];
    int n;

    completed = 0;
    for (n = 0; n < PIECES; n++) {
        VixError error;
        /* An odd address, and memory of exactly the size: a byte too far is seen by valgrind. */
        buffers[n] = malloc(PIECE * 512 + 3);
        results[n] = 4711;
        error = VixDiskLib_ReadAsync(disk, (uint64)n * 1000, PIECE, buffers[n] + 3, on_completion, &results[n]);
        expect("ReadAsync answers VIX_ASYNC", error == VIX_ASYNC);
    }
    must("Wait", VixDiskLib_Wait(disk));
    pthread_mutex_lock(&lock);
    expect("Wait returns after every completion", completed == PIECES);
    pthread_mutex_unlock(&lock);
    for (n = 0; n < PIECES; n++) {
        must("a completion", results[n]);
        fill(wanted, (uint64)n * 1000, PIECE, 1);
        expect("an asynchronous read", memcmp(buffers[n] + 3, wanted, PIECE * 512) == 0);
        free(buffers[n]);
    }
}

static void query_and_check(VixDiskLibHandle disk)
{
    VixDiskLibBlockList *list = NULL;
    uint64 at = 0;
    uint32 n;
    int covered = 0;

    must("QueryAllocatedBlocks", VixDiskLib_QueryAllocatedBlocks(disk, 0, 70016, 128, &list));
    for (n = 0; n < list->numBlocks; n++) {
        expect("blocks ascend", list->blocks[n].offset >= at && list->blocks[n].length > 0);
        at = list->blocks[n].offset + list->blocks[n].length;
        expect("blocks end with the disk", at <= CAPACITY);
        if (list->blocks[n].offset <= 1000 && at >= 1300) {
            covered = 1;
        }
    }
    expect("what was written is listed", covered);
    must("FreeBlockList", VixDiskLib_FreeBlockList(list));
    must("FreeBlockList(NULL)", VixDiskLib_FreeBlockList(NULL));
    expect("a chunk too small is refused", VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 1, &list) == VIX_E_INVALID_ARG);
}

static void metadata_and_check(VixDiskLibHandle disk)
{
    size_t needed = 0;
    char *keys;
    char *key;
    VixError error;

    must("WriteMetadata", VixDiskLib_WriteMetadata(disk, "roundtrip", "yes"));
    error = VixDiskLib_GetMetadataKeys(disk, NULL, 0, &needed);
    expect("the size of the keys", (error == VIX_OK || error == VIX_E_BUFFER_TOOSMALL) && needed > 2);
    keys = malloc(needed);
    must("GetMetadataKeys", VixDiskLib_GetMetadataKeys(disk, keys, needed, NULL));
    for (key = keys; *key != '\0'; key += strlen(key) + 1) {
        size_t length = 0;
        char *value;
        error = VixDiskLib_ReadMetadata(disk, key, NULL, 0, &length);
        expect("the size of a value", (error == VIX_OK || error == VIX_E_BUFFER_TOOSMALL) && length > 0);
        value = malloc(length);
        must("ReadMetadata", VixDiskLib_ReadMetadata(disk, key, value, length, NULL));
        expect("a value ends with its length", strlen(value) + 1 == length);
        free(value);
    }
    free(keys);
    expect("a missing key", VixDiskLib_ReadMetadata(disk, "none", NULL, 0, &needed) == VIX_E_DISK_KEY_NOTFOUND);
}

static void one_kind(VixDiskLibConnection connection, const char *folder, VixDiskLibDiskType type)
{
    char path[4096];
    VixDiskLibCreateParams create;
    VixDiskLibHandle disk = NULL;
    VixDiskLibInfo *info = NULL;
    uint8 *data = malloc(PIECE * 512);
    uint8 *back = malloc(PIECE * 512);
    int percent = -1;
    int n;

    snprintf(path, sizeof path, "%s/kind%d.vmdk", folder, (int)type);
    memset(&create, 0, sizeof create);
    create.diskType = type;
    create.adapterType = VIXDISKLIB_ADAPTER_SCSI_LSILOGIC;
    create.hwVersion = 7;
    create.capacity = CAPACITY;
    must("Create", VixDiskLib_Create(connection, path, &create, on_progress, &percent));
    expect("progress ends with 100", percent == 100);
    expect("Create does not overwrite",
           VixDiskLib_Create(connection, path, &create, NULL, NULL) == VIX_E_FILE_ALREADY_EXISTS);
    must("Open", VixDiskLib_Open(connection, path, 0, &disk));
    expect("the mode", strcmp(VixDiskLib_GetTransportMode(disk), "file") == 0);
    must("GetInfo", VixDiskLib_GetInfo(disk, &info));
    expect("the info", info->capacity == CAPACITY && info->numLinks == 1 && info->parentFileNameHint == NULL &&
                           info->adapterType == VIXDISKLIB_ADAPTER_SCSI_LSILOGIC && info->logicalSectorSize == 512);
    VixDiskLib_FreeInfo(info);
    for (n = 0; n < PIECES; n++) {
        VixError result = 4711;
        fill(data, (uint64)n * 1000, PIECE, 1);
        if (n % 2 == 0) {
            must("Write", VixDiskLib_Write(disk, (uint64)n * 1000, PIECE, data));
        } else {
            VixError error = VixDiskLib_WriteAsync(disk, (uint64)n * 1000, PIECE, data, on_completion, &result);
            expect("WriteAsync answers VIX_ASYNC", error == VIX_ASYNC);
            must("Wait", VixDiskLib_Wait(disk));
            must("the completion of a write", result);
        }
        must("Read", VixDiskLib_Read(disk, (uint64)n * 1000, PIECE, back));
        expect("what was written", memcmp(data, back, PIECE * 512) == 0);
    }
    must("Read of a hole", VixDiskLib_Read(disk, 500, 10, back));
    for (n = 0; n < 10 * 512; n++) {
        expect("a hole reads as zeros", back[n] == 0);
    }
    expect("past the end", VixDiskLib_Read(disk, CAPACITY, 1, back) == VIX_E_DISK_OUTOFRANGE);
    submit_and_check(disk, data);
    query_and_check(disk);
    metadata_and_check(disk);
    must("Flush", VixDiskLib_Flush(disk));
    must("Close", VixDiskLib_Close(disk));
    expect("Close again", VixDiskLib_Close(disk) == VIX_E_INVALID_HANDLE);

    must("Open again", VixDiskLib_Open(connection, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk));
    submit_and_check(disk, data);
    query_and_check(disk);
    expect("a read-only handle", VixDiskLib_Write(disk, 0, 1, data) == VIX_E_FILE_READ_ONLY);
    must("Close", VixDiskLib_Close(disk));
    free(data);
    free(back);
}

int main(int argc, char **argv)
{
    VixDiskLibConnectParams params;
    VixDiskLibConnection connection = NULL;
    VixDiskLibHandle disk = (VixDiskLibHandle)&params;

    if (argc != 2) {
        return 2;
    }
    must("InitEx", VixDiskLib_InitEx(7, 0, keep, keep, keep, NULL, NULL));
    memset(&params, 0, sizeof params);
    must("ConnectEx", VixDiskLib_ConnectEx(&params, FALSE, "", "", &connection));
    one_kind(connection, argv[1], VIXDISKLIB_DISK_MONOLITHIC_SPARSE);
    one_kind(connection, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    expect("a missing file", VixDiskLib_Open(connection, "/nonexistent.vmdk", 0, &disk) == VIX_E_FILE_NOT_FOUND);
    expect("NULL after a failed Open", disk == NULL);
    must("Disconnect", VixDiskLib_Disconnect(connection));
    VixDiskLib_Exit();
    fprintf(stderr, "all is well\n");
    return 0;
}
