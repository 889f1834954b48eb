package driver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
)

// fakeEngine is one container that does as it is told.
type fakeEngine struct {
	mu      sync.Mutex
	calls   []string
	fail    map[string]error // by the call's name
	found   *Container
	request ContainerRequest
	remains []Remains
	exit    chan Exit
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{fail: map[string]error{}, exit: make(chan Exit, 1)}
}

func (f *fakeEngine) call(name string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprint(append([]any{name}, args...)...))
	return f.fail[name]
}

func (f *fakeEngine) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

func (f *fakeEngine) Probe(_ context.Context, runtimes []string) (EngineInfo, error) {
	return EngineInfo{Version: "9.9", Runtimes: runtimes}, f.call("probe")
}

func (f *fakeEngine) EnsureImage(_ context.Context, request ImageRequest) (*Image, error) {
	request.Claim(request.Name)
	return &Image{Name: request.Name, Digest: "sha256:abc"}, f.call("image")
}

func (f *fakeEngine) ImageDigest(context.Context, string) (string, error) {
	return "sha256:abc", f.call("digest")
}

func (f *fakeEngine) FetchedImages(context.Context) ([]string, error) { return nil, f.call("fetched") }

func (f *fakeEngine) RemoveImage(_ context.Context, name string) error {
	return f.call("remove image ", name)
}

func (f *fakeEngine) LookupUser(context.Context, *Image, string, []string) (spec.User, error) {
	return spec.User{UID: 1000}, f.call("user")
}

func (f *fakeEngine) Create(_ context.Context, request ContainerRequest) (int, error) {
	f.mu.Lock()
	f.request = request
	f.mu.Unlock()
	return 42, f.call("create")
}

func (f *fakeEngine) Start(context.Context, string) error { return f.call("start") }

func (f *fakeEngine) Inspect(context.Context, string) (*Container, error) {
	if err := f.call("inspect"); err != nil {
		return nil, err
	}
	if f.found == nil {
		return nil, ErrNoContainer
	}
	return f.found, nil
}

func (f *fakeEngine) Wait(ctx context.Context, _ string) (Exit, error) {
	if err := f.call("wait"); err != nil {
		return Exit{}, err
	}
	select {
	case exit := <-f.exit:
		return exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

func (f *fakeEngine) Kill(_ context.Context, _ string, signal syscall.Signal) error {
	return f.call("kill ", int(signal))
}

func (f *fakeEngine) Stop(context.Context, string) error   { return f.call("stop") }
func (f *fakeEngine) Remove(context.Context, string) error { return f.call("remove") }

func (f *fakeEngine) List(context.Context, string) ([]Remains, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.remains), f.fail["list"]
}

func (f *fakeEngine) Relabel(_ context.Context, id string, labels map[string]string) error {
	return f.call("relabel ", id, " ", labels)
}

func (f *fakeEngine) Exec(_ context.Context, _ string, request ExecRequest) (Exit, error) {
	_, _ = fmt.Fprint(request.Stdout, "output")
	return Exit{Code: 143}, f.call("exec")
}

func (f *fakeEngine) Usage(context.Context, string) (*Usage, error) { return &Usage{}, f.call("usage") }
func (f *fakeEngine) Close() error                                  { return f.call("close") }
