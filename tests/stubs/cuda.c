/* A driver in name, for what the server says of drivers that are too old, see nothing or fail: libcuda.so.1 with the functions that it
 * and the CUDA provider look up. Compiled by tests, with other numbers by -D. Device 0 is the second on the bus, as CUDA may order them. */
#include <stdlib.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef CUDA
#define CUDA 13000
#endif
#ifndef GPUS
#define GPUS 2
#endif

int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = CUDA; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device ? "Stub B" : "Stub A", length); return 0; }
int cuDeviceGetPCIBusId(char *bus, int length, int device) { strncpy(bus, device ? "0000:01:00.0" : "0000:02:00.0", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)(device + 1) << 30; return 0; }
int cuTensorMapEncodeTiled(void) { return 1; }
