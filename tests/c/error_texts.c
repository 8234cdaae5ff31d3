/* Every code has a text; some texts hold phrases that programs look for. */
#include "check.h"

#include <ctype.h>

static int holds(VixError code, const char *phrase) {
    char *text = VixDiskLib_GetErrorText(code, NULL);
    int found = text != NULL && strstr(text, phrase) != NULL;
    VixDiskLib_FreeErrorText(text);
    return found;
}

int main(void) {
    VixError code;
    for (code = 0; code < 70000; code++) {
        char *text = VixDiskLib_GetErrorText(code, "de_DE");
        size_t length = text == NULL ? 0 : strlen(text);
        CHECK(length > 3 && text[length - 1] != '.' && isupper((unsigned char)text[0]));
        VixDiskLib_FreeErrorText(text);
    }
    CHECK(holds(VIX_E_FAIL, "Unknown error"));
    CHECK(holds(VIX_E_FILE_ACCESS_ERROR, "You do not have access rights to this file"));
    CHECK(holds(VIX_E_HOST_NETWORK_CONN_REFUSED, "The server refused connection"));
    CHECK(holds(((VixError)28 << 32) | (4 << 24) | VIX_E_FAIL, "Unknown error"));
    CHECK(holds(~(VixError)0, "Unknown error"));
    CHECK(VIX_FAILED(VIX_ASYNC) && VIX_SUCCEEDED(VIX_OK) && VIX_ERROR_CODE(~(VixError)0) == 0xFFFF);
    return 0;
}
