package worker

import (
	"testing"
	"time"

	"github.com/shoenig/test"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	busy := func(n int) load { return load{sessions: n, usable: true} }
	cases := map[string]struct {
		loads           []load
		starting, limit int
		index           int
		grow            bool
	}{
		"nothing lives: start one":                  {nil, 0, 2, -1, true},
		"nothing lives but one is coming: wait":     {nil, 1, 2, -1, false},
		"the only worker was given up: start one":   {[]load{{sessions: 3}}, 0, 1, -1, true},
		"an idle worker serves":                     {[]load{busy(0)}, 0, 2, 0, false},
		"below the mark nobody is started":          {[]load{busy(growAt - 1)}, 0, 2, 0, false},
		"at the mark another is started":            {[]load{busy(growAt)}, 0, 2, 0, true},
		"one start at a time":                       {[]load{busy(100)}, 1, 3, 0, false},
		"never beyond the limit":                    {[]load{busy(100)}, 0, 1, 0, false},
		"a coming one counts against the limit":     {[]load{busy(100)}, 1, 2, 0, false},
		"the least loaded serves":                   {[]load{busy(5), busy(2), busy(3)}, 0, 3, 1, false},
		"one that was given up is not chosen":       {[]load{{sessions: 0}, busy(9)}, 0, 1, 1, false},
		"one that was given up frees its place":     {[]load{{sessions: 0}, busy(9)}, 0, 2, 1, true},
		"growing looks at the least loaded of them": {[]load{busy(50), busy(growAt - 1)}, 0, 3, 1, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			index, grow := choose(c.loads, c.starting, c.limit)
			test.Eq(t, c.index, index)
			test.Eq(t, c.grow, grow)
		})
	}
}

func TestSurplus(t *testing.T) {
	t.Parallel()
	test.True(t, surplus(time.Minute, time.Second, 2))
	test.False(t, surplus(time.Minute, time.Second, 1))
	test.False(t, surplus(time.Millisecond, time.Second, 2))
}
