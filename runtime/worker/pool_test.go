package worker

import (
	"testing"
	"time"

	"github.com/shoenig/test"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	busy := func(n int) load { return load{sessions: n, usable: true} }
	forked := func(starting, limit int) pool { return pool{starting: starting, limit: limit, growAt: growAtForked} }
	imported := func(starting, limit int) pool { return pool{starting: starting, limit: limit, growAt: growAtImported} }
	alone := pool{limit: 3, growAt: growAtForked, alone: true}
	cases := map[string]struct {
		loads []load
		pool  pool
		want  choice
	}{
		"nothing lives: start one":                     {nil, forked(0, 2), choice{-1, true, false}},
		"nothing lives but one is coming: wait":        {nil, forked(1, 2), choice{-1, false, false}},
		"the only worker was given up: start one":      {[]load{{sessions: 3}}, forked(0, 1), choice{-1, true, false}},
		"an idle worker serves":                        {[]load{busy(0)}, forked(0, 2), choice{0, false, false}},
		"a busy one serves when another is slow":       {[]load{busy(1)}, imported(0, 2), choice{0, false, false}},
		"two sessions start a slow one":                {[]load{busy(2)}, imported(0, 2), choice{0, true, false}},
		"a quick one is waited for":                    {[]load{busy(1)}, forked(0, 2), choice{0, true, true}},
		"so is one that is coming":                     {[]load{busy(1)}, forked(1, 3), choice{0, false, true}},
		"nobody waits when there may be no more":       {[]load{busy(1), busy(1)}, forked(0, 2), choice{0, false, false}},
		"one start at a time":                          {[]load{busy(100)}, imported(1, 3), choice{0, false, false}},
		"never beyond the limit":                       {[]load{busy(100)}, forked(0, 1), choice{0, false, false}},
		"a coming one counts against the limit":        {[]load{busy(100)}, imported(1, 2), choice{0, false, false}},
		"the least loaded serves":                      {[]load{busy(5), busy(2), busy(3)}, forked(0, 3), choice{1, false, false}},
		"one that was given up is not chosen":          {[]load{{sessions: 0}, busy(9)}, forked(0, 1), choice{1, false, false}},
		"one that was given up frees its place":        {[]load{{sessions: 0}, busy(9)}, imported(0, 2), choice{1, true, false}},
		"growing looks at the least loaded of them":    {[]load{busy(50), busy(1)}, imported(0, 3), choice{1, false, false}},
		"alone: an idle worker serves":                 {[]load{busy(1), busy(0)}, alone, choice{1, false, false}},
		"alone: a busy one does not, start another":    {[]load{busy(1)}, alone, choice{-1, true, false}},
		"alone: wait when there are as many as may be": {[]load{busy(1), busy(1), busy(1)}, alone, choice{-1, false, false}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.Eq(t, c.want, c.pool.choose(c.loads))
		})
	}
}

func TestSurplus(t *testing.T) {
	t.Parallel()
	test.True(t, surplus(time.Minute, time.Second, 2, 1))
	test.False(t, surplus(time.Minute, time.Second, 1, 1))
	test.True(t, surplus(time.Minute, time.Second, 1, 0))
	test.False(t, surplus(time.Millisecond, time.Second, 2, 1))
}
