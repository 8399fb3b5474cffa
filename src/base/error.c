/* error.c - the thread's last error sentence. */
#include "base/error.h"
#include <stdarg.h>
#include <stdio.h>

enum { ERROR_BYTES = 512 };

static _Thread_local char last_error[ERROR_BYTES];

octavo_status octavo_fail(octavo_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    for (char *c = last_error; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return status;
}

const char *octavo_last_error(void) { return last_error; }

const char *octavo_status_text(octavo_status status)
{
    switch (status) {
    case OCTAVO_OK:            return "success";
    case OCTAVO_E_ARGUMENT:    return "invalid argument";
    case OCTAVO_E_SHAPE:       return "sizes or strides contradict each other";
    case OCTAVO_E_RANGE:       return "index or length out of range";
    case OCTAVO_E_UNSUPPORTED: return "not supported here";
    case OCTAVO_E_NOMEM:       return "out of memory";
    case OCTAVO_E_IO:          return "input or output failed";
    case OCTAVO_E_FORMAT:      return "malformed file";
    case OCTAVO_E_DEVICE:      return "device absent or failed";
    case OCTAVO_E_NONFINITE:   return "NaN or infinity in the input";
    case OCTAVO_E_VERSION:     return "another version";
    }
    return "unknown status";
}
