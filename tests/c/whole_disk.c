/* Checking, shrinking and putting in order. Arguments: a file for a sparse disk, one for a flat disk. */
#include "check.h"

struct told {
    VixDiskLibHandle disk;
    int last;
};

static Bool progress(void *data, int percent) {
    struct told *told = (struct told *)data;
    uint8 sector[512];
    CHECK(percent >= told->last && percent <= 100);
    told->last = percent;
    /* The disk is somebody else's at the moment, namely ours. */
    CODE(VixDiskLib_Read(told->disk, 0, 1, sector), VIX_E_OBJECT_IS_BUSY);
    CODE(VixDiskLib_Close(told->disk), VIX_E_OBJECT_IS_BUSY);
    CODE(VixDiskLib_Shrink(told->disk, NULL, NULL), VIX_E_OBJECT_IS_BUSY);
    return 0;
}

static long length(const char *path) {
    FILE *file = fopen(path, "rb");
    long size;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    size = ftell(file);
    fclose(file);
    return size;
}

static void poke(const char *path, long at, int byte) {
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL && fseek(file, at, SEEK_SET) == 0 && fputc(byte, file) == byte && fclose(file) == 0);
}

static void sparse(VixDiskLibConnection on, const char *path) {
    static uint8 data[128 * 512], zeros[128 * 512], back[128 * 512];
    VixDiskLibHandle disk = new_disk(on, path, VIXDISKLIB_DISK_MONOLITHIC_SPARSE);
    struct told told = {NULL, -1};
    long before;
    int grain;
    for (grain = 7; grain >= 0; grain--) {
        memset(data, grain + 1, sizeof data);
        CODE(VixDiskLib_Write(disk, (VixDiskLibSectorType)grain * 128, 128, data), VIX_OK);
        if (grain % 2) CODE(VixDiskLib_Write(disk, (VixDiskLibSectorType)grain * 128, 128, zeros), VIX_OK);
    }
    CODE(VixDiskLib_Close(disk), VIX_OK);
    before = length(path);
    CODE(VixDiskLib_Open(on, path, 0, &told.disk), VIX_OK);
    CODE(VixDiskLib_CheckRepair(on, path, FALSE), VIX_E_FILE_ALREADY_LOCKED);
    CODE(VixDiskLib_Shrink(told.disk, progress, &told), VIX_OK);
    CHECK(told.last == 100 && length(path) <= before - 4 * 65536);
    told.last = -1;
    CODE(VixDiskLib_Defragment(told.disk, progress, &told), VIX_OK);
    CHECK(told.last == 100);
    for (grain = 0; grain < 8; grain++) {
        memset(data, grain % 2 ? 0 : grain + 1, sizeof data);
        CODE(VixDiskLib_Read(told.disk, (VixDiskLibSectorType)grain * 128, 128, back), VIX_OK);
        CHECK(memcmp(data, back, sizeof data) == 0);
    }
    CODE(VixDiskLib_Close(told.disk), VIX_OK);
    CODE(VixDiskLib_Open(on, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_OK);
    CODE(VixDiskLib_Shrink(disk, NULL, NULL), VIX_E_FILE_READ_ONLY);
    CODE(VixDiskLib_Defragment(disk, NULL, NULL), VIX_E_FILE_READ_ONLY);
    CODE(VixDiskLib_Close(disk), VIX_OK);
}

static void check(VixDiskLibConnection on, const char *path) {
    kept_clear();
    CODE(VixDiskLib_CheckRepair(on, path, FALSE), VIX_OK);
    CHECK(strstr(kept_log, "0 faults found") != NULL);
    poke(path, 72, 1); /* uncleanShutdown */
    kept_clear();
    CODE(VixDiskLib_CheckRepair(on, path, FALSE), VIX_OK); /* the check was made */
    CHECK(strstr(kept_log, "did not close") != NULL && strstr(kept_log, "1 faults found, 0 mended") != NULL);
    CODE(VixDiskLib_CheckRepair(on, path, TRUE), VIX_OK);
    kept_clear();
    CODE(VixDiskLib_CheckRepair(on, path, 7), VIX_OK);
    CHECK(strstr(kept_log, "0 faults found") != NULL);
    poke(path, 13, 7); /* 1792 sectors instead of 2048 */
    kept_clear();
    CODE(VixDiskLib_CheckRepair(on, path, TRUE), VIX_E_DISK_CANTREPAIR);
    CHECK(strstr(kept_log, "the descriptor says") != NULL);
    CODE(VixDiskLib_CheckRepair(on, "/nowhere/d.vmdk", FALSE), VIX_E_FILE_NOT_FOUND);
}

static void flat(VixDiskLibConnection on, const char *path) {
    VixDiskLibHandle disk = new_disk(on, path, VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    CODE(VixDiskLib_Shrink(disk, NULL, NULL), VIX_OK);
    CODE(VixDiskLib_Defragment(disk, NULL, NULL), VIX_OK);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_CheckRepair(on, path, TRUE), VIX_OK);
}

int main(int argc, char **argv) {
    VixDiskLibConnection on;
    CHECK(argc == 3);
    start();
    on = local();
    sparse(on, argv[1]);
    check(on, argv[1]);
    flat(on, argv[2]);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    VixDiskLib_Exit();
    return 0;
}
