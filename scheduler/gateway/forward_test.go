package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
)

const submission1 = `{"flow":"sha256:1","inputs":{"x":NaN}}`

func TestSubmit_passes_submission_and_answer_on(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serveInstances(t, Config{}, []catalog.Instance{{ID: "alloc-1", Address: r.URL, Token: "of-instance"}})
	response, body := f.call(t, "POST", "/v1/runtimes/shared/runs", submission1,
		"Authorization", "Bearer of-client", "X-Request-Id", "id-7", "Traceparent", "00-1", "Cookie", "a=b", "Content-Type", "application/json")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, submission1, body)
	test.Eq(t, "application/json", response.Header.Get("Content-Type"))
	test.Eq(t, "alloc-1", response.Header.Get("X-Promptflow-Instance"))
	test.Len(t, 1, response.Header.Values("Date"))
	got := r.request()
	test.Eq(t, "Bearer of-instance", got.Header.Get("Authorization"))
	test.Eq(t, "id-7", got.Header.Get("X-Request-Id"))
	test.Eq(t, "00-1", got.Header.Get("Traceparent"))
	test.Eq(t, "application/json", got.Header.Get("Content-Type"))
	test.Eq(t, "", got.Header.Get("Cookie"))
	test.Eq(t, strings.TrimPrefix(r.URL, "http://"), got.Host)
}

func TestSubmit_uses_connections_again(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	var mu sync.Mutex
	from := map[string]bool{}
	r.run = func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		from[q.RemoteAddr] = true
		_, _ = io.Copy(w, q.Body)
	}
	f := serve(t, Config{}, r.URL)
	for range 20 {
		f.submit(t, submission1)
	}
	test.MapLen(t, 1, from)
}

func TestSubmit_notices_connections_that_the_instance_closed(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{}, r.URL)
	for i := range 5 {
		response, _ := f.submit(t, submission1)
		must.Eq(t, http.StatusOK, response.StatusCode)
		r.CloseClientConnections()
		begun, _ := r.counts()
		test.Eq(t, i+1, begun)
	}
}

func TestSubmit_passes_bodies_of_every_kind_on(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{}, r.URL)
	large := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	for _, size := range []int{0, 1, 1000, 9000, oneWrite - 10, oneWrite, maxBuffered + 1, 1 << 20, len(large)} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			response, body := f.submit(t, large[:size])
			test.Eq(t, http.StatusOK, response.StatusCode)
			test.True(t, body == large[:size])
		})
	}
	t.Run("of unknown length", func(t *testing.T) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/runtimes/shared/runs", io.MultiReader(strings.NewReader(large)))
		must.NoError(t, err)
		request.Header.Set("Expect", "100-continue")
		response, err := http.DefaultClient.Do(request)
		must.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		must.NoError(t, err)
		test.True(t, string(body) == large)
	})
}

func TestSubmit_passes_answers_of_every_status_on(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	status := 0
	r.run = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Own", "kept")
		w.Header().Set("Connection", "close")
		w.WriteHeader(status)
	}
	f := serve(t, Config{}, r.URL)
	for _, status = range []int{200, 204, 400, 406, 409, 413, 424, 429, 500, 503, 507} {
		response, _ := f.submit(t, `{}`)
		test.Eq(t, status, response.StatusCode)
		test.Eq(t, "kept", response.Header.Get("X-Own"))
		test.False(t, response.Close)
	}
	begun, _ := r.counts()
	test.Eq(t, 11, begun)
}

func TestSubmit_tries_another_instance_when_one_is_not_reached(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{}, deadAddress(t), r.URL, deadAddress(t))
	for range 20 {
		response, _ := f.submit(t, submission1)
		test.Eq(t, http.StatusOK, response.StatusCode)
	}
	begun, _ := r.counts()
	test.Eq(t, 20, begun)
}

func TestSubmit_says_that_no_instance_is_reached(t *testing.T) {
	t.Parallel()
	dead := deadAddress(t)
	f := serve(t, Config{}, dead)
	response, body := f.submit(t, `{"flow":"sha256:1","run_id":"run-1"}`)
	e := failure(t, response, body)
	test.Eq(t, http.StatusServiceUnavailable, response.StatusCode)
	test.Eq(t, "1", response.Header.Get("Retry-After"))
	test.Eq(t, []string{"SystemError", "NoInstance"}, e.Chain())
	test.StrContains(t, e.Message, `No instance of runtime "shared" took the submission: shared-0: dial tcp `+dead+": connect: connection refused.")
	test.Eq(t, "run-1", e.RunID)
}

func TestSubmit_tries_another_instance_when_one_refuses_work(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			busy, free := newRuntime(t), newRuntime(t)
			busy.refusal = fault("Busy", status, "busy")
			busy.refusal.RetryAfterSeconds = 1
			f := serve(t, Config{}, busy.URL, free.URL)
			for range 20 {
				response, _ := f.submit(t, submission1)
				test.Eq(t, http.StatusOK, response.StatusCode)
			}
			free.mu.Lock()
			free.refusal = busy.refusal
			free.mu.Unlock()
			response, body := f.submit(t, submission1)
			test.Eq(t, status, response.StatusCode)
			test.Eq(t, "1", response.Header.Get("Retry-After"))
			test.Eq(t, "busy", failure(t, response, body).Message)
			begun, _ := free.counts()
			test.Eq(t, 20, begun)
		})
	}
}

func TestSubmit_never_sends_twice_what_may_have_begun(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_ = conn.Close()
	}
	first, second := newRuntime(t), newRuntime(t)
	first.run, second.run = hang, hang
	f := serve(t, Config{}, first.URL, second.URL)
	response, body := f.submit(t, `{"flow":"sha256:1","run_id":"run-1"}`)
	e := failure(t, response, body)
	test.Eq(t, http.StatusBadGateway, response.StatusCode)
	test.Eq(t, []string{"SystemError", "InstanceLost"}, e.Chain())
	test.StrContains(t, e.Message, "It may have run, so it was not sent to another instance.")
	test.Eq(t, "run-1", e.RunID)
	a, _ := first.counts()
	b, _ := second.counts()
	test.Eq(t, 1, a+b)
}

func TestSubmit_takes_the_answer_of_an_instance_that_did_not_read_all(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, fault("RequestTooLarge", http.StatusRequestEntityTooLarge, "too large for me"))
	})
	f := serve(t, Config{}, r.URL)
	response, body := f.submit(t, strings.Repeat("x", 32<<20))
	test.Eq(t, http.StatusRequestEntityTooLarge, response.StatusCode)
	test.Eq(t, "too large for me", failure(t, response, body).Message)
}

func TestSubmit_ends_the_run_of_a_client_that_goes_away(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	r.run = func(_ http.ResponseWriter, q *http.Request) {
		begun <- true
		<-q.Context().Done()
		ended <- true
	}
	f := serve(t, Config{}, r.URL)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/v1/runtimes/shared/runs", strings.NewReader(submission1))
	must.NoError(t, err)
	gone := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		gone <- err
	}()
	within(t, "the run's begin", begun)
	cancel()
	must.ErrorIs(t, within(t, "the client's end", gone), context.Canceled)
	within(t, "the run's end", ended)
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return f.pools["shared"].chooser.InFlight(0) == 0 }), wait.Timeout(10*time.Second)))
}

func TestSubmit_keeps_the_connection_of_a_client_that_stays(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.run = func(w http.ResponseWriter, q *http.Request) {
		time.Sleep(2 * watchAfter) // the client is being watched by then
		_, _ = io.Copy(w, q.Body)
	}
	f := serve(t, Config{}, r.URL)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.url, "http://"))
	must.NoError(t, err)
	defer conn.Close()
	reader := bufio.NewReader(conn)
	one := "POST /v1/runtimes/shared/runs HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
	for _, requests := range []int{1, 1, 2, 1} { // two at once are no reason to end the first
		_, err = conn.Write([]byte(strings.Repeat(one, requests)))
		must.NoError(t, err)
		for range requests {
			response, err := http.ReadResponse(reader, nil)
			must.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			must.NoError(t, err)
			_ = response.Body.Close()
			test.Eq(t, "{}", string(body))
		}
	}
}

func TestSubmit_streams_answers_as_they_come(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	more := make(chan bool)
	ended := make(chan bool, 1)
	r.run = func(w http.ResponseWriter, q *http.Request) {
		control := http.NewResponseController(w)
		_, _ = io.WriteString(w, "first")
		_ = control.Flush()
		<-more
		_, _ = io.WriteString(w, "second")
		_ = control.Flush()
		<-q.Context().Done()
		ended <- true
	}
	f := serve(t, Config{}, r.URL)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/v1/runtimes/shared/runs", strings.NewReader("{}"))
	must.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	must.NoError(t, err)
	defer response.Body.Close()
	part := make([]byte, 6)
	_, err = io.ReadFull(response.Body, part[:5])
	must.NoError(t, err)
	test.Eq(t, "first", string(part[:5]))
	test.Eq(t, 1, f.pools["shared"].chooser.InFlight(0))
	more <- true
	_, err = io.ReadFull(response.Body, part)
	must.NoError(t, err)
	test.Eq(t, "second", string(part))
	cancel() // nothing is being written: only the watch can notice
	within(t, "the run's end", ended)
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return f.pools["shared"].chooser.InFlight(0) == 0 }), wait.Timeout(10*time.Second)))
}

func TestSubmit_never_passes_half_an_answer_as_a_whole(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			r := newRuntime(t)
			r.run = func(w http.ResponseWriter, _ *http.Request) {
				conn, out, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				_, _ = fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
				_, _ = out.Write(bytes.Repeat([]byte("x"), size-10))
				_ = out.Flush()
				_ = conn.Close()
			}
			f := serve(t, Config{}, r.URL)
			response, err := http.Post(f.url+"/v1/runtimes/shared/runs", "application/json", strings.NewReader("{}")) //nolint:noctx // the test's end is near
			must.NoError(t, err)
			defer response.Body.Close()
			_, err = io.ReadAll(response.Body)
			if response.StatusCode == http.StatusOK {
				test.ErrorIs(t, err, io.ErrUnexpectedEOF)
			} else {
				test.Eq(t, http.StatusBadGateway, response.StatusCode)
			}
			begun, _ := r.counts()
			test.Eq(t, 1, begun)
		})
	}
}

func TestSubmit_gives_an_instance_a_bounded_time(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ended := make(chan bool, 1)
	r.run = func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done(); ended <- true }
	f := serve(t, Config{RunTimeout: 50 * time.Millisecond}, r.URL)
	response, body := f.submit(t, submission1)
	test.Eq(t, http.StatusGatewayTimeout, response.StatusCode)
	test.StrContains(t, failure(t, response, body).Message, "did not answer within 50ms")
	within(t, "the run's end", ended)
}

func TestSubmit_says_when_an_instance_does_not_trust_the_gateway(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.refusal = fault("Unauthorized", http.StatusUnauthorized, "who are you")
	f := serve(t, Config{}, r.URL)
	response, body := f.submit(t, submission1)
	test.Eq(t, http.StatusBadGateway, response.StatusCode)
	test.StrContains(t, failure(t, response, body).Message, "does not accept the gateway's token")
}

func TestSubmit_refuses_instances_that_do_not_speak_http(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 smtp.example ready\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	f := serve(t, Config{}, l.Addr().String())
	response, body := f.submit(t, submission1)
	test.Eq(t, http.StatusBadGateway, response.StatusCode)
	test.Eq(t, "InstanceLost", failure(t, response, body).Class())
}

func TestScore_passes_through(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{}, r.URL)
	response, body := f.call(t, "POST", "/v1/runtimes/shared/score", `{"q":"hello"}`)
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, `{"q":"hello"}`, body)
	test.Eq(t, "/score", r.request().URL.Path)

	response, body = f.call(t, "POST", "/v1/runtimes/shared/feedback?flatten=true&x=a%20b", `{"good":1}`)
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, `{"good":1}`, body)
	test.Eq(t, "/feedback?flatten=true&x=a%20b", r.request().URL.String())
	response, _ = f.call(t, "GET", "/v1/runtimes/shared/swagger.json", "")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, "/swagger.json", r.request().URL.Path)
	response, _ = f.call(t, "POST", "/v1/runtimes/shared/swagger.json", "")
	test.Eq(t, http.StatusMethodNotAllowed, response.StatusCode)

	response, body = f.call(t, "OPTIONS", "/v1/runtimes/shared/score", "", "Origin", "http://page.example", "Access-Control-Request-Headers", "X-A")
	test.Eq(t, http.StatusNoContent, response.StatusCode)
	test.Eq(t, "", body)
	test.Eq(t, "*", response.Header.Get("Access-Control-Allow-Origin"))
	test.Eq(t, "X-A", r.request().Header.Get("Access-Control-Request-Headers"))
}

func TestSubmit_hands_a_bundle_in_once(t *testing.T) {
	t.Parallel()
	name, data := packed(t, "nodes: []\n")
	first, second := newRuntime(t), newRuntime(t)
	first.needs, second.needs = true, true
	f := serve(t, Config{}, first.URL, second.URL)
	client, err := api.NewClient(f.url, "")
	must.NoError(t, err)

	_, err = client.Run(t.Context(), "shared", api.RunRequest{Flow: name})
	e := api.AsError(err)
	must.Eq(t, http.StatusFailedDependency, e.HTTPStatus())
	test.Eq(t, "the flow "+name+" is not here", e.Message)

	must.NoError(t, client.PutFlow(t.Context(), name, bytes.NewReader(data)))
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			result, err := client.Run(t.Context(), "shared", api.RunRequest{Flow: name, RunID: "r"})
			if test.NoError(t, err); err == nil {
				test.Eq(t, "r", result.RunID)
			}
		})
	}
	all.Wait()
	a, putsA := first.counts()
	b, putsB := second.counts()
	test.Eq(t, 40, a+b)
	test.LessEq(t, 1, putsA)
	test.LessEq(t, 1, putsB)

	// An instance that has forgotten it gets it again.
	for _, r := range []*runtime{first, second} {
		r.mu.Lock()
		r.flows = map[string]bool{}
		r.mu.Unlock()
	}
	_, err = client.Run(t.Context(), "shared", api.RunRequest{Flow: name})
	must.NoError(t, err)
}

func TestSubmit_says_what_an_instance_says_against_a_bundle(t *testing.T) {
	t.Parallel()
	name, data := packed(t, "nodes: []\n")
	r := newRuntime(t)
	r.needs = true
	r.Config.Handler = func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Method == http.MethodPut {
				refuse(w, fault("StorageError", http.StatusInsufficientStorage, "no space left"))
				return
			}
			inner.ServeHTTP(w, q)
		})
	}(r.Config.Handler)
	f := serve(t, Config{}, r.URL)
	response, _ := f.call(t, "PUT", "/v1/flows/"+name, string(data))
	must.Eq(t, http.StatusCreated, response.StatusCode)
	response, body := f.submit(t, fmt.Sprintf(`{"flow":%q}`, name))
	test.Eq(t, http.StatusInsufficientStorage, response.StatusCode)
	test.Eq(t, "no space left", failure(t, response, body).Message)
}

func TestSubmit_prefers_the_instance_that_knows_the_flow(t *testing.T) {
	t.Parallel()
	rs := []*runtime{newRuntime(t), newRuntime(t), newRuntime(t)}
	f := serve(t, Config{}, rs[0].URL, rs[1].URL, rs[2].URL)
	for range 30 {
		f.submit(t, submission1)
	}
	busy := 0
	for _, r := range rs {
		if begun, _ := r.counts(); begun > 0 {
			busy++
		}
	}
	test.Eq(t, 1, busy)
}

// BenchmarkSubmit sends 1 KiB and takes 1 KiB over a connection per worker; client and instance share the processors with the gateway.
func BenchmarkSubmit(b *testing.B) {
	instance := http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		_, _ = w.Write(body)
	})}
	backend, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	must.NoError(b, err)
	go func() { _ = instance.Serve(backend) }()
	b.Cleanup(func() { _ = instance.Close() })
	table, err := catalog.NewStatic([]catalog.Runtime{{Name: "shared", Instances: []catalog.Instance{{Address: backend.Addr().String()}}}})
	must.NoError(b, err)
	g, err := New(Config{Catalog: table, Bundles: b.TempDir()})
	must.NoError(b, err)
	listener, err := Listen(b.Context(), "127.0.0.1:0")
	must.NoError(b, err)
	ctx, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, listener) }()
	b.Cleanup(func() { end(); must.NoError(b, <-served) })

	body := strings.Repeat("x", 1024)
	request := []byte("POST /v1/runtimes/shared/runs HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n" + body)
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", listener.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		reader := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := conn.Write(request); err != nil {
				b.Error(err)
				return
			}
			response, err := http.ReadResponse(reader, nil)
			if err != nil || response.StatusCode != http.StatusOK {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	})
}
