/* Before InitEx and after Exit every function answers: some work at any time, the rest say that it is too early. */
#include "check.h"

static void too_early(void) {
    VixDiskLibConnection connection = (VixDiskLibConnection)garbage(1);
    VixDiskLibHandle disk = garbage(1);
    VixDiskLibConnectParams *params;
    VixDiskLibInfo *info = NULL;
    VixDiskLibBlockList *list = NULL;
    VixDiskLibCreateParams create;
    uint32 cleaned = 7, remaining = 7;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    uint64 space;
    size_t length;
    char *text;

    memset(&create, 0, sizeof create);
    create.diskType = VIXDISKLIB_DISK_MONOLITHIC_SPARSE;
    create.adapterType = VIXDISKLIB_ADAPTER_IDE;
    create.capacity = 1;

    params = VixDiskLib_AllocateConnectParams();
    CHECK(params != NULL && params->credType == 0 && params->specType == VIXDISKLIB_SPEC_VMX);
    CODE(VixDiskLib_Cleanup(NULL, &cleaned, &remaining), VIX_OK);
    CHECK(cleaned == 0 && remaining == 0);
    CODE(VixDiskLib_Cleanup(params, NULL, NULL), VIX_OK);
    CODE(VixDiskLib_PrepareForAccess(params, "id"), VIX_OK);
    CODE(VixDiskLib_EndAccess(NULL, NULL), VIX_OK);
    CHECK(strcmp(VixDiskLib_ListTransportModes(), "file:nbdssl:nbd") == 0);
    text = VixDiskLib_GetErrorText(VIX_E_DISK_NOINIT, NULL);
    CHECK(text != NULL && strlen(text) > 3);
    free(text); /* plain free works as well */
    VixDiskLib_FreeErrorText(NULL);
    VixDiskLib_FreeInfo(NULL);
    CODE(VixDiskLib_FreeBlockList(NULL), VIX_OK);
    VixDiskLib_FreeConnectParams(NULL);
    VixDiskLib_Exit();

    CODE(VixDiskLib_Connect(NULL, &connection), VIX_E_DISK_NOINIT);
    CHECK(connection == NULL);
    connection = (VixDiskLibConnection)garbage(1);
    CODE(VixDiskLib_ConnectEx(params, TRUE, "", "file", &connection), VIX_E_DISK_NOINIT);
    CHECK(connection == NULL);
    connection = (VixDiskLibConnection)garbage(1);
    CODE(VixDiskLib_Disconnect(connection), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_GetConnectParams(connection, &params), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Create(connection, "/x", &create, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_CreateChild(disk, "/x", VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Open(connection, "/x", 0, &disk), VIX_E_DISK_NOINIT);
    disk = garbage(1);
    CODE(VixDiskLib_Close(disk), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_GetInfo(disk, &info), VIX_E_DISK_NOINIT);
    CHECK(strcmp(VixDiskLib_GetTransportMode(disk), "") == 0);
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Write(disk, 0, 1, sector), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_ReadAsync(disk, 0, 1, sector, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_WriteAsync(disk, 0, 1, sector, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Flush(disk), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Wait(disk), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 128, &list), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_ReadMetadata(disk, "k", NULL, 0, &length), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_WriteMetadata(disk, "k", "v"), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_GetMetadataKeys(disk, NULL, 0, &length), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Unlink(connection, "/x"), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Grow(connection, "/x", 9, FALSE, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Shrink(disk, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Defragment(disk, NULL, NULL), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Rename("/x", "/y"), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Clone(connection, "/x", connection, "/y", NULL, NULL, NULL, FALSE), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_UNKNOWN, &space), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_IsAttachPossible(disk, disk), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_Attach(disk, disk), VIX_E_DISK_NOINIT);
    CODE(VixDiskLib_CheckRepair(connection, "/x", FALSE), VIX_E_DISK_NOINIT);
    VixDiskLib_FreeConnectParams(params);
}

int main(void) {
    too_early();
    start();
    VixDiskLib_Exit();
    too_early();
    start();
    CODE(VixDiskLib_Disconnect(local()), VIX_OK);
    VixDiskLib_Exit();
    CHECK(kept_panics == 0 && kept_warn[0] == 0);
    return 0;
}
