/* Work on whole disks: every function once, in the order in which a program that restores would call them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vixDiskLib.h>

#define CHECK(call, expected)                                                                                 \
    do {                                                                                                      \
        VixError result = (call);                                                                             \
        if (VIX_ERROR_CODE(result) != (expected)) {                                                           \
            fprintf(stderr, "%s:%d: %s gives %lu, expected %lu\n", __FILE__, __LINE__, #call,                 \
                    (unsigned long)result, (unsigned long)(expected));                                        \
            return 1;                                                                                         \
        }                                                                                                     \
    } while (0)

#define CAPACITY 5000

static int last;

static char note(void *data, int percent) {
    if (data == NULL || percent < *(int *)data || percent > 100) {
        fprintf(stderr, "progress went from %d to %d\n", last, percent);
        exit(1);
    }
    *(int *)data = percent;
    return 1;
}

int main(int argc, char **argv) {
    char base[4096], grown[4096], child[4096];
    unsigned char out[512], in[512];
    VixDiskLibCreateParams params;
    VixDiskLibConnectParams nobody;
    VixDiskLibConnection connection = NULL;
    VixDiskLibHandle parent = NULL, redo = NULL;
    VixDiskLibInfo *info = NULL;

    if (argc != 2) {
        return 2;
    }
    snprintf(base, sizeof base, "%s/a disk.vmdk", argv[1]);
    snprintf(grown, sizeof grown, "%s/renamed.vmdk", argv[1]);
    snprintf(child, sizeof child, "%s/redo.vmdk", argv[1]);
    CHECK(VixDiskLib_Rename(base, grown), VIX_E_DISK_NOINIT);
    CHECK(VixDiskLib_InitEx(8, 0, NULL, NULL, NULL, NULL, NULL), VIX_OK);
    memset(&nobody, 0, sizeof nobody);
    CHECK(VixDiskLib_Connect(&nobody, &connection), VIX_OK);

    memset(&params, 0, sizeof params);
    params.diskType = VIXDISKLIB_DISK_SPLIT_SPARSE;
    params.adapterType = VIXDISKLIB_ADAPTER_SCSI_LSILOGIC;
    params.hwVersion = 13;
    params.capacity = 3000;
    last = 0;
    CHECK(VixDiskLib_Create(connection, base, &params, note, &last), VIX_OK);
    CHECK(last == 100 ? VIX_OK : VIX_E_FAIL, VIX_OK);
    CHECK(VixDiskLib_Create(connection, base, &params, NULL, NULL), VIX_E_FILE_ALREADY_EXISTS);

    last = 0;
    CHECK(VixDiskLib_Grow(connection, base, CAPACITY, 1, note, &last), VIX_OK);
    CHECK(last == 100 ? VIX_OK : VIX_E_FAIL, VIX_OK);
    CHECK(VixDiskLib_Grow(connection, base, 1, 1, NULL, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Rename(base, grown), VIX_OK);
    CHECK(VixDiskLib_Rename(base, grown), VIX_E_FILE_NOT_FOUND);

    CHECK(VixDiskLib_Open(connection, grown, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &parent), VIX_OK);
    last = 0;
    CHECK(VixDiskLib_CreateChild(parent, child, VIXDISKLIB_DISK_MONOLITHIC_SPARSE, note, &last), VIX_OK);
    CHECK(last == 100 ? VIX_OK : VIX_E_FAIL, VIX_OK);
    CHECK(VixDiskLib_Open(connection, child, VIXDISKLIB_FLAG_OPEN_SINGLE_LINK, &redo), VIX_OK);
    CHECK(VixDiskLib_IsAttachPossible(parent, parent), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_IsAttachPossible(redo, parent), VIX_E_DISK_INVALIDCHAIN);
    CHECK(VixDiskLib_IsAttachPossible(parent, redo), VIX_OK);
    CHECK(VixDiskLib_Attach(parent, redo), VIX_OK);
    CHECK(VixDiskLib_Close(parent), VIX_OK);
    memset(out, 0x5A, sizeof out);
    CHECK(VixDiskLib_Write(redo, CAPACITY - 1, 1, out), VIX_OK);
    CHECK(VixDiskLib_Read(redo, CAPACITY - 1, 1, in), VIX_OK);
    CHECK(memcmp(in, out, sizeof in) == 0 ? VIX_OK : VIX_E_FAIL, VIX_OK);
    CHECK(VixDiskLib_GetInfo(redo, &info), VIX_OK);
    CHECK(info->numLinks == 2 && info->capacity == CAPACITY ? VIX_OK : VIX_E_FAIL, VIX_OK);
    VixDiskLib_FreeInfo(info);
    CHECK(VixDiskLib_Unlink(connection, child), VIX_E_FILE_ALREADY_LOCKED);
    CHECK(VixDiskLib_Close(redo), VIX_OK);
    CHECK(VixDiskLib_Unlink(connection, child), VIX_OK);
    CHECK(VixDiskLib_Unlink(connection, grown), VIX_OK);
    CHECK(VixDiskLib_Unlink(connection, grown), VIX_E_FILE_NOT_FOUND);

    /* What cannot be meant. */
    CHECK(VixDiskLib_Unlink(NULL, grown), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Unlink(connection, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Rename(NULL, grown), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Rename(grown, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Grow(connection, NULL, 1, 0, NULL, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_CreateChild(NULL, child, 1, NULL, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_CreateChild(redo, child, 1, NULL, NULL), VIX_E_INVALID_HANDLE);
    CHECK(VixDiskLib_Attach(NULL, NULL), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_IsAttachPossible(NULL, redo), VIX_E_INVALID_ARG);
    CHECK(VixDiskLib_Disconnect(connection), VIX_OK);
    VixDiskLib_Exit();
    puts("all is well");
    return 0;
}
