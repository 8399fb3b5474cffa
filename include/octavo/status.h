/* status.h - the one error type of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_STATUS_H
#define OCTAVO_STATUS_H

#include "octavo/export.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_status {
    OCTAVO_OK            = 0,
    OCTAVO_E_ARGUMENT    = -1,  /* a value outside what the function documents        */
    OCTAVO_E_SHAPE       = -2,  /* sizes or strides contradict each other             */
    OCTAVO_E_RANGE       = -3,  /* an index or a length past what exists or is reserved */
    OCTAVO_E_UNSUPPORTED = -4,  /* valid request, but nothing here does it            */
    OCTAVO_E_NOMEM       = -5,
    OCTAVO_E_IO          = -6,  /* the operating system refused; the text says why    */
    OCTAVO_E_FORMAT      = -7,  /* file content is malformed                          */
    OCTAVO_E_DEVICE      = -8,  /* no such device, or its driver reported a failure   */
    OCTAVO_E_NONFINITE   = -9,  /* NaN or Inf in the input; nothing was written       */
    OCTAVO_E_VERSION     = -10  /* a struct or a plug-in of another version           */
} octavo_status;

/* Static English text, never NULL, also for values that are not in the enum. */
OCTAVO_API const char *octavo_status_text(octavo_status status);

/* The sentence that belongs to this thread's last failed call: it names the argument, its value and what was expected.
 * Never NULL; "" before the first failure. Valid until the next failing call on this thread. */
OCTAVO_API const char *octavo_last_error(void);

OCTAVO_END_DECLS

#endif
