/* model_load_place.c - where weights lie: in the mapping as they are, or in one piece of device memory. */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory_available.h"
#include "model/model_load.h"

enum { PLACE_ALIGN = 256, HOST_ALIGN = 64, MIB = 1 << 20 };

int octavo_load_is_measuring(const octavo_loader *loader) { return loader->arena->memory == NULL; }

static int is_on_host(const octavo_loader *loader) { return octavo_device_kind_of(loader->exec.device) == OCTAVO_DEVICE_CPU; }

octavo_status octavo_load_take(octavo_loader *loader, size_t bytes, void **at)
{
    static _Alignas(PLACE_ALIGN) uint8_t nowhere[PLACE_ALIGN];
    octavo_model_arena *arena = loader->arena;
    size_t end;
    if (!octavo_checked_add_size(arena->used, bytes, &end) || !octavo_checked_add_size(end, PLACE_ALIGN - 1, &end))
        return octavo_fail(OCTAVO_E_NOMEM, "the model's weights need more memory than can be addressed");
    *at = arena->memory ? arena->memory + arena->used : nowhere;
    arena->used = end / PLACE_ALIGN * PLACE_ALIGN;
    return OCTAVO_OK;
}

octavo_status octavo_load_place(octavo_loader *loader, const void *host, size_t bytes, const void **at)
{
    void *room = NULL;
    *at = host;
    if (is_on_host(loader)) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_take(loader, bytes, &room));
    *at = room;
    return octavo_load_is_measuring(loader) ? OCTAVO_OK : octavo_device_upload(&loader->exec, room, host, bytes);
}

octavo_status octavo_load_make(octavo_loader *loader, size_t bytes, octavo_load_fill fill, const void *argument, const void **at)
{
    void *room = NULL;
    OCTAVO_TRY(octavo_load_take(loader, bytes, &room));
    *at = room;
    if (octavo_load_is_measuring(loader)) return OCTAVO_OK;
    if (is_on_host(loader)) return fill(loader, argument, room);
    octavo_context *context = octavo_device_context(loader->exec.device);
    void *staging = octavo_context_allocate(context, bytes, HOST_ALIGN);
    if (!staging) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %zu bytes on their way to the device", bytes);
    octavo_status status = fill(loader, argument, staging);
    if (status == OCTAVO_OK) status = octavo_device_upload(&loader->exec, room, staging, bytes);
    octavo_context_release(context, staging, bytes);
    return status;
}

octavo_status octavo_model_arena_claim(octavo_model_arena *arena, octavo_device *device, const char *label)
{
    arena->bytes = arena->used ? arena->used : PLACE_ALIGN;
    arena->used = 0;
    const size_t available = octavo_memory_available();
    if (octavo_device_kind_of(device) == OCTAVO_DEVICE_CPU && arena->bytes > available)
        return octavo_fail(OCTAVO_E_NOMEM, "%s: its weights need %zu MiB of memory beside the mapped files, but %zu MiB are available",
                           label, arena->bytes / MIB, available / MIB);
    void *memory;
    OCTAVO_TRY(octavo_device_allocate(device, arena->bytes, &memory));
    arena->memory = memory;
    return OCTAVO_OK;
}

void octavo_model_arena_release(octavo_model_arena *arena, octavo_device *device)
{
    octavo_device_release(device, arena->memory, arena->bytes);
    *arena = (octavo_model_arena){ 0 };
}
