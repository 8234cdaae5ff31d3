/* A disk from Create to Close: what is given back is owned by the caller and outlives the handle.
 * Arguments: a file for a disk, 1 or 2 for its type. */
#include "check.h"

static int last_percent = -1;

static Bool progress(void *data, int percent) {
    CHECK(data == &last_percent && percent >= last_percent && percent <= 100);
    last_percent = percent;
    return 0; /* not an order to stop */
}

static void metadata(VixDiskLibHandle disk) {
    char *keys, *key, small[2] = {'?', 0};
    char value[64];
    size_t length = 0, again = 0;
    CODE(VixDiskLib_GetMetadataKeys(disk, NULL, 0, &length), VIX_E_BUFFER_TOOSMALL);
    CHECK(length > 2);
    keys = (char *)malloc(length);
    CODE(VixDiskLib_GetMetadataKeys(disk, keys, length - 1, &again), VIX_E_BUFFER_TOOSMALL);
    CHECK(again == length);
    CODE(VixDiskLib_GetMetadataKeys(disk, keys, length, NULL), VIX_OK);
    CHECK(keys[length - 1] == 0 && keys[length - 2] == 0);
    for (key = keys; *key; key += strlen(key) + 1) {
        size_t needed = 0;
        VixError short_of = VixDiskLib_ReadMetadata(disk, key, small, 1, &needed);
        CHECK(needed >= 1 && (needed == 1 || (short_of == VIX_E_BUFFER_TOOSMALL && small[0] == '?')));
        small[0] = '?';
    }
    CHECK((size_t)(key - keys) == length - 1);
    free(keys);
    CODE(VixDiskLib_WriteMetadata(disk, "test.key", "some value"), VIX_OK);
    CODE(VixDiskLib_ReadMetadata(disk, "test.key", value, sizeof value, &length), VIX_OK);
    CHECK(strcmp(value, "some value") == 0 && length == strlen(value) + 1);
}

int main(int argc, char **argv) {
    VixDiskLibConnection on;
    VixDiskLibHandle disk;
    VixDiskLibCreateParams params;
    VixDiskLibInfo *info = NULL;
    VixDiskLibBlockList *list = NULL;
    uint8 *out = (uint8 *)malloc(256 * 512 + 1), *in = (uint8 *)malloc(256 * 512 + 1);
    size_t i;
    CHECK(argc == 3);
    start();
    on = local();
    memset(&params, 0xff, sizeof params); /* sector sizes that nobody set */
    params.diskType = (VixDiskLibDiskType)atoi(argv[2]);
    params.adapterType = VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC;
    params.hwVersion = 65535;
    params.capacity = 2000;
    CODE(VixDiskLib_Create(on, argv[1], &params, progress, &last_percent), VIX_OK);
    CHECK(last_percent == 100);
    CODE(VixDiskLib_Create(on, argv[1], &params, NULL, NULL), VIX_E_FILE_ALREADY_EXISTS);
    CODE(VixDiskLib_Open(on, argv[1], VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ, &disk), VIX_OK);
    CHECK(strcmp(VixDiskLib_GetTransportMode(disk), "file") == 0);

    for (i = 0; i < 256 * 512; i++) {
        out[i + 1] = (uint8)(i * 7 + i / 512);
    }
    CODE(VixDiskLib_Write(disk, 1000, 256, out + 1), VIX_OK); /* at an odd address */
    CODE(VixDiskLib_Read(disk, 1000, 256, in + 1), VIX_OK);
    CHECK(memcmp(out + 1, in + 1, 256 * 512) == 0);
    CODE(VixDiskLib_Read(disk, 2000, 0, in), VIX_OK);
    CODE(VixDiskLib_Read(disk, 1999, 2, in), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_Write(disk, 2001, 0, out), VIX_E_DISK_OUTOFRANGE);
    CODE(VixDiskLib_Flush(disk), VIX_OK);

    CODE(VixDiskLib_QueryAllocatedBlocks(disk, 0, 2048, 128, &list), VIX_OK); /* past the end */
    CHECK(list->numBlocks >= 1);
    for (i = 0; i < list->numBlocks; i++) {
        CHECK(list->blocks[i].length > 0 && list->blocks[i].offset + list->blocks[i].length <= 2000);
    }
    CODE(VixDiskLib_FreeBlockList(list), VIX_OK);
    CODE(VixDiskLib_GetInfo(disk, &info), VIX_OK);
    metadata(disk);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CHECK(info->capacity == 2000 && info->numLinks == 1 && info->adapterType == VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC);
    CHECK(info->parentFileNameHint == NULL && info->logicalSectorSize == 512 && info->physicalSectorSize == 512);
    VixDiskLib_FreeInfo(info);

    CODE(VixDiskLib_Open(on, argv[1], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_OK);
    CODE(VixDiskLib_Write(disk, 0, 1, out), VIX_E_FILE_READ_ONLY);
    CODE(VixDiskLib_WriteMetadata(disk, "a", "b"), VIX_E_FILE_READ_ONLY);
    CODE(VixDiskLib_Flush(disk), VIX_OK);
    CODE(VixDiskLib_Wait(disk), VIX_OK);
    VixDiskLib_Exit(); /* with both handles open */
    CHECK(kept_panics == 0);
    free(in);
    free(out);
    return 0;
}
