/* The order of calls of a backup program that tears everything down in an atexit handler: parameters allocated before the
 * start, clean-up before the start, Disconnect before Cleanup and EndAccess, FreeInfo long after Close.
 * With a second argument the process ends without any of it, status 7. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vixDiskLib.h"

static VixDiskLibConnectParams *params;
static VixDiskLibConnection connection;
static VixDiskLibHandle disk;
static VixDiskLibInfo *info;

static void fail(const char *what, VixError error)
{
    char *text = VixDiskLib_GetErrorText(error, NULL);
    fprintf(stderr, "%s: %llu %s\n", what, (unsigned long long)error, text);
    VixDiskLib_FreeErrorText(text);
    _exit(1);
}

static void must(const char *what, VixError error)
{
    if (VIX_FAILED(error)) {
        fail(what, error);
    }
}

static void quiet(const char *format, va_list arguments)
{
    char line[2000];
    vsnprintf(line, sizeof line, format, arguments);
}

static void tear_down(void)
{
    uint32 cleaned = 1, left = 1;
    uint8 sector[512];
    must("Read in the handler", VixDiskLib_Read(disk, 300, 1, sector));
    if (sector[0] != 0x5A) {
        fail("the content in the handler", 1);
    }
    must("Flush in the handler", VixDiskLib_Flush(disk));
    must("Close", VixDiskLib_Close(disk));
    if (info->capacity != 20480) {
        fail("the info after Close", 1);
    }
    VixDiskLib_FreeInfo(info);
    must("Disconnect", VixDiskLib_Disconnect(connection));
    must("Cleanup", VixDiskLib_Cleanup(params, &cleaned, &left));
    must("EndAccess", VixDiskLib_EndAccess(params, "test"));
    VixDiskLib_FreeConnectParams(params);
    VixDiskLib_Exit();
    fprintf(stderr, "torn down\n");
}

static void completed(void *data, VixError result)
{
    *(VixError *)data = result;
}

/* Makes the library's thread-locals exist on a thread that ends before the handler runs. */
static void *other_thread(void *unused)
{
    uint8 sectors[1024];
    VixError result = 99;
    (void)unused;
    must("Read on another thread", VixDiskLib_Read(disk, 310, 2, sectors));
    if (VixDiskLib_ReadAsync(disk, 320, 2, sectors, completed, &result) != VIX_ASYNC) {
        fail("ReadAsync", 1);
    }
    must("Wait", VixDiskLib_Wait(disk));
    must("the completion", result);
    /* A failing call too: its report passes through the log. */
    if (VixDiskLib_Read(disk, 20480, 1, sectors) != VIX_E_DISK_OUTOFRANGE) {
        fail("a read past the end", 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    VixDiskLibCreateParams create;
    pthread_t thread;
    uint32 cleaned = 1, left = 1;
    uint8 *data = malloc(200 * 512);

    if (argc < 2) {
        return 2;
    }
    params = VixDiskLib_AllocateConnectParams();
    if (params == NULL) {
        fail("AllocateConnectParams before InitEx", 2);
    }
    must("Cleanup before InitEx", VixDiskLib_Cleanup(NULL, &cleaned, &left));
    if (cleaned != 0 || left != 0) {
        fail("the counts of Cleanup", 1);
    }
    must("InitEx", VixDiskLib_InitEx(6, 5, quiet, quiet, quiet, "/usr/lib/vmware-vix-disklib", NULL));
    must("ConnectEx", VixDiskLib_ConnectEx(params, TRUE, NULL, NULL, &connection));
    memset(&create, 0, sizeof create);
    create.diskType = VIXDISKLIB_DISK_MONOLITHIC_SPARSE;
    create.adapterType = VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC;
    create.hwVersion = 7;
    create.capacity = 20480;
    must("Create", VixDiskLib_Create(connection, argv[1], &create, NULL, NULL));
    must("Open", VixDiskLib_Open(connection, argv[1], 0, &disk));
    must("GetInfo", VixDiskLib_GetInfo(disk, &info));
    memset(data, 0x5A, 200 * 512);
    must("Write", VixDiskLib_Write(disk, 300, 200, data));
    free(data);
    if (argc > 2) {
        _exit(7);
    }
    if (pthread_create(&thread, NULL, other_thread, NULL) != 0) {
        return 3;
    }
    pthread_join(thread, NULL);
    if (atexit(tear_down) != 0) {
        return 4;
    }
    return 0;
}
