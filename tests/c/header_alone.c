/* The header by itself, in every standard: the ways in which programs use it. */
#include "vixDiskLib.h"
#include "vixMntapi.h"

static void on_log(const char *fmt, va_list args) {
    (void)fmt;
    (void)args;
}
static Bool on_progress(void *data, int percent) {
    (void)data;
    return (Bool)percent;
}
static void on_done(void *data, VixError result) {
    (void)data;
    (void)result;
}

int main(void) {
    VixDiskLibGenericLogFunc *log = on_log;
    VixDiskLibProgressFunc progress = (VixDiskLibProgressFunc)&on_progress;
    VixDiskLibCompletionCB done = on_done;
    VixDiskLibSectorType sectors = 1;
    uint64 *same = &sectors;
    VIXDISKLIB_OPEN_FLAGS flags = VIXDISKLIB_FLAG_OPEN_READ_ONLY | VIXDISKLIB_FLAG_OPEN_COMPRESSION_MASK;
    VixDiskLibCreateParams create;
    VixDiskLibConnectParams *params = VixDiskLib_AllocateConnectParams();
    char *text = VixDiskLib_GetErrorText(VIX_OK, NULL);
    Bool yes = TRUE, no = FALSE;
    VixError err = VIX_E_FAIL;
    create.diskType = VIXDISKLIB_DISK_VMFS_THIN;
    create.adapterType = VIXDISKLIB_ADAPTER_UNKNOWN;
    (void)sizeof(((VixDiskLibCreateParams *)0)->physicalSectorSize);
    (void)sizeof(((VixDiskLibConnectParams *)0)->spec.vStorageObjSpec.ssId);
    (void)sizeof(((VixDiskLibConnectParams *)0)->spec.dsSpec.diskFolder);
    (void)sizeof(((VixDiskLibConnectParams *)0)->creds.sessionId.key);
    if VIX_FAILED(err) {
        err = *same * VIXDISKLIB_SECTOR_SIZE + VIXDISKLIB_MIN_CHUNK_SIZE + VIXDISKLIB_MAX_CHUNK_SIZE +
              VIXDISKLIB_MAX_CHUNK_NUMBER;
    }
    (void)(log == (VixDiskLibGenericLogFunc *)0 || progress == (VixDiskLibProgressFunc)0);
    (void)(done == (VixDiskLibCompletionCB)0 || flags == (uint32)create.diskType || yes == no);
    VixDiskLib_FreeErrorText(text);
    VixDiskLib_FreeConnectParams(params);
    free(malloc(1));
    return err == VIX_OK;
}
