/* octavo.h - the whole stable API.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_OCTAVO_H
#define OCTAVO_OCTAVO_H

#include "octavo/attention.h"
#include "octavo/context.h"
#include "octavo/kproj.h"
#include "octavo/kvcache.h"
#include "octavo/layer.h"
#include "octavo/linear.h"
#include "octavo/prefill.h"
#include "octavo/quant.h"
#include "octavo/rope.h"
#include "octavo/status.h"
#include "octavo/tensor.h"
#include "octavo/version.h"
#include "octavo/weight.h"

#endif
