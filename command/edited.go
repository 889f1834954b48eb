package command

import (
	"bytes"
	"cmp"
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
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/validate"
)

// What is sent as changes at most; with more of them the flow is handed in anew.
const (
	maxChanges      = 200
	maxChangedBytes = 4 << 20
)

// edited is a flow folder that somebody works on, with what the flow includes from outside of it. A runtime gets it once as a bundle,
// and then with each validation the files that differ from that.
type edited struct {
	dir     string
	client  *api.Client // nil: without a runtime
	runtime string
	request api.ValidateRequest

	base   map[string][sha256.Size]byte // the files of the bundle
	packed []byte
	seen   map[string]seen   // the last look at each file
	source map[string]string // where files of the bundle are on disk
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
	options, missing := e.includes()
	v, err := e.checkWith(ctx, options)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		v.Result = api.ResultFailed
		v.Problems = append(v.Problems, missing...)
		slices.SortStableFunc(v.Problems, func(a, b api.Problem) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
	}
	return v, nil
}

func (e *edited) checkWith(ctx context.Context, o bundle.Options) (*api.Validation, error) {
	contents, err := bundle.Gather(e.dir, o)
	if err != nil {
		return nil, err
	}
	defer contents.Close()
	e.source = map[string]string{}
	for _, path := range contents.Paths() {
		e.source[path] = contents.Source(path)
	}
	if e.client == nil {
		return e.checkHere(ctx, o)
	}
	now, err := e.look(contents)
	if err != nil {
		return nil, err
	}
	if e.request.Flow != "" {
		e.request.Files, err = e.changes(contents, now)
	}
	if err == nil && (e.request.Flow == "" || tooMany(e.request.Files)) {
		err = e.pack(ctx, o)
	}
	if err != nil {
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

// checkHere validates without a runtime: the folder itself, or a copy together with what it includes.
func (e *edited) checkHere(ctx context.Context, o bundle.Options) (*api.Validation, error) {
	config := validate.Config{Dir: e.dir, File: e.request.FlowFile, Environment: e.request.EnvironmentVariables}
	if len(o.Includes) == 0 {
		return validate.New(config).Check(ctx, false)
	}
	temporary, err := os.MkdirTemp("", "promptflow-")
	if err != nil {
		return nil, fmt.Errorf("copy flow: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	var packed bytes.Buffer
	name, _, err := bundle.PackWith(ctx, e.dir, o, &packed)
	if err != nil {
		return nil, err
	}
	config.Dir = filepath.Join(temporary, "flow")
	if err := bundle.Unpack(ctx, &packed, config.Dir, name, bundle.DefaultLimits); err != nil {
		return nil, err
	}
	return validate.New(config).Check(ctx, false)
}

// includes returns what goes into the bundle, and the problems of includes that are not there. What else is wrong with them shows when
// the flow is validated.
func (e *edited) includes() (bundle.Options, []api.Problem) {
	o := bundle.Options{File: e.request.FlowFile}
	root, err := os.OpenRoot(e.dir)
	if err != nil {
		return o, nil
	}
	defer func() { _ = root.Close() }()
	includes, err := flow.Includes(root.FS(), e.request.FlowFile)
	if err != nil {
		return o, nil
	}
	var missing []api.Problem
	for _, i := range includes {
		if bundle.HasInclude(e.dir, i.Path) {
			o.Includes = append(o.Includes, i.Path)
		} else {
			missing = append(missing, validate.MissingInclude(root.FS(), i))
		}
	}
	return o, missing
}

// look returns what the bundle's files hold; only those that have changed since the last look are read.
func (e *edited) look(contents *bundle.Contents) (map[string][sha256.Size]byte, error) {
	now := map[string][sha256.Size]byte{}
	for _, path := range contents.Paths() {
		size, changed, err := contents.Stat(path)
		if err != nil {
			return nil, err
		}
		before, ok := e.seen[path]
		// A file may change twice within one tick of the disk's clock, the second time after it was read.
		settled := time.Since(before.changed) > time.Second && !changed.IsZero()
		if !ok || !settled || before.size != size || !before.changed.Equal(changed) {
			data, err := contents.Read(path)
			if err != nil {
				return nil, err
			}
			before = seen{size, changed, sha256.Sum256(data)}
			e.seen[path] = before
		}
		now[path] = before.sum
	}
	return now, nil
}

// pack makes the bundle that changes are sent against. The files must not change while they are packed.
func (e *edited) pack(ctx context.Context, o bundle.Options) error {
	look := func() (map[string][sha256.Size]byte, error) {
		contents, err := bundle.Gather(e.dir, o)
		if err != nil {
			return nil, err
		}
		defer contents.Close()
		return e.look(contents)
	}
	for range 10 {
		before, err := look()
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		name, _, err := bundle.PackWith(ctx, e.dir, o, &packed)
		if err != nil {
			return err
		}
		after, err := look()
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

// changes returns the files that differ from the bundle.
func (e *edited) changes(contents *bundle.Contents, now map[string][sha256.Size]byte) ([]api.File, error) {
	var files []api.File
	for _, path := range contents.Paths() {
		if sum, ok := e.base[path]; ok && sum == now[path] {
			continue
		}
		data, err := contents.Read(path)
		if err != nil {
			return nil, err
		}
		files = append(files, api.File{Path: path, Content: data})
	}
	for _, path := range slices.Sorted(maps.Keys(e.base)) {
		if _, ok := now[path]; !ok {
			files = append(files, api.File{Path: path, Removed: true})
		}
	}
	return files, nil
}

// tooMany reports whether changes are more than a bundle is worth.
func tooMany(files []api.File) bool {
	size := 0
	for _, f := range files {
		size += len(f.Content)
	}
	return len(files) > maxChanges || size > maxChangedBytes
}

// shown is the name of a file of the bundle from where the caller stands, so that it can be opened.
func (e *edited) shown(path string) string {
	source := e.source[path]
	if source == "" {
		source = filepath.Join(e.dir, filepath.FromSlash(path))
	}
	here, err := os.Getwd()
	if err != nil || !filepath.IsAbs(source) {
		return filepath.Clean(source)
	}
	if relative, err := filepath.Rel(here, source); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return source
}
