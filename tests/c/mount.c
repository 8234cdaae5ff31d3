/* Every function of the mount interface says that it does nothing, and returns that. */
#include "vixMntapi.h"

#include <stdio.h>
#include <string.h>

static char line[256];
static int lines;

static void on_log(const char *fmt, va_list args) {
    vsnprintf(line, sizeof line, fmt, args);
    lines++;
}

#define REFUSED(name, call)                                                                            \
    do {                                                                                               \
        lines = 0;                                                                                     \
        if ((call) != VIX_E_NOT_SUPPORTED || lines != 1 || strstr(line, name ": ") == NULL) return 1; \
    } while (0)

int main(void) {
    VixDiskSetHandle set = (VixDiskSetHandle)1;
    VixVolumeHandle *volumes = (VixVolumeHandle *)1;
    VixDiskSetInfo *setInfo = (VixDiskSetInfo *)1;
    VixVolumeInfo *volumeInfo = (VixVolumeInfo *)1;
    VixOsInfo *osInfo = (VixOsInfo *)1;
    size_t number = 7;
    if (VixMntapi_CloseDiskSet(NULL) != VIX_E_NOT_SUPPORTED) return 1; /* nobody to tell */
    REFUSED("VixMntapi_Init", VixMntapi_Init(1, 0, on_log, NULL, NULL, NULL, NULL));
    REFUSED("VixMntapi_OpenDiskSet", VixMntapi_OpenDiskSet(NULL, 0, 0, &set));
    REFUSED("VixMntapi_OpenDisks", VixMntapi_OpenDisks(NULL, NULL, 0, 0, &set));
    REFUSED("VixMntapi_GetDiskSetInfo", VixMntapi_GetDiskSetInfo(NULL, &setInfo));
    REFUSED("VixMntapi_CloseDiskSet", VixMntapi_CloseDiskSet(NULL));
    REFUSED("VixMntapi_GetVolumeHandles", VixMntapi_GetVolumeHandles(NULL, &number, &volumes));
    REFUSED("VixMntapi_GetOsInfo", VixMntapi_GetOsInfo(NULL, &osInfo));
    REFUSED("VixMntapi_MountVolume", VixMntapi_MountVolume(NULL, TRUE));
    REFUSED("VixMntapi_DismountVolume", VixMntapi_DismountVolume(NULL, TRUE));
    REFUSED("VixMntapi_GetVolumeInfo", VixMntapi_GetVolumeInfo(NULL, &volumeInfo));
    REFUSED("VixMntapi_GetVolumeInfo", VixMntapi_GetVolumeInfo(NULL, NULL));
    VixMntapi_FreeDiskSetInfo(setInfo);
    VixMntapi_FreeVolumeHandles(volumes);
    VixMntapi_FreeOsInfo(osInfo);
    VixMntapi_FreeVolumeInfo(volumeInfo);
    VixMntapi_Exit();
    lines = 0;
    if (VixMntapi_CloseDiskSet(NULL) != VIX_E_NOT_SUPPORTED || lines != 0) return 1;
    return set != NULL || volumes != NULL || setInfo != NULL || volumeInfo != NULL || osInfo != NULL || number != 0;
}
