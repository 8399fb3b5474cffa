/* k_project_body.h - the K projection: a linear layer into the workspace, rotated there and encoded; included after a level's
 * vocabulary. */
#include "cpu/body/k_project_steps.h"

octavo_status SIMD(k_project)(const octavo_exec *exec, const octavo_k_project_params *p);
octavo_status SIMD(linear)(const octavo_exec *exec, const octavo_linear_params *p);
octavo_status SIMD(kv_append)(const octavo_exec *exec, const octavo_kv_append_params *p);

octavo_status SIMD(k_project)(const octavo_exec *exec, const octavo_k_project_params *p)
{
    return project_by(exec, p, SIMD(linear), SIMD(kv_append));
}
