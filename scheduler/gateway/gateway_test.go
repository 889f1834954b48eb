package gateway

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
)

func TestGateway_says_what_it_is(t *testing.T) {
	t.Parallel()
	f := serveInstances(t, Config{}, []catalog.Instance{{ID: "a", Address: "127.0.0.1:1", Token: "secret", Concurrency: 3}})
	client, err := api.NewClient(f.url, "")
	must.NoError(t, err)
	must.NoError(t, client.Ready(t.Context()))
	version, err := client.Version(t.Context())
	must.NoError(t, err)
	test.Eq(t, "1.2.3", version.Version)
	want := api.Runtime{Name: "shared", Type: "shared", Instances: []api.Instance{{ID: "a", Address: "127.0.0.1:1", Concurrency: 3}}}
	runtimes, err := client.Runtimes(t.Context())
	must.NoError(t, err)
	test.Eq(t, []api.Runtime{want}, runtimes)
	response, body := f.call(t, "GET", "/v1/runtimes/shared", "")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.StrContains(t, body, `"name":"shared"`)
	test.StrNotContains(t, body, "secret")
	response, body = f.call(t, "GET", "/health", "")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.StrContains(t, body, "Healthy")
	response, body = f.call(t, "HEAD", "/ready", "")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, "", body)
}

func TestGateway_refuses_what_it_does_not_know(t *testing.T) {
	t.Parallel()
	f := serve(t, Config{MaxBody: 1000}, "127.0.0.1:1")
	tests := []struct {
		method, path, body string
		status             int
		class, says        string
	}{
		{"POST", "/v1/runtimes/sharde/runs", "{}", 404, "RuntimeNotFound", `There is no runtime "sharde" here. Did you mean shared?`},
		{"GET", "/v1/runtimes/production", "", 404, "RuntimeNotFound", "GET /v1/runtimes lists"},
		{"POST", "/v1/runtimes//runs", "{}", 404, "RuntimeNotFound", "no runtime \"runs\""},
		{"GET", "/v1/runtimes/shared/runs", "", 405, "MethodNotAllowed", "Please use POST."},
		{"DELETE", "/v1/flows/sha256:1", "", 405, "MethodNotAllowed", "Please use PUT."},
		{"GET", "/v1/runtimes/shared/runs/1", "", 404, "NotFound", "not supported by this gateway"},
		{"GET", "/", "", 404, "NotFound", "not supported by this gateway"},
		{"PUT", "/v1/flows/sha256:1", "x", 400, "InvalidDigest", "64 hexadecimal digits"},
		{"PUT", "/v1/flows/..%2f..%2fetc", "x", 404, "NotFound", "not supported"},
		{"POST", "/v1/runtimes/shared/runs", strings.Repeat("x", 1001), 413, "RequestTooLarge", "more than 1000 bytes"},
		{"POST", "/v1/runtimes/shared/score", strings.Repeat("x", 1<<20), 413, "RequestTooLarge", "more than 1000 bytes"},
	}
	for _, tc := range tests {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			t.Parallel()
			response, body := f.call(t, tc.method, tc.path, tc.body)
			e := failure(t, response, body)
			test.Eq(t, tc.status, response.StatusCode)
			test.Eq(t, tc.class, e.Class())
			test.StrContains(t, e.Message, tc.says)
		})
	}
}

// raw sends bytes to the gateway and returns its answer.
func (f *front) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.url, "http://"))
	must.NoError(t, err)
	defer conn.Close()
	must.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, request)
	must.NoError(t, err)
	must.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	must.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	must.NoError(t, err)
	return response
}

func TestGateway_refuses_broken_requests(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{MaxBody: 100}, r.URL)
	head := "POST /v1/runtimes/shared/runs HTTP/1.1\r\nHost: a\r\n"
	tests := map[string]struct {
		request string
		status  int
	}{
		"no http":                  {"hello\r\n\r\n", 400},
		"a header without end":     {"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeader-19), 431},
		"two lengths":              {head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"a negative length":        {head + "Content-Length: -2\r\n\r\n{}", 400},
		"a body cut short":         {head + "Content-Length: 20\r\n\r\n{}", 400},
		"a chunk cut short":        {head + "Transfer-Encoding: chunked\r\n\r\nff\r\n{}", 400},
		"a chunk of no size":       {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", 400},
		"too much in chunks":       {head + "Transfer-Encoding: chunked\r\n\r\n80\r\n" + strings.Repeat("x", 128) + "\r\n0\r\n\r\n", 413},
		"a length without measure": {head + "Content-Length: 99999999999999999999\r\n\r\n{}", 400},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := f.raw(t, tc.request)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			must.NoError(t, err)
			test.Eq(t, tc.status, response.StatusCode)
			test.NotEq(t, "", failure(t, response, string(body)).Message)
			begun, _ := r.counts()
			test.Zero(t, begun)
		})
	}
}

func TestPutFlow_keeps_bundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := serve(t, Config{Bundles: dir}, "127.0.0.1:1")
	name, data := packed(t, "nodes: []\n")
	response, body := f.call(t, "POST", "/v1/flows", string(data))
	test.Eq(t, http.StatusCreated, response.StatusCode)
	test.Eq(t, `{"digest":"`+name+`"}`, body)
	test.Eq(t, "/v1/flows/"+name, response.Header.Get("Location"))
	response, _ = f.call(t, "PUT", "/v1/flows/"+name, string(data))
	test.Eq(t, http.StatusOK, response.StatusCode)
	stored, err := f.bundles.open(name)
	must.NoError(t, err)
	defer stored.Close()
	got, err := io.ReadAll(stored)
	must.NoError(t, err)
	test.True(t, bytes.Equal(data, got))

	// The next gateway on this folder has it too.
	must.NoError(t, f.stop())
	must.NoError(t, os.WriteFile(filepath.Join(dir, partialPrefix+"1"), []byte("half"), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "README"), []byte("not ours"), 0o600))
	next := serve(t, Config{Bundles: dir}, "127.0.0.1:1")
	test.True(t, next.bundles.has(name))
	test.Len(t, 2, names(t, dir))
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := fs.Glob(os.DirFS(dir), "*")
	must.NoError(t, err)
	return list
}

func compressed(t *testing.T, plain []byte) string {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	must.NoError(t, err)
	return string(encoder.EncodeAll(plain, nil))
}

func TestPutFlow_refuses_and_keeps_nothing(t *testing.T) {
	t.Parallel()
	name, data := packed(t, "nodes: []\n")
	other := "sha256:" + strings.Repeat("0", 64)
	bomb := compressed(t, make([]byte, 700<<20))
	tests := map[string]struct {
		path, body string
		status     int
		class      string
	}{
		"another's name":    {"/v1/flows/" + other, string(data), 400, "InvalidBundle"},
		"no stream":         {"/v1/flows/" + name, "hello", 400, "InvalidBundle"},
		"nothing":           {"/v1/flows/" + name, "", 400, "InvalidBundle"},
		"nothing unnamed":   {"/v1/flows", "", 400, "InvalidBundle"},
		"half of it":        {"/v1/flows/" + name, string(data[:len(data)/2]), 400, "InvalidBundle"},
		"too much":          {"/v1/flows/" + name, strings.Repeat("x", 200<<10), 413, "BundleTooLarge"},
		"too much unpacked": {"/v1/flows", bomb, 413, "BundleTooLarge"},
	}
	must.Less(t, 100<<10, len(bomb))
	for what, tc := range tests {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f := serve(t, Config{Bundles: dir, MaxBundle: 100 << 10}, "127.0.0.1:1")
			response, body := f.call(t, map[bool]string{true: "POST", false: "PUT"}[tc.path == "/v1/flows"], tc.path, tc.body)
			test.Eq(t, tc.status, response.StatusCode)
			test.Eq(t, tc.class, failure(t, response, body).Class())
			test.SliceEmpty(t, names(t, dir))
		})
	}
	t.Run("an upload that breaks off", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		f := serve(t, Config{Bundles: dir}, "127.0.0.1:1")
		response := f.raw(t, "PUT /v1/flows/"+name+" HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"+string(data))
		defer response.Body.Close()
		test.Eq(t, 400, response.StatusCode)
		body, err := io.ReadAll(response.Body)
		must.NoError(t, err)
		test.StrContains(t, failure(t, response, string(body)).Message, "broke off")
		test.SliceEmpty(t, names(t, dir))
	})
}

func TestUploadFailed_says_that_the_disk_is_full(t *testing.T) {
	t.Parallel()
	g := &Gateway{life: t.Context()}
	e := g.uploadFailed(&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	test.Eq(t, http.StatusInsufficientStorage, e.HTTPStatus())
	test.StrContains(t, e.Message, "disk is full")
}

func TestBundles_forget_what_was_unused_for_longest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var all []string
	var data [][]byte
	for _, content := range []string{"a: 1", "b: 2", "c: 3"} {
		name, d := packed(t, content)
		all, data = append(all, name), append(data, d)
	}
	b, err := openBundles(Config{Bundles: dir, MaxBundle: 1 << 20, MaxBundles: int64(len(data[0]) + len(data[1]) + 1)})
	must.NoError(t, err)
	put := func(i int) {
		_, err := b.put(t.Context(), bytes.NewReader(data[i]), all[i])
		must.NoError(t, err)
	}
	put(0)
	put(1)
	file, err := b.open(all[0])
	must.NoError(t, err)
	must.NoError(t, file.Close())
	put(2)
	test.True(t, b.has(all[0]))
	test.False(t, b.has(all[1]))
	test.True(t, b.has(all[2]))
	test.Len(t, 2, names(t, dir))

	must.NoError(t, os.Remove(b.path(all[0])))
	_, err = b.open(all[0])
	must.ErrorIs(t, err, errUnknownBundle)
	test.False(t, b.has(all[0]))
}

// atRuntime starts a submission that the returned function ends.
func atRuntime(t *testing.T, r *runtime, f *front) (answers <-chan *http.Response, let func()) {
	t.Helper()
	begun, more := make(chan bool, 1), make(chan bool)
	r.run = func(w http.ResponseWriter, q *http.Request) {
		begun <- true
		select {
		case <-more:
			_, _ = io.Copy(w, q.Body)
		case <-q.Context().Done():
		}
	}
	out := make(chan *http.Response, 1)
	go func() {
		response, err := http.Post(f.url+"/v1/runtimes/shared/runs", "application/json", strings.NewReader(submission1)) //nolint:noctx // the gateway's end ends it
		if err == nil {
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			response.Body = io.NopCloser(bytes.NewReader(body))
		}
		out <- response
	}()
	within(t, "the run's begin", begun)
	return out, func() { close(more) }
}

func TestServe_lets_submissions_end(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{}, r.URL)
	answers, let := atRuntime(t, r, f)
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(f.draining.Load), wait.Timeout(10*time.Second)))
	let()
	response := within(t, "the answer", answers)
	must.NotNil(t, response)
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.NoError(t, within(t, "the gateway's end", stopped))
	_, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.url, "http://"))
	test.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestServe_cancels_submissions_that_do_not_end(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := serve(t, Config{Drain: 50 * time.Millisecond}, r.URL)
	answers, _ := atRuntime(t, r, f)
	must.NoError(t, f.stop())
	response := within(t, "the answer", answers)
	must.NotNil(t, response)
	test.Eq(t, http.StatusServiceUnavailable, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	must.NoError(t, err)
	test.StrContains(t, failure(t, response, string(body)).Message, "The gateway stopped before the run had ended")
}

func TestServe_leaves_no_folder_behind(t *testing.T) {
	t.Parallel()
	table, err := catalog.NewStatic([]catalog.Runtime{{Name: "a", Instances: []catalog.Instance{{Address: "127.0.0.1:1"}}}})
	must.NoError(t, err)
	g, err := New(Config{Catalog: table})
	must.NoError(t, err)
	must.DirExists(t, g.bundles.dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	listener, err := Listen(t.Context(), "unix:"+filepath.Join(t.TempDir(), "g.sock"))
	must.NoError(t, err)
	must.NoError(t, g.Serve(ctx, listener))
	test.DirNotExists(t, g.bundles.dir)
}

func TestRun_says_what_keeps_it_from_starting(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.NoError(t, err)
	defer taken.Close()
	table, err := catalog.NewStatic([]catalog.Runtime{{Name: "a", Instances: []catalog.Instance{{Address: "127.0.0.1:1"}}}})
	must.NoError(t, err)
	test.ErrorContains(t, Run(t.Context(), Config{Catalog: table, Listen: taken.Addr().String()}), "the address is in use: choose another one")
	test.ErrorContains(t, Run(t.Context(), Config{Catalog: table, Listen: "127.0.0.1:0", Bundles: "/dev/null/x"}), "name a folder that can be written")
	test.ErrorContains(t, Run(t.Context(), Config{Listen: "127.0.0.1:0"}), "no catalog of runtimes")
}
