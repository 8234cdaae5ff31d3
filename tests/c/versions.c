/* InitEx takes every older interface version, refuses newer ones without harm, may be repeated, and is undone by as many
 * Exits. */
#include "check.h"

int main(void) {
    static const uint32 accepted[][2] = {{1, 0}, {1, 2}, {5, 1}, {5, 5}, {6, 5}, {6, 7}, {7, 0}, {8, 0}, {9, 0}, {9, 1}};
    VixDiskLibConnection on;
    size_t i;
    for (i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        CODE(VixDiskLib_InitEx(accepted[i][0], accepted[i][1], on_log, on_warn, on_panic, "/nowhere", NULL), VIX_OK);
        VixDiskLib_Exit();
    }
    CODE(VixDiskLib_InitEx(10, 0, on_log, on_warn, on_panic, NULL, NULL), VIX_E_NOT_SUPPORTED);
    CODE(VixDiskLib_Init(4000000000u, 0, NULL, NULL, NULL, NULL), VIX_E_NOT_SUPPORTED);
    CODE(VixDiskLib_Connect(NULL, &on), VIX_E_DISK_NOINIT);
    CHECK(kept_warn[0] == 0);

    CODE(VixDiskLib_Init(1, 0, on_log, on_warn, on_panic, NULL), VIX_OK);
    for (i = 0; i < 7; i++) {
        CODE(VixDiskLib_Init(8, 0, NULL, NULL, NULL, NULL), VIX_OK); /* NULL keeps the functions of before */
    }
    on = local();
    for (i = 0; i < 7; i++) {
        VixDiskLib_Exit();
        CODE(VixDiskLib_Disconnect(on), VIX_OK);
        on = local();
    }
    kept_clear();
    CODE(VixDiskLib_Disconnect((VixDiskLibConnection)garbage(1)), VIX_E_DISK_INVALID_CONNECTION);
    CHECK(strstr(kept_warn, "VixDiskLib_Disconnect") != NULL);
    VixDiskLib_Exit(); /* the last one */
    kept_clear();
    CODE(VixDiskLib_Disconnect(on), VIX_E_DISK_NOINIT);
    CHECK(kept_warn[0] == 0 && kept_log[0] == 0);
    VixDiskLib_Exit();
    VixDiskLib_Exit();
    start();
    CODE(VixDiskLib_Disconnect(on), VIX_E_DISK_INVALID_CONNECTION);
    VixDiskLib_Exit();
    return 0;
}
