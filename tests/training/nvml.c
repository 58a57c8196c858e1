// A driver's NVML with as many GPUs as SIMULATED_GPUS says: "2", or "1 mig2" for a second one with two MIG instances.
// What is asked of it here is what pynvml and PyTorch ask.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned gpu, part; } *Handle;  // part 0: the whole GPU
typedef struct { unsigned long long total, free, used; } Memory;
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

static unsigned parts[64], count;  // MIG instances of each GPU

int nvmlInit_v2(void) {
    const char *text = getenv("SIMULATED_GPUS");
    char copy[256];
    if (!text) return 9;  // the driver is not loaded
    count = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        if (!strncmp(word, "mig", 3)) parts[count++] = atoi(word + 3);
        else for (int left = atoi(word); left > 0; left--) parts[count++] = 0;
    }
    return SUCCESS;
}
int nvmlInit(void) { return nvmlInit_v2(); }
int nvmlInitWithFlags(unsigned flags) { return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "simulated"; }

int nvmlDeviceGetCount_v2(unsigned *found) { *found = count; return SUCCESS; }

static Handle handle(unsigned gpu, unsigned part) {
    Handle made = malloc(sizeof *made);
    made->gpu = gpu, made->part = part;
    return made;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned gpu, Handle *found) {
    if (gpu >= count) return INVALID_ARGUMENT;
    *found = handle(gpu, 0);
    return SUCCESS;
}
int nvmlDeviceGetMigMode(Handle gpu, unsigned *now, unsigned *pending) {
    if (!getenv("SIMULATED_MIG")) return NOT_SUPPORTED;
    *now = *pending = parts[gpu->gpu] > 0;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(Handle gpu, unsigned *most) { *most = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Handle gpu, unsigned number, Handle *found) {
    if (number >= parts[gpu->gpu]) return NOT_FOUND;
    *found = handle(gpu->gpu, number + 1);
    return SUCCESS;
}
int nvmlDeviceGetUUID(Handle gpu, char *uuid, unsigned size) {
    if (gpu->part) snprintf(uuid, size, "MIG-%08x-0000-0000-0000-%012x", gpu->gpu, gpu->part);
    else snprintf(uuid, size, "GPU-%08x-0000-0000-0000-000000000000", gpu->gpu + 0xa0);
    return SUCCESS;
}
int nvmlDeviceGetName(Handle gpu, char *name, unsigned size) {
    const char *other = getenv("SIMULATED_OTHER");  // the number of one of another model
    snprintf(name, size, "%s", other && atoi(other) == (int)gpu->gpu ? "Other model" : "Some model");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(Handle gpu, Memory *memory) {
    memset(memory, 0, sizeof *memory);
    return SUCCESS;
}
