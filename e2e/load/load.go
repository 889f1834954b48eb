// Package load sends HTTP requests as many users would and measures how long the answers take.
//
// It is a closed loop: a user sends a request, reads the whole answer, thinks for a while, and sends the next. Users start one after
// the other over the ramp. Users, time, requests and the wait for one answer are bounded, and only the loopback interface is
// spoken to. [Run] is all of it.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// The bounds of one run.
const (
	MaxUsers    = 20_000
	MaxDuration = 10 * time.Minute
	maxRequests = 5_000_000
)

// Options say what is sent and how.
type Options struct {
	// Request makes a user's next request. Its URL's host must be a loopback address.
	Request func(ctx context.Context) (*http.Request, error)
	// Check says whether an answer is right; nil: status 200 is.
	Check func(status int, body []byte) error

	Users    int
	Duration time.Duration // from the first request; users in the middle of a request finish it
	Ramp     time.Duration // within which the users start, evenly; 0: at once
	ThinkMin time.Duration // a user thinks between these two, evenly distributed; both 0: not at all
	ThinkMax time.Duration
	Timeout  time.Duration // of one answer; default one minute
}

// Report is what was measured. Latencies are of right answers, from before the connection is asked for to the last byte.
type Report struct {
	Users     int
	Requests  int // right answers
	Failures  int
	Example   string // of a failure
	Elapsed   time.Duration
	PerSecond float64 // right answers
	Median    time.Duration
	Mean      time.Duration
	P95       time.Duration
	P99       time.Duration
	Max       time.Duration
}

// String is the report on one line.
func (r Report) String() string {
	text := fmt.Sprintf("%d users, %d requests, %d failed, %.1f/s, median %s, p95 %s, p99 %s, max %s",
		r.Users, r.Requests, r.Failures, r.PerSecond, ms(r.Median), ms(r.P95), ms(r.P99), ms(r.Max))
	if r.Example != "" {
		text += " (" + r.Example + ")"
	}
	return text
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// Run sends requests until the duration is over or ctx ends. The error is for options that cannot be used; failed requests are in
// the report.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.check(ctx); err != nil {
		return Report{}, err
	}
	r := &run{options: o, latencies: make([]time.Duration, 0, 1<<16)}
	r.client = &http.Client{Transport: &http.Transport{
		MaxIdleConns: o.Users, MaxIdleConnsPerHost: o.Users, IdleConnTimeout: time.Minute, DisableCompression: true,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}}
	defer r.client.CloseIdleConnections()
	began := time.Now()
	until, cancel := context.WithDeadline(ctx, began.Add(o.Duration))
	defer cancel()
	var wg sync.WaitGroup
	for n := range o.Users {
		wg.Go(func() {
			if pause(until, o.Ramp*time.Duration(n)/time.Duration(o.Users)) {
				r.user(ctx, until)
			}
		})
	}
	wg.Wait()
	return r.report(time.Since(began)), nil
}

func (o *Options) check(ctx context.Context) error {
	if o.Users < 1 || o.Users > MaxUsers || o.Duration <= 0 || o.Duration > MaxDuration || o.ThinkMax < o.ThinkMin {
		return fmt.Errorf("load of %d users for %s: want 1 to %d users for at most %s", o.Users, o.Duration, MaxUsers, MaxDuration)
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	request, err := o.Request(ctx)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	return loopback(request.URL)
}

var errNotLoopback = errors.New("not a loopback address")

func loopback(u *url.URL) error {
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("load %s: %w", u.Host, errNotLoopback)
	}
	return nil
}

type run struct {
	options Options
	client  *http.Client

	mu        sync.Mutex
	latencies []time.Duration
	failures  int
	example   string
}

// user is one user until the end of the run.
func (r *run) user(ctx, until context.Context) {
	for until.Err() == nil {
		began := time.Now()
		err := r.send(ctx)
		if !r.record(time.Since(began), err) {
			return
		}
		think := r.options.ThinkMin
		if spread := r.options.ThinkMax - think; spread > 0 {
			think += rand.N(spread)
		}
		if !pause(until, think) {
			return
		}
	}
}

func (r *run) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	request, err := r.options.Request(ctx)
	if err != nil {
		return err
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if r.options.Check != nil {
		return r.options.Check(answer.StatusCode, body)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200s", answer.Status, body)
	}
	return nil
}

// record reports whether there may be more requests.
func (r *run) record(took time.Duration, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failures++
		r.example = err.Error()
	} else {
		r.latencies = append(r.latencies, took)
	}
	return len(r.latencies)+r.failures < maxRequests
}

func (r *run) report(elapsed time.Duration) Report {
	slices.Sort(r.latencies)
	report := Report{
		Users: r.options.Users, Requests: len(r.latencies), Failures: r.failures, Example: r.example, Elapsed: elapsed,
		PerSecond: float64(len(r.latencies)) / elapsed.Seconds(),
		Median:    Percentile(r.latencies, 50), P95: Percentile(r.latencies, 95), P99: Percentile(r.latencies, 99), Max: Percentile(r.latencies, 100),
	}
	var sum time.Duration
	for _, l := range r.latencies {
		sum += l
	}
	if len(r.latencies) > 0 {
		report.Mean = sum / time.Duration(len(r.latencies))
	}
	return report
}

// Percentile returns the smallest of sorted values that percent of them do not exceed, 0 when there are none.
func Percentile(sorted []time.Duration, percent float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	n := int(percent*float64(len(sorted))/100+0.9999999) - 1
	return sorted[min(max(n, 0), len(sorted)-1)]
}

// pause reports whether it came to its end.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
