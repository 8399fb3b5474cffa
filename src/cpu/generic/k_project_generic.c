/* k_project_generic.c - the K projection for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/k_project_body.h"
