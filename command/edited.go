package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

// What is sent as changes at most; with more of them the flow is handed in anew.
const (
	maxChanges      = 200
	maxChangedBytes = 4 << 20
)

// edited is a flow folder that somebody works on. The runtime gets it once as a bundle, and then with each validation the files that
// differ from that.
type edited struct {
	dir     string
	client  *api.Client
	runtime string
	request api.ValidateRequest

	base   map[string][sha256.Size]byte // the files of the bundle
	packed []byte
	seen   map[string]seen // the last look at each file
}

// seen is a file as it was last looked at.
type seen struct {
	size    int64
	changed time.Time
	sum     [sha256.Size]byte
}

func newEdited(dir string, client *api.Client, runtime string, request api.ValidateRequest) *edited {
	return &edited{dir: dir, client: client, runtime: runtime, request: request, seen: map[string]seen{}}
}

// check validates the folder as it is now.
func (e *edited) check(ctx context.Context) (*api.Validation, error) {
	now, err := e.look()
	if err != nil {
		return nil, err
	}
	if e.request.Flow == "" {
		if err := e.pack(ctx); err != nil {
			return nil, err
		}
	} else if e.request.Files, err = e.changes(now); err != nil {
		return nil, err
	}
	v, err := e.client.Validate(ctx, e.runtime, e.request)
	var fault *api.Error
	if err == nil || !errors.As(err, &fault) || fault.HTTPStatus() != http.StatusFailedDependency {
		return v, err
	}
	if err := e.client.PutFlow(ctx, e.request.Flow, bytes.NewReader(e.packed)); err != nil {
		return nil, err
	}
	return e.client.Validate(ctx, e.runtime, e.request)
}

// look returns what the folder's files hold; only those that have changed since the last look are read.
func (e *edited) look() (map[string][sha256.Size]byte, error) {
	names, err := bundle.Files(e.dir)
	if err != nil {
		return nil, err
	}
	now := make(map[string][sha256.Size]byte, len(names))
	for _, name := range names {
		info, err := os.Stat(filepath.Join(e.dir, name))
		if err != nil {
			return nil, err
		}
		before, ok := e.seen[name]
		// A file may change twice within one tick of the disk's clock, the second time after it was read.
		settled := time.Since(before.changed) > time.Second
		if !ok || !settled || before.size != info.Size() || !before.changed.Equal(info.ModTime()) {
			data, err := os.ReadFile(filepath.Join(e.dir, name))
			if err != nil {
				return nil, err
			}
			before = seen{info.Size(), info.ModTime(), sha256.Sum256(data)}
			e.seen[name] = before
		}
		now[name] = before.sum
	}
	return now, nil
}

// pack makes the bundle that changes are sent against. The files must not change while they are packed.
func (e *edited) pack(ctx context.Context) error {
	for range 10 {
		before, err := e.look()
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		name, _, err := bundle.Pack(ctx, e.dir, &packed)
		if err != nil {
			return err
		}
		after, err := e.look()
		if err != nil {
			return err
		}
		if maps.Equal(before, after) {
			e.request.Flow, e.request.Files, e.base, e.packed = name, nil, after, packed.Bytes()
			return nil
		}
	}
	return fmt.Errorf("pack %s: its files change all the time: stop what writes to them", e.dir)
}

// changes returns the files that differ from the bundle. When they are too many the flow is packed anew.
func (e *edited) changes(now map[string][sha256.Size]byte) ([]api.File, error) {
	var files []api.File
	size := 0
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if sum, ok := e.base[name]; ok && sum == now[name] {
			continue
		}
		data, err := os.ReadFile(filepath.Join(e.dir, name))
		if err != nil {
			return nil, err
		}
		size += len(data)
		files = append(files, api.File{Path: name, Content: data})
	}
	for _, name := range slices.Sorted(maps.Keys(e.base)) {
		if _, ok := now[name]; !ok {
			files = append(files, api.File{Path: name, Removed: true})
		}
	}
	if len(files) > maxChanges || size > maxChangedBytes {
		err := e.pack(context.Background())
		return nil, err
	}
	return files, nil
}
