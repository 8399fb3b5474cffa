/* prefill_validate.h - what a prefill call may ask. */
#ifndef OCTAVO_ATTENTION_PREFILL_VALIDATE_H
#define OCTAVO_ATTENTION_PREFILL_VALIDATE_H

#include "octavo/prefill.h"

/* Everything that the size of the workspace depends on. */
octavo_status octavo_prefill_check_shapes(const octavo_prefill_params *params);

/* Everything else that can be wrong with a call, before anything is written. */
octavo_status octavo_prefill_check_memory(const octavo_prefill_params *params);

#endif
