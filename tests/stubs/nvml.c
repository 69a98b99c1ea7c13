/* NVIDIA's management library in name: two GPUs, known by their buses. Of that on bus 1 it does not know how much is used, as of a part
 * of a GPU. Compiled by tests. */
#include <string.h>

struct memory { unsigned version; unsigned long long total, reserved, available, used; };
struct utilization { unsigned gpu, memory; };
enum { NOT_SUPPORTED = 3, NOT_FOUND = 6 };
static int gpus[2] = {1, 2};

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    for (int at = 0; at < 2; at++) {
        if (strcmp(bus, at ? "0000:02:00.0" : "0000:01:00.0") == 0) { *device = &gpus[at]; return 0; }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo_v2(int *device, struct memory *memory) {
    memory->total = 1000ull * *device;
    memory->used = 100ull * *device;
    return 0;
}

int nvmlDeviceGetUtilizationRates(int *device, struct utilization *rates) {
    if (*device == 1) return NOT_SUPPORTED;
    rates->gpu = 75;
    return 0;
}
