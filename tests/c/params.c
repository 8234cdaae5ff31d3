/* Who owns which strings, which bytes are looked at, and the ways to say "local". */
#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

static void connects(const VixDiskLibConnectParams *params) {
    VixDiskLibConnection on = NULL;
    CODE(VixDiskLib_Connect(params, &on), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    CODE(VixDiskLib_ConnectEx(params, TRUE, NULL, NULL, &on), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    CODE(VixDiskLib_ConnectEx(params, FALSE, "", "file:nbdssl:nbd", &on), VIX_OK);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    CODE(VixDiskLib_PrepareForAccess(params, "somebody"), VIX_OK);
    CODE(VixDiskLib_EndAccess(params, "somebody"), VIX_OK);
    CODE(VixDiskLib_Cleanup(params, NULL, NULL), VIX_OK);
}

static void ways_to_say_local(void) {
    VixDiskLibConnectParams zero;
    VixDiskLibConnectParams *given = VixDiskLib_AllocateConnectParams();
    char empty[1] = "";
    memset(&zero, 0, sizeof zero);
    connects(NULL);
    connects(&zero);
    connects(given);
    zero.serverName = empty;
    zero.credType = VIXDISKLIB_CRED_UID;
    zero.creds.uid.userName = zero.creds.uid.password = empty;
    connects(&zero);
    zero.vmxSpec = empty;
    zero.port = 443;
    connects(&zero);
    VixDiskLib_FreeConnectParams(given);
}

/* Structures of programs built for older headers, ending where the memory ends. */
static void short_structures(void) {
    static const size_t sizes[] = {72, 80};
    long page = sysconf(_SC_PAGESIZE);
    char *map = (char *)mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char server[] = "vc.example.invalid", user[] = "u", password[] = "p";
    size_t i;
    CHECK(map != (char *)MAP_FAILED && mprotect(map + page, (size_t)page, PROT_NONE) == 0);
    for (i = 0; i < 2; i++) {
        VixDiskLibConnection on = NULL;
        VixDiskLibConnectParams *params = (VixDiskLibConnectParams *)(void *)(map + page - sizes[i]);
        memset(params, 0, sizes[i]);
        connects(params);
        params->serverName = server;
        params->credType = VIXDISKLIB_CRED_UID;
        params->creds.uid.userName = user;
        params->creds.uid.password = password;
        params->nfcHostPort = 0xdeadbeef; /* padding, once */
        CODE(VixDiskLib_ConnectEx(params, TRUE, NULL, "nbd", &on), VIX_OK);
        CODE(VixDiskLib_Disconnect(on), VIX_OK);
        params->credType = VIXDISKLIB_CRED_SSPI;
        CODE(VixDiskLib_Connect(params, &on), VIX_E_NOT_SUPPORTED);
        CHECK(on == NULL);
        params->credType = VIXDISKLIB_CRED_TICKETID;
        CODE(VixDiskLib_Connect(params, &on), VIX_E_NOT_SUPPORTED);
        params->credType = VIXDISKLIB_CRED_UID;
        params->port = 65536;
        CODE(VixDiskLib_Connect(params, &on), VIX_E_INVALID_ARG);
    }
    munmap(map, (size_t)page * 2);
}

static void copies(void) {
    VixDiskLibConnection on = NULL;
    VixDiskLibConnectParams *given = VixDiskLib_AllocateConnectParams(), *copy = NULL;
    char server[] = "127.0.0.1", user[] = "user", password[] = "secret", moref[] = "moref=vm-1", thumb[] = "AA:BB";
    given->vmxSpec = moref;
    given->serverName = server;
    given->thumbPrint = thumb;
    given->credType = VIXDISKLIB_CRED_UID;
    given->creds.uid.userName = user;
    given->creds.uid.password = password;
    given->port = 1; /* where nobody listens */
    given->nfcHostPort = 903;
    given->specType = (VixDiskLibSpecType)4711; /* not looked at next to a vmxSpec */
    CODE(VixDiskLib_ConnectEx(given, TRUE, "snapshot-1", "nbdssl:nbd", &on), VIX_OK);
    CODE(VixDiskLib_Cleanup(given, NULL, NULL), VIX_OK);
    CODE(VixDiskLib_PrepareForAccess(given, NULL), VIX_E_INVALID_ARG);
    CODE(VixDiskLib_PrepareForAccess(given, "somebody"), VIX_E_HOST_NETWORK_CONN_REFUSED);
    memset(server, 'x', sizeof server - 1); /* the library has copies */
    memset(password, 'x', sizeof password - 1);
    VixDiskLib_FreeConnectParams(given); /* and leaves our strings alone: they are not from malloc */
    CODE(VixDiskLib_GetConnectParams(on, &copy), VIX_OK);
    CHECK(strcmp(copy->serverName, "127.0.0.1") == 0 && strcmp(copy->vmxSpec, "moref=vm-1") == 0);
    CHECK(strcmp(copy->thumbPrint, "AA:BB") == 0 && copy->credType == VIXDISKLIB_CRED_UID);
    CHECK(strcmp(copy->creds.uid.userName, "user") == 0 && strcmp(copy->creds.uid.password, "secret") == 0);
    CHECK(copy->port == 1 && copy->nfcHostPort == 903 && copy->specType == VIXDISKLIB_SPEC_VMX);
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    CODE(VixDiskLib_Connect(copy, &on), VIX_OK); /* it can be used like any other */
    CODE(VixDiskLib_Disconnect(on), VIX_OK);
    copy->thumbPrint = user; /* what the caller puts into a copy stays the caller's */
    VixDiskLib_FreeConnectParams(copy);
    VixDiskLib_FreeConnectParams(copy); /* once is enough */
    VixDiskLib_FreeConnectParams((VixDiskLibConnectParams *)(void *)user);
    CHECK(strstr(kept_log, "secret") == NULL && strstr(kept_warn, "secret") == NULL);
}

int main(void) {
    start();
    ways_to_say_local();
    short_structures();
    copies();
    VixDiskLib_Exit();
    CHECK(kept_panics == 0);
    return 0;
}
