package engine

import (
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// onTheWire is what a shim's answer looks like after it went through the daemon.
func onTheWire(t *testing.T, counters proto.Message) *types.Metric {
	t.Helper()
	encoded, err := typeurl.MarshalAnyToProto(counters)
	must.NoError(t, err)
	return &types.Metric{Data: encoded}
}

func TestDecodeUsage_version1(t *testing.T) {
	t.Parallel()
	usage, err := decodeUsage(onTheWire(t, &cgroup1.Metrics{
		CPU: &cgroup1.CPUStat{
			Usage:      &cgroup1.CPUUsage{Total: 9, User: 6, Kernel: 3},
			Throttling: &cgroup1.Throttle{Periods: 20, ThrottledPeriods: 4, ThrottledTime: 1500},
		},
		Memory: &cgroup1.MemoryStat{
			TotalRSS: 200, TotalCache: 100, RSS: 1, Cache: 2,
			Usage:  &cgroup1.MemoryEntry{Usage: 4096, Max: 8192},
			Swap:   &cgroup1.MemoryEntry{Usage: 4146},
			Kernel: &cgroup1.MemoryEntry{Usage: 10, Max: 20},
		},
	}))
	must.NoError(t, err)
	test.Eq(t, driver.Usage{
		CPUTotal: new(uint64(9)), CPUUser: new(uint64(6)), CPUSystem: new(uint64(3)),
		ThrottledPeriods: new(uint64(4)), ThrottledTime: new(uint64(1500)),
		MemoryUsage: new(uint64(4096)), MemoryMax: new(uint64(8192)), RSS: new(uint64(200)), Cache: new(uint64(100)),
		KernelUsage: new(uint64(10)), KernelMaxUsage: new(uint64(20)), MemorySwap: new(uint64(50)),
	}, *usage)

	usage, err = decodeUsage(onTheWire(t, &cgroup1.Metrics{
		Memory: &cgroup1.MemoryStat{Usage: &cgroup1.MemoryEntry{Usage: 5}, Swap: &cgroup1.MemoryEntry{Usage: 3}},
	}))
	must.NoError(t, err)
	test.Eq(t, driver.Usage{
		MemoryUsage: new(uint64(5)), RSS: new(uint64(0)), Cache: new(uint64(0)), MemorySwap: new(uint64(0)),
	}, *usage, test.Sprint("without a cpu controller, kernel memory and a maximum"))
}

func TestDecodeUsage_version2(t *testing.T) {
	t.Parallel()
	counters := &cgroup2.Metrics{
		CPU: &cgroup2.CPUStat{UsageUsec: 9, UserUsec: 6, SystemUsec: 3, NrPeriods: 20, NrThrottled: 4, ThrottledUsec: 2},
		Memory: &cgroup2.MemoryStat{
			Anon: 200, File: 100, KernelStack: 4, Slab: 6, Usage: 4096, MaxUsage: 8192, SwapUsage: 50,
		},
	}
	want := driver.Usage{
		CPUTotal: new(uint64(9000)), CPUUser: new(uint64(6000)), CPUSystem: new(uint64(3000)),
		ThrottledPeriods: new(uint64(4)), ThrottledTime: new(uint64(2000)),
		MemoryUsage: new(uint64(4096)), MemoryMax: new(uint64(8192)), RSS: new(uint64(200)), Cache: new(uint64(100)),
		KernelUsage: new(uint64(10)), MemorySwap: new(uint64(50)),
	}
	usage, err := decodeUsage(onTheWire(t, counters))
	must.NoError(t, err)
	test.Eq(t, want, *usage)

	counters.Memory.MaxUsage = 0
	want.MemoryMax = nil
	usage, err = decodeUsage(onTheWire(t, counters))
	must.NoError(t, err)
	test.Eq(t, want, *usage, test.Sprint("kernels before 5.19 have no peak"))
}

func TestDecodeUsage_ofAnUnknownKind(t *testing.T) {
	t.Parallel()
	_, err := decodeUsage(&types.Metric{Data: &anypb.Any{TypeUrl: "some.vm/Metrics", Value: []byte{1}}})
	test.Error(t, err)
}
