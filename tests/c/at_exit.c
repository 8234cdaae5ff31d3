/* Everything that programs do when they end works in an atexit handler, after thread-locals are gone: also what fails.
 * Arguments: a file for a disk. */
#include "check.h"

#include <unistd.h>

static VixDiskLibConnection on;
static VixDiskLibHandle disk;
static VixDiskLibInfo *info;
static VixDiskLibConnectParams *params;
static VixDiskLibBlockList *list;

static void last_things(void) {
    uint32 cleaned, remaining;
    VixDiskLibConnectParams *copy;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    CHECK(info->capacity == 2048);
    VixDiskLib_FreeInfo(info);
    CODE(VixDiskLib_FreeBlockList(list), VIX_OK);
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_OK);
    CODE(VixDiskLib_Read(disk, 4096, 1, sector), VIX_E_DISK_OUTOFRANGE); /* a fault is said, too */
    CODE(VixDiskLib_Wait(disk), VIX_OK);
    CODE(VixDiskLib_Flush(disk), VIX_OK);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_Close(disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_GetConnectParams(on, &copy), VIX_OK);
    VixDiskLib_FreeConnectParams(copy);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    CODE(VixDiskLib_Cleanup(params, &cleaned, &remaining), VIX_OK);
    CODE(VixDiskLib_EndAccess(params, "somebody"), VIX_OK);
    VixDiskLib_FreeConnectParams(params);
    VixDiskLib_FreeErrorText(VixDiskLib_GetErrorText(1, NULL));
    VixDiskLib_Exit();
    VixDiskLib_Exit();
    CHECK(strstr(kept_warn, "VixDiskLib_Read") != NULL && kept_panics == 0);
    _exit(42); /* only who comes here ends so */
}

static void done(void *data, VixError result) { *(VixError *)data = result; }

int main(int argc, char **argv) {
    VixError outcome = 77;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    CHECK(argc == 2);
    CHECK(atexit(last_things) == 0);
    start();
    params = VixDiskLib_AllocateConnectParams();
    on = local();
    disk = new_disk(on, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    CODE(VixDiskLib_GetInfo(disk, &info), VIX_OK);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 2048, 128, &list), VIX_OK);
    CODE(VixDiskLib_ReadAsync(disk, 0, 1, sector, done, &outcome), VIX_ASYNC);
    CODE(VixDiskLib_Wait(disk), VIX_OK);
    CHECK(outcome == VIX_OK);
    return 0;
}
