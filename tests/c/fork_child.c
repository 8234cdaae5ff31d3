/* A child of fork gets clean errors from what it inherited, can end and begin, and the parent notices nothing.
 * Arguments: a file for a disk. */
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

static void in_child(VixDiskLibConnection on, VixDiskLibHandle disk, VixDiskLibConnectParams *params, const char *path) {
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    VixDiskLibConnection mine;
    VixDiskLibHandle own;
    kept_clear();
    alarm(20); /* a child that waits for what it does not have ends like this */
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Flush(disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Close(disk), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Open(on, path, 0, &own), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Disconnect(on), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Connect(NULL, &mine), VIX_E_DISK_NOINIT);
    CHECK(kept_warn[0] == 0 && kept_log[0] == 0); /* the parent's functions are not called */
    VixDiskLib_Exit();
    start();
    CODE(VixDiskLib_ConnectEx(params, TRUE, NULL, NULL, &mine), VIX_OK);
    CODE(VixDiskLib_Read(disk, 0, 1, sector), VIX_E_INVALID_HANDLE);
    CODE(VixDiskLib_Disconnect(on), VIX_E_DISK_INVALID_CONNECTION);
    CODE(VixDiskLib_Open(mine, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &own), VIX_OK);
    CODE(VixDiskLib_Read(own, 64, 1, sector), VIX_OK);
    CHECK(sector[5] == 1);
    VixDiskLib_FreeConnectParams(params);
    VixDiskLib_Exit();
    CODE(VixDiskLib_Read(own, 64, 1, sector), VIX_E_INVALID_HANDLE);
    _exit(0);
}

int main(int argc, char **argv) {
    VixDiskLibConnection on;
    VixDiskLibHandle disk;
    VixDiskLibConnectParams *params;
    uint8 sector[VIXDISKLIB_SECTOR_SIZE];
    int round, status;
    CHECK(argc == 2);
    start();
    params = VixDiskLib_AllocateConnectParams();
    on = local();
    disk = new_disk(on, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    CODE(VixDiskLib_Flush(disk), VIX_OK);
    for (round = 0; round < 3; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            in_child(on, disk, params, argv[1]);
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CODE(VixDiskLib_Read(disk, 128, 1, sector), VIX_OK);
    CHECK(sector[0] == 2);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    VixDiskLib_FreeConnectParams(params);
    VixDiskLib_Exit();
    return 0;
}
