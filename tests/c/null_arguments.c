/* NULL in every place of every function, in turn: an argument that is not valid, and no result. */
#include "check.h"

static void never(void *data, VixError result) {
    (void)data;
    (void)result;
    CHECK(!"called");
}

static void connections(VixDiskLibConnection on) {
    VixDiskLibConnectParams *params = (VixDiskLibConnectParams *)1;
    CODE(VixDiskLib_Connect(NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_ConnectEx(NULL, FALSE, NULL, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Disconnect(NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_GetConnectParams(NULL, &params), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_GetConnectParams(on, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_PrepareForAccess(NULL, NULL), VIX_OK);
    CODE(VixDiskLib_Cleanup(NULL, NULL, NULL), VIX_OK);
}

static void disks(VixDiskLibConnection on, VixDiskLibHandle disk) {
    VixDiskLibCreateParams create;
    VixDiskLibHandle out = garbage(1);
    VixDiskLibInfo *info;
    memset(&create, 0, sizeof create);
    create.diskType = VIXDISKLIB_DISK_MONOLITHIC_SPARSE;
    create.adapterType = VIXDISKLIB_ADAPTER_IDE;
    CODE(VixDiskLib_Create(on, "/x/x", &create, NULL, NULL), VIX_E_INVALID_ARG); /* 0 sectors */
    create.capacity = 1;
    CODE(VixDiskLib_Create(NULL, "/x/x", &create, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Create(on, NULL, &create, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Create(on, "", &create, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Create(on, "/x/x", NULL, NULL, NULL), VIX_E_INVALID_ARG);
    create.diskType = (VixDiskLibDiskType)9;
    CODE(VixDiskLib_Create(on, "/x/x", &create, NULL, NULL), VIX_E_INVALID_ARG);
    create.diskType = VIXDISKLIB_DISK_MONOLITHIC_SPARSE;
    create.adapterType = (VixDiskLibAdapterType)77;
    CODE(VixDiskLib_Create(on, "/x/x", &create, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Open(NULL, "/x", 0, &out), VIX_E_INVALID_ARG);
    CHECK(out == NULL);
    out = garbage(1);
    CODE(VixDiskLib_Open(on, NULL, 0, &out), VIX_E_INVALID_ARG);
    CHECK(out == NULL);
    out = garbage(1);
    CODE(VixDiskLib_Open(on, "", 0, &out), VIX_E_INVALID_ARG);
    CHECK(out == NULL);
    CODE(VixDiskLib_Open(on, "/x", 0, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Open(on, "/x", 0x30, &out), VIX_E_INVALID_ARG); /* two compressions */
    CODE(VixDiskLib_Close(NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_GetInfo(NULL, &info), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_GetInfo(disk, NULL), VIX_E_INVALID_ARG);
    CHECK(strcmp(VixDiskLib_GetTransportMode(NULL), "") == 0);
}

static void transfers(VixDiskLibHandle disk) {
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    VixDiskLibBlockList *list = (VixDiskLibBlockList *)1;
    CODE(VixDiskLib_Read(NULL, 0, 1, sector), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Read(disk, 0, 1, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Read(disk, ~(uint64)0, 1, sector), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_Read(disk, 1, ~(uint64)0, sector), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_Read(disk, 0, (uint64)1 << 55, sector), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_Write(NULL, 0, 1, sector), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Write(disk, 0, 1, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Write(disk, 0, ~(uint64)0 / 512, sector), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_ReadAsync(NULL, 0, 1, sector, never, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_ReadAsync(disk, 0, 1, NULL, never, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_ReadAsync(disk, 0, 1, sector, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_ReadAsync(disk, ~(uint64)0, 1, sector, never, NULL), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_WriteAsync(NULL, 0, 1, sector, never, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteAsync(disk, 0, 1, NULL, never, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteAsync(disk, 0, 1, sector, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Flush(NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Wait(NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_QueryAllocatedBlocks(NULL, 0, 128, 128, &list), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 128, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 0, &list), VIX_E_INVALID_ARG);
    CHECK(list == NULL);
    list = (VixDiskLibBlockList *)1;
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 127, &list), VIX_E_INVALID_ARG);
    CHECK(list == NULL);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, (uint64)128 * 524289, 128, &list), VIX_E_INVALID_ARG);
}

static void metadata(VixDiskLibHandle disk) {
    char buffer[64];
    size_t length;
    CODE(VixDiskLib_ReadMetadata(NULL, "k", buffer, 64, &length), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_ReadMetadata(disk, NULL, buffer, 64, &length), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteMetadata(NULL, "k", "v"), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteMetadata(disk, NULL, "v"), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteMetadata(disk, "k", NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_WriteMetadata(disk, "k", "\xff\xfe"), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_GetMetadataKeys(NULL, buffer, 64, &length), VIX_E_INVALID_ARG);
}

static void whole_disks(VixDiskLibConnection on, VixDiskLibHandle disk) {
    uint64 space;
    CODE(VixDiskLib_CreateChild(NULL, "/x", VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_CreateChild(disk, NULL, VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Unlink(NULL, "/x"), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Unlink(on, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Grow(NULL, "/x", 1, TRUE, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Grow(on, NULL, 1, TRUE, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Shrink(NULL, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Defragment(NULL, NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Rename(NULL, "/x"), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Rename("/x", NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Clone(NULL, "/x", on, "/y", NULL, NULL, NULL, FALSE), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Clone(on, NULL, on, "/y", NULL, NULL, NULL, FALSE), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Clone(on, "/x", NULL, "/y", NULL, NULL, NULL, FALSE), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Clone(on, "/x", on, NULL, NULL, NULL, NULL, FALSE), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_SpaceNeededForClone(NULL, VIXDISKLIB_DISK_UNKNOWN, &space), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_UNKNOWN, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_IsAttachPossible(NULL, disk), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_IsAttachPossible(disk, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_Attach(NULL, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_CheckRepair(NULL, "/x", TRUE), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_CheckRepair(on, NULL, TRUE), VIX_E_INVALID_ARG);
}

int main(int argc, char **argv) {
    VixDiskLibConnection on;
    VixDiskLibHandle disk;
    CHECK(argc == 2);
    start();
    on = local();
    disk = new_disk(on, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    connections(on);
    disks(on, disk);
    transfers(disk);
    metadata(disk);
    whole_disks(on, disk);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    VixDiskLib_Exit();
    CHECK(kept_panics == 0);
    return 0;
}
