package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// limitNames are the process limits by the names that docker gives them.
var limitNames = map[string]string{
	"core": "RLIMIT_CORE", "cpu": "RLIMIT_CPU", "data": "RLIMIT_DATA", "fsize": "RLIMIT_FSIZE", "locks": "RLIMIT_LOCKS",
	"memlock": "RLIMIT_MEMLOCK", "msgqueue": "RLIMIT_MSGQUEUE", "nice": "RLIMIT_NICE", "nofile": "RLIMIT_NOFILE",
	"nproc": "RLIMIT_NPROC", "rss": "RLIMIT_RSS", "rtprio": "RLIMIT_RTPRIO", "rttime": "RLIMIT_RTTIME",
	"sigpending": "RLIMIT_SIGPENDING", "stack": "RLIMIT_STACK",
}

// unlimited is how a process limit without limit is kept.
const unlimited = ^uint64(0)

// Rlimits reads process limits, each "soft:hard" or one number for both, -1 for none, by docker's names.
func Rlimits(limits map[string]string) ([]specs.POSIXRlimit, error) {
	var list []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		kind, ok := limitNames[name]
		if !ok {
			return nil, fmt.Errorf("ulimit %q: must be one of %s", name, strings.Join(slices.Sorted(maps.Keys(limitNames)), ", "))
		}
		softText, hardText, two := strings.Cut(limits[name], ":")
		if !two {
			hardText = softText
		}
		soft, errSoft := parseLimit(softText)
		hard, errHard := parseLimit(hardText)
		if errSoft != nil || errHard != nil {
			return nil, fmt.Errorf(`ulimit %s %q: must be a number or soft:hard, such as "2048:4096"`, name, limits[name])
		}
		if soft > hard {
			return nil, fmt.Errorf("ulimit %s %q: the soft limit is above the hard one", name, limits[name])
		}
		list = append(list, specs.POSIXRlimit{Type: kind, Soft: soft, Hard: hard})
	}
	return list, nil
}

func parseLimit(text string) (uint64, error) {
	if text == "-1" {
		return unlimited, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// ParseSwap reads an amount of memory as podman does: a number with b, k, m or g behind it, "-1" for no limit, and nothing
// for 0.
func ParseSwap(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if text == "-1" {
		return -1, nil
	}
	units := map[byte]int64{'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30}
	number, unit := text, int64(1)
	if factor, ok := units[text[len(text)-1]|0x20]; ok {
		number, unit = text[:len(text)-1], factor
	}
	amount, err := strconv.ParseInt(number, 10, 64)
	if err != nil || amount <= 0 || amount > (1<<62)/unit {
		return 0, fmt.Errorf(`memory_swap %q: must be an amount such as "512m", or "-1" for no limit`, text)
	}
	return amount * unit, nil
}
