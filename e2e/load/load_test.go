package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func get(url string) func(context.Context) (*http.Request, error) {
	return func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	}
}

func TestRun_CountsAndTimesAnswers(t *testing.T) {
	t.Parallel()
	var calls, together, most atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		most.Store(max(most.Load(), together.Add(1)))
		defer together.Add(-1)
		time.Sleep(5 * time.Millisecond) // what is measured
		if calls.Add(1)%10 == 0 {
			http.Error(w, "every tenth fails", http.StatusTeapot)
		}
	}))
	defer s.Close()

	r, err := Run(t.Context(), Options{Request: get(s.URL), Users: 8, Duration: 300 * time.Millisecond})
	must.NoError(t, err)
	test.Eq(t, int(calls.Load()), r.Requests+r.Failures)
	test.Eq(t, int(calls.Load())/10, r.Failures)
	test.StrContains(t, r.Example, "418 I'm a teapot: every tenth fails")
	test.GreaterEq(t, 5*time.Millisecond, r.Median)
	test.LessEq(t, r.P95, r.Median)
	test.LessEq(t, r.P99, r.P95)
	test.LessEq(t, r.Max, r.P99)
	test.LessEq(t, 8, most.Load())
	test.Greater(t, 1, most.Load())
	test.InDelta(t, float64(r.Requests)/r.Elapsed.Seconds(), r.PerSecond, 0.01)
}

func TestRun_ThinksAndRamps(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer s.Close()
	// A thought is longer than the run, so every user that starts sends once; half of them start too late.
	_, err := Run(t.Context(), Options{
		Request: get(s.URL), Users: 40, Duration: 400 * time.Millisecond, Ramp: 800 * time.Millisecond, ThinkMin: time.Minute, ThinkMax: time.Minute,
	})
	must.NoError(t, err)
	test.Between(t, 10, calls.Load(), 21)
}

func TestRun_RefusesWhatItMayNotDo(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		o    Options
		want string
	}{
		{"another machine", Options{Request: get("http://192.0.2.1/"), Users: 1, Duration: time.Second}, "not a loopback address"},
		{"a name", Options{Request: get("http://example.com/"), Users: 1, Duration: time.Second}, "not a loopback address"},
		{"too many", Options{Request: get("http://127.0.0.1/"), Users: MaxUsers + 1, Duration: time.Second}, "want 1 to"},
		{"too long", Options{Request: get("http://127.0.0.1/"), Users: 1, Duration: time.Hour}, "want 1 to"},
		{"nobody", Options{Request: get("http://127.0.0.1/"), Duration: time.Second}, "want 1 to"},
	}
	for _, c := range cases {
		_, err := Run(t.Context(), c.o)
		test.ErrorContains(t, err, c.want, test.Sprint(c.name))
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for percent, want := range map[float64]time.Duration{0: 1, 1: 1, 50: 50, 95: 95, 99: 99, 100: 100} {
		test.Eq(t, want, Percentile(hundred, percent), test.Sprint(percent))
	}
	test.Eq(t, 0, Percentile(nil, 50))
	test.Eq(t, 7, Percentile([]time.Duration{7}, 95))
}
