/* k_project_amx.c - the K projection with its product on AMX tiles. */
#include "cpu/body/k_project_steps.h"

octavo_status octavo_k_project_amx(const octavo_exec *exec, const octavo_k_project_params *p);
octavo_status octavo_linear_amx(const octavo_exec *exec, const octavo_linear_params *p);
octavo_status octavo_kv_append_avx512(const octavo_exec *exec, const octavo_kv_append_params *p);

octavo_status octavo_k_project_amx(const octavo_exec *exec, const octavo_k_project_params *p)
{
    return project_by(exec, p, octavo_linear_amx, octavo_kv_append_avx512);
}
