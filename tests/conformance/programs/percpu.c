// Reads a per-CPU map with libbpf, as monitoring agents do: bpf(2) writes one value for each possible CPU into the
// buffer, whose size comes from libbpf_num_possible_cpus(), which reads /sys/devices/system/cpu/possible.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 };

int main(void) {
    int cpus = libbpf_num_possible_cpus();
    int map = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "values", sizeof(uint32_t), sizeof(uint64_t), 1, NULL);
    if (cpus < 1 || map < 0) {
        perror("bpf_map_create");
        return 2;
    }
    uint64_t *values = malloc((cpus + GUARD) * sizeof *values);
    memset(values, 0xff, (cpus + GUARD) * sizeof *values);
    uint32_t key = 0;
    if (bpf_map_lookup_elem(map, &key, values) != 0) {
        perror("bpf_map_lookup_elem");
        return 2;
    }
    int written = 0;
    while (written < cpus + GUARD && values[written] == 0)
        written++;
    printf("buffer of %d, %d written\n", cpus, written);
    return written == cpus ? 0 : 1;
}
