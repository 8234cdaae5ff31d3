/* Work on whole disks is refused with "not supported" once its arguments are right, and said why; nothing is touched.
 * Arguments: a file for a disk. */
#include "check.h"

#define REFUSED(call)                                   \
    do {                                                \
        kept_clear();                                   \
        CODE(call, VIX_E_NOT_SUPPORTED);                \
        CHECK(strstr(kept_warn, "this build") != NULL); \
    } while (0)

int main(int argc, char **argv) {
    VixDiskLibConnection on;
    VixDiskLibHandle disk;
    CHECK(argc == 2);
    start();
    on = local();
    disk = new_disk(on, argv[1], VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    REFUSED(VixDiskLib_Grow(on, argv[1], 4096, TRUE, NULL, NULL));
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_Open(on, argv[1], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_OK);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    VixDiskLib_Exit();
    return 0;
}
