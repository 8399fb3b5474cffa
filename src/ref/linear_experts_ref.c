/* linear_experts_ref.c - the definition of the experts' linear layers: each expert's rows through its own weights. */
#include "ref/install_ref.h"

static void move_to(octavo_tensor *x, int64_t first, int64_t rows)
{
    x->data = (uint8_t *)x->data + (size_t)(first * x->strides[0]) * octavo_dtype_bytes(x->dtype);
    x->shape[0] = rows;
}

octavo_status octavo_linear_experts_ref(const octavo_exec *exec, const octavo_linear_experts_params *p)
{
    for (int64_t e = 0; e < p->experts; e++) {
        const int64_t first = p->offsets[e], rows = p->offsets[e + 1] - first;
        octavo_linear_params its = p->of;
        if (rows == 0) continue;
        move_to(&its.x, first, rows);
        for (int i = 0; i < its.part_count; i++) {
            its.parts[i] = octavo_linear_expert_part(p, i, e);
            move_to(&its.parts[i].y, first, rows);
        }
        const octavo_status status = octavo_linear_ref(exec, &its);
        if (status != OCTAVO_OK) return status;
    }
    return OCTAVO_OK;
}
