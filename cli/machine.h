/* machine.h - facts about the machine that a measurement is labelled with. */
#ifndef OCTAVO_CLI_MACHINE_H
#define OCTAVO_CLI_MACHINE_H

#include "octavo/context.h"
#include <stddef.h>
#include <stdint.h>

enum { MACHINE_NAME_BYTES = 128, MACHINE_LABEL_BYTES = 192 };

/* The processor's name as the system reports it; never empty. */
void machine_cpu_name(char name[MACHINE_NAME_BYTES]);
/* The same in printable ASCII, behind it the name of a GPU: what a measurement is labelled with. */
void machine_label(const octavo_device *device, char label[MACHINE_LABEL_BYTES]);
/* Threads that OpenMP would use; 1 without it. */
int machine_threads(void);
/* Bytes of the last-level cache; 32 MiB where the system does not tell. */
int64_t machine_llc_bytes(void);
/* Bytes that can still be used without swapping, as far as the system and a control group's limit tell. */
int64_t machine_available_bytes(void);

/* Zeroed memory of a multiple of 2 MiB, in huge pages where the system has them; NULL: there is none. */
void *machine_map(size_t bytes);
void machine_unmap(void *memory, size_t bytes); /* NULL is fine */

/* Seconds of a clock that only goes forward. */
double machine_seconds(void);

#endif
