/* kerncheck_block_metadata.c - norms and mean rows of planes as they are stored are exact. */
#include "kerncheck.h"

int kc_check_block_metadata(const kc_pair *pair)
{
    kc_decode c;
    const unsigned norms = kc_chance(60) ? KC_NORMS : 0, means = kc_chance(80) ? KC_MEANS : 0;
    kc_draw_decode(&c, pair, KC_WRITABLE | norms | means);
    octavo_block_metadata_params p = { .kv = &c.view };
    kc_describe("%s%s", norms ? " norms" : "", means ? " means" : "");
    const kc_outcome outcome = kc_run(pair, KC_block_metadata, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
