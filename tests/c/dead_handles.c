/* Garbage, closed handles and handles of the other kind give the codes for that, in every function, and harm nothing. */
#include "check.h"

static void never(void *data, VixError result) {
    (void)data;
    (void)result;
    CHECK(!"called");
}

static void not_a_disk(VixDiskLibHandle disk) {
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    char text[8];
    size_t length;
    uint64 space;
    VixDiskLibInfo *info;
    VixDiskLibBlockList *list;
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Write(disk, 0, 1, sector), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_ReadAsync(disk, 0, 1, sector, never, NULL), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_WriteAsync(disk, 0, 1, sector, never, NULL), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Flush(disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Wait(disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_GetInfo(disk, &info), VIX_E_INVALID_HANDLE);
    CHECK(strcmp(VixDiskLib_GetTransportMode(disk), "") == 0);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 128, &list), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_ReadMetadata(disk, "k", text, sizeof text, &length), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_WriteMetadata(disk, "k", "v"), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_GetMetadataKeys(disk, text, sizeof text, &length), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_CreateChild(disk, "/x", VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Shrink(disk, NULL, NULL), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Defragment(disk, NULL, NULL), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_UNKNOWN, &space), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_IsAttachPossible(disk, disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Attach(disk, disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Close(disk), VIX_E_INVALID_HANDLE);
}

static void not_a_connection(VixDiskLibConnection on, VixDiskLibConnection live) {
    VixDiskLibConnectParams *params;
    VixDiskLibCreateParams create;
    VixDiskLibHandle disk;
    memset(&create, 0, sizeof create);
    CODE(VixDiskLib_Open(on, "/x", 0, &disk), VIX_E_DISK_INVALID_CONNECTION);
    CHECK(disk == NULL);
    CODE(VixDiskLib_Create(on, "/x", &create, NULL, NULL), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_GetConnectParams(on, &params), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Unlink(on, "/x"), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Grow(on, "/x", 1, FALSE, NULL, NULL), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Clone(on, "/x", live, "/y", NULL, NULL, NULL, FALSE), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Clone(live, "/x", on, "/y", NULL, NULL, NULL, FALSE), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_CheckRepair(on, "/x", FALSE), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Disconnect(on), VIX_E_DISK_INVALID_CONNECTION);
}

int main(int argc, char **argv) {
    VixDiskLibConnection on, other;
    VixDiskLibHandle disk;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    unsigned long values[5];
    size_t i;
    CHECK(argc == 3);
    start();
    on = local();
    disk = new_disk(on, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);

    values[0] = 1;
    values[1] = ~0UL;
    values[2] = (unsigned long)(size_t)&values;
    values[3] = (unsigned long)(size_t)disk ^ (1UL << 20);
    values[4] = (unsigned long)(size_t)disk + 1;
    for (i = 0; i < sizeof values / sizeof *values; i++) {
        not_a_disk(garbage(values[i]));
        not_a_connection((VixDiskLibConnection)garbage(values[i]), on);
    }
    not_a_disk((VixDiskLibHandle)on);
    not_a_connection((VixDiskLibConnection)disk, on);
    CODE(VixDiskLib_Read(disk, 64, 1, sector), VIX_OK); /* all that harmed nothing */
    CHECK(sector[0] == 1 && sector[511] == 1);

    CODE(VixDiskLib_Close(disk), VIX_OK);
    not_a_disk(disk);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    other = local();
    not_a_connection(on, other); /* its place is in use again */

    /* Disks of a closed connection: Close is welcome once, nothing else is. */
    disk = new_disk(other, argv[2], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    CODE(VixDiskLib_Disconnect(other), VIX_OK);
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    not_a_disk(disk);
    not_a_connection(other, (VixDiskLibConnection)disk);
    VixDiskLib_Exit();
    CHECK(kept_panics == 0);
    return 0;
}
