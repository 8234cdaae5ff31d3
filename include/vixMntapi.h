/*
 * The interface for mounting the volumes of virtual disks.
 *
 * This library does not mount anything: every function says so through the `log` function given to VixMntapi_Init and returns
 * VIX_E_NOT_SUPPORTED. It is here for programs that are linked against it and do without when it fails.
 */

#ifndef _VIXMNTAPI_H_
#define _VIXMNTAPI_H_

/* Generated from src/mntapi by build.rs: change it there. */

#include "vixDiskLib.h"

/**
 * Never made.
 */
typedef struct VixDiskSetHandleStruct VixDiskSetHandleStruct;

/**
 * What a set of disks says about itself. Never made.
 */
typedef struct VixDiskSetInfo VixDiskSetInfo;

/**
 * What is known about the operating system on a set of disks. Never made.
 */
typedef struct VixOsInfo VixOsInfo;

/**
 * Never made.
 */
typedef struct VixVolumeHandleStruct VixVolumeHandleStruct;

/**
 * What a volume says about itself. Never made.
 */
typedef struct VixVolumeInfo VixVolumeInfo;

/**
 * A set of disks whose volumes belong together.
 */
typedef struct VixDiskSetHandleStruct *VixDiskSetHandle;

/**
 * A volume of a set of disks.
 */
typedef struct VixVolumeHandleStruct *VixVolumeHandle;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/**
 * Remembers `log` for messages until VixMntapi_Exit, and returns VIX_E_NOT_SUPPORTED.
 *
 * Requirements:
 * `log` is NULL or callable until VixMntapi_Exit returns.
 */
VixError VixMntapi_Init(uint32 majorVersion,
                        uint32 minorVersion,
                        VixDiskLibGenericLogFunc* log,
                        VixDiskLibGenericLogFunc* warn,
                        VixDiskLibGenericLogFunc* panic,
                        const char *libDir,
                        const char *configFile);

/**
 * Forgets `log`.
 */
void VixMntapi_Exit(void);

/**
 * Returns VIX_E_NOT_SUPPORTED; `diskSet` becomes NULL.
 *
 * Requirements:
 * `diskSet` is NULL or can be written.
 */
VixError VixMntapi_OpenDiskSet(VixDiskLibHandle *diskHandles,
                               size_t numberOfDisks,
                               uint32 openMode,
                               VixDiskSetHandle *diskSet);

/**
 * Returns VIX_E_NOT_SUPPORTED; `handle` becomes NULL.
 *
 * Requirements:
 * `handle` is NULL or can be written.
 */
VixError VixMntapi_OpenDisks(VixDiskLibConnection connection,
                             const char **diskNames,
                             size_t numberOfDisks,
                             uint32 openFlags,
                             VixDiskSetHandle *handle);

/**
 * Returns VIX_E_NOT_SUPPORTED; `diskSetInfo` becomes NULL.
 *
 * Requirements:
 * `diskSetInfo` is NULL or can be written.
 */
VixError VixMntapi_GetDiskSetInfo(VixDiskSetHandle handle, struct VixDiskSetInfo **diskSetInfo);

/**
 * Does nothing: there is nothing to free.
 */
void VixMntapi_FreeDiskSetInfo(struct VixDiskSetInfo *diskSetInfo);

/**
 * Returns VIX_E_NOT_SUPPORTED.
 */
VixError VixMntapi_CloseDiskSet(VixDiskSetHandle diskSet);

/**
 * Returns VIX_E_NOT_SUPPORTED; `numberOfVolumes` becomes 0 and `volumeHandles` NULL.
 *
 * Requirements:
 * `numberOfVolumes` and `volumeHandles` are NULL or can be written.
 */
VixError VixMntapi_GetVolumeHandles(VixDiskSetHandle diskSet,
                                    size_t *numberOfVolumes,
                                    VixVolumeHandle **volumeHandles);

/**
 * Does nothing: there is nothing to free.
 */
void VixMntapi_FreeVolumeHandles(VixVolumeHandle *volumeHandles);

/**
 * Returns VIX_E_NOT_SUPPORTED; `info` becomes NULL.
 *
 * Requirements:
 * `info` is NULL or can be written.
 */
VixError VixMntapi_GetOsInfo(VixDiskSetHandle diskSet, struct VixOsInfo **info);

/**
 * Does nothing: there is nothing to free.
 */
void VixMntapi_FreeOsInfo(struct VixOsInfo *info);

/**
 * Returns VIX_E_NOT_SUPPORTED.
 */
VixError VixMntapi_MountVolume(VixVolumeHandle volumeHandle, Bool readOnly);

/**
 * Returns VIX_E_NOT_SUPPORTED.
 */
VixError VixMntapi_DismountVolume(VixVolumeHandle volumeHandle, Bool force);

/**
 * Returns VIX_E_NOT_SUPPORTED; `info` becomes NULL.
 *
 * Requirements:
 * `info` is NULL or can be written.
 */
VixError VixMntapi_GetVolumeInfo(VixVolumeHandle volumeHandle, struct VixVolumeInfo **info);

/**
 * Does nothing: there is nothing to free.
 */
void VixMntapi_FreeVolumeInfo(struct VixVolumeInfo *info);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* _VIXMNTAPI_H_ */
