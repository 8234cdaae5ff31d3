/* What is said, through which function, on which thread, and in which words programs look for it.
 * Arguments: a folder to work in. */
#include "check.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_t said_on;
static int said;

static void on_warn_thread(const char *fmt, va_list args) {
    on_warn(fmt, args);
    said_on = pthread_self();
    said++;
}

static VixDiskLibConnection busy;

/* A host that calls the library from its message function, which fails, which calls the message function... */
static void on_warn_again(const char *fmt, va_list args) {
    VixDiskLibHandle disk;
    on_warn(fmt, args);
    said++;
    CODE(VixDiskLib_Open(busy, "/nonexistent/again.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_E_FILE_NOT_FOUND);
}

static void *elsewhere(void *connection) {
    VixDiskLibHandle disk;
    CODE(VixDiskLib_Open((VixDiskLibConnection)connection, "/nonexistent/100%s%n.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY,
                         &disk),
         VIX_E_FILE_NOT_FOUND);
    CHECK(said == 1 && pthread_equal(said_on, pthread_self()));
    return NULL;
}

static void configured(const char *folder, const char *text, const char *expected) {
    char path[512];
    FILE *file;
    snprintf(path, sizeof path, "%s/vddk.conf", folder);
    file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    kept_clear();
    CODE(VixDiskLib_InitEx(6, 5, on_log, on_warn, on_panic, "", path), VIX_OK);
    CHECK(remove(path) == 0);
    CHECK(strncmp(kept_log, "VMware VixDiskLib (8.0.3) Release build-", 40) == 0);
    CHECK(expected == NULL ? strchr(kept_log, '\n')[1] == 0 : strstr(kept_log, expected) != NULL);
    CHECK(kept_warn[0] == 0);
    VixDiskLib_Exit();
}

int main(int argc, char **argv) {
    char path[4200], folder[512];
    pthread_t thread;
    VixDiskLibHandle disk;
    size_t length;
    CHECK(argc == 2);
    snprintf(folder, sizeof folder, "%s", argv[1]);

    configured(folder, "", NULL);
    configured(folder, "vixdisklib.transport.loglevel=1\n# x\n\nVixDiskLib.nfcAio.Session.BufSizeIn64KB=16", NULL);
    configured(folder, "some.key = 1\nsome.key = 2\n", "unknown key 'some.key'");
    configured(folder, "vixDiskLib.nfc.ReadTimeoutMs = soon\n", "'soon' of vixDiskLib.nfc.ReadTimeoutMs is not a number");
    kept_clear();
    CODE(VixDiskLib_InitEx(8, 0, on_log, on_warn, on_panic, NULL, "/nonexistent/vddk.conf"), VIX_OK);
    CHECK(strstr(kept_log, "/nonexistent/vddk.conf") != NULL && kept_warn[0] == 0);
    VixDiskLib_Exit();

    kept_clear();
    CODE(VixDiskLib_InitEx(8, 0, on_log, on_warn_thread, on_panic, NULL, NULL), VIX_OK);
    busy = local();
    CHECK(pthread_create(&thread, NULL, elsewhere, busy) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(strstr(kept_log, "VixDiskLib: VixDiskLib_OpenEx: Cannot open disk /nonexistent/100%s%n.vmdk. Error 4 (") != NULL);
    CHECK(strstr(kept_log, ") (DiskLib error 4: VIX_E_FILE_NOT_FOUND) at ") != NULL);
    CHECK(strstr(kept_log, "VixDiskLib: VixDiskLib_Open: Cannot open disk /nonexistent/100%s%n.vmdk. Error 4 (") != NULL);
    CHECK(strstr(kept_warn, "VixDiskLib_Open: ") != NULL && strstr(kept_warn, "100%s%n.vmdk") != NULL);

    /* These two are said whatever the level is. */
    snprintf(path, sizeof path, "%s/vddk.conf", folder);
    {
        FILE *file = fopen(path, "w");
        CHECK(file != NULL && fputs("vixDiskLib.transport.LogLevel = 0\n", file) >= 0 && fclose(file) == 0);
    }
    CODE(VixDiskLib_InitEx(8, 0, NULL, NULL, NULL, NULL, path), VIX_OK);
    kept_clear();
    CODE(VixDiskLib_Open(busy, "/nonexistent/x.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_E_FILE_NOT_FOUND);
    CHECK(strstr(kept_log, "VixDiskLib_OpenEx: Cannot open disk") != NULL && kept_warn[0] == 0);
    CODE(VixDiskLib_Init(8, 0, NULL, NULL, NULL, NULL), VIX_OK);
    VixDiskLib_Exit();
    VixDiskLib_Exit();

    /* Lines of any length arrive whole enough: the beginning, and the cause at the end. */
    kept_clear();
    strcpy(path, "/");
    for (length = 1; length < 4000; length += 100) {
        memset(path + length, '%', 99);
        path[length + 99] = '/';
    }
    path[length] = 0;
    strcat(path, "x.vmdk");
    CODE(VixDiskLib_Open(busy, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_E_FILE_NOT_FOUND);
    CHECK(strstr(kept_warn, "VixDiskLib: VixDiskLib_Open: ") == kept_warn && strstr(kept_warn, ". Error 4 (") != NULL);

    /* Everyday answers are no errors. */
    kept_clear();
    snprintf(path, sizeof path, "%s/quiet.vmdk", folder);
    disk = new_disk(busy, path, VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    CODE(VixDiskLib_ReadMetadata(disk, "adapterType", NULL, 0, &length), VIX_E_BUFFER_TOOSMALL);
    CODE(VixDiskLib_GetMetadataKeys(disk, NULL, 0, &length), VIX_E_BUFFER_TOOSMALL);
    CODE(VixDiskLib_ReadMetadata(disk, "no.such.key", NULL, 0, &length), VIX_E_DISK_KEY_NOTFOUND);
    CODE(VixDiskLib_Close(disk), VIX_OK);
    CHECK(kept_warn[0] == 0);

    /* A host that goes round in circles gets out. */
    CODE(VixDiskLib_Init(8, 0, NULL, on_warn_again, NULL, NULL), VIX_OK);
    said = 0;
    CODE(VixDiskLib_Open(busy, "/nonexistent/x.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk), VIX_E_FILE_NOT_FOUND);
    CHECK(said >= 1 && said <= 8);
    VixDiskLib_Exit();
    VixDiskLib_Exit();

    /* Without functions lines go to a private file. */
    snprintf(path, sizeof path, "%s/vddk.conf", folder);
    {
        FILE *file = fopen(path, "w");
        struct stat status;
        CHECK(file != NULL && fprintf(file, "tmpDirectory=\"%s/logs\"", folder) > 0 && fclose(file) == 0);
        CODE(VixDiskLib_InitEx(8, 0, NULL, NULL, NULL, NULL, path), VIX_OK);
        CODE(VixDiskLib_Close(garbage(1)), VIX_E_INVALID_HANDLE);
        VixDiskLib_Exit();
        snprintf(path, sizeof path, "%s/logs/vixDiskLib-%ld.log", folder, (long)getpid());
        CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == 0600 && status.st_size > 100);
    }
    CHECK(kept_panics == 0);
    return 0;
}
