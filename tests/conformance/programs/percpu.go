// Reads a per-CPU map with cilium/ebpf, which refuses a /sys/devices/system/cpu/possible that does not begin with 0.
package main

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

func main() {
	values, err := read()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%d values\n", len(values))
}

func read() ([]uint64, error) {
	spec := ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	values := []uint64{}
	created, err := ebpf.NewMap(&spec)
	if err != nil {
		return nil, err
	}
	defer created.Close()
	err = created.Lookup(uint32(0), &values)
	return values, err
}
