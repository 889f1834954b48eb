package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/validate"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

const (
	// maxSessions is how many flows are kept ready to be validated again; each costs a folder and a process.
	maxSessions = 8
	// sessionIdle is how long a session waits for the next change.
	sessionIdle = 15 * time.Minute
	// largeFile is the size from which files are linked into a session's folder instead of copied.
	largeFile = 1 << 20
)

// sessions are the flows that are being edited: each has a folder of its own, which follows the author's files, and what is known from
// the last validation. A session is found by the bundle that the author started from. The zero value is ready to use.
type sessions struct {
	mu    sync.Mutex
	all   map[string]*session
	clock uint64
	ended bool
	going sync.WaitGroup
}

// session is one flow that is being edited.
type session struct {
	key   string // empty: it is used once
	users int
	used  uint64
	idle  *time.Timer

	mu        sync.Mutex // one validation at a time
	dir       string
	changed   map[string][sha256.Size]byte // files that differ from the bundle, by what they hold now
	originals map[string]*[]byte           // what stood there in the bundle; nil: nothing
	writes    int64
	validator *validate.Validator
	checker   *worker.Checker // nil without Python
}

// enter returns the session of a request; leave it afterwards.
func (all *sessions) enter(s *server, request *api.ValidateRequest) (*session, error) {
	if request.Flow == "" {
		return s.newSession("", "", request)
	}
	key := request.Flow + "\x00" + loadKey(&api.RunRequest{EnvironmentVariables: request.EnvironmentVariables, FlowFile: request.FlowFile})
	if found := all.find(key); found != nil {
		return found, nil
	}
	base, err := s.flows.folder(request.Flow)
	if err != nil {
		return nil, err
	}
	made, err := s.newSession(key, base, request)
	if err != nil {
		return nil, err
	}
	return all.keep(made), nil
}

// find counts a user of a session that there is.
func (all *sessions) find(key string) *session {
	all.mu.Lock()
	defer all.mu.Unlock()
	found := all.all[key]
	if found == nil {
		return nil
	}
	found.users++
	all.clock++
	found.used = all.clock
	if found.idle != nil {
		found.idle.Stop()
	}
	return found
}

// keep adds a session, unless somebody was faster, and lets go of those that were unused for longest.
func (all *sessions) keep(made *session) *session {
	if found := all.find(made.key); found != nil {
		all.leave(made) // nobody else knows it
		return found
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = map[string]*session{}
	}
	if all.ended || all.all[made.key] != nil {
		made.key = "" // it is used once
		return made
	}
	all.clock++
	made.used = all.clock
	all.all[made.key] = made
	byUse := make([]*session, 0, len(all.all))
	for _, other := range all.all {
		byUse = append(byUse, other)
	}
	slices.SortFunc(byUse, func(a, b *session) int { return cmp.Compare(a.used, b.used) })
	for _, other := range byUse[:max(0, len(byUse)-maxSessions)] {
		all.drop(other)
	}
	return made
}

// drop forgets a session; the last of its users ends it. all.mu is held.
func (all *sessions) drop(s *session) {
	delete(all.all, s.key)
	s.key = ""
	if s.users == 0 {
		all.going.Go(s.close)
	}
}

// leave ends the use of a session.
func (all *sessions) leave(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	s.users--
	switch {
	case s.users > 0:
	case s.key == "" || all.all[s.key] != s:
		all.going.Go(s.close)
	default:
		s.idle = time.AfterFunc(sessionIdle, func() { all.expire(s) })
	}
}

func (all *sessions) expire(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s.users == 0 && s.key != "" && all.all[s.key] == s {
		all.drop(s)
	}
}

// close ends all sessions and waits until nothing of them is left.
func (all *sessions) close() {
	all.mu.Lock()
	all.ended = true
	for _, s := range all.all {
		if s.idle != nil {
			s.idle.Stop()
		}
		all.drop(s)
	}
	all.mu.Unlock()
	all.going.Wait()
}

// validations is the folder of all sessions' folders.
func (s *server) validations() string { return filepath.Join(filepath.Dir(s.flows.dir), "validations") }

// newSession makes a folder with the files of a bundle (or none) and a validator of it.
func (s *server) newSession(key, base string, request *api.ValidateRequest) (*session, error) {
	parent := s.validations()
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, storeError(err)
	}
	dir, err := os.MkdirTemp(parent, "flow-")
	if err != nil {
		return nil, storeError(err)
	}
	made := &session{key: key, users: 1, dir: dir, changed: map[string][sha256.Size]byte{}, originals: map[string]*[]byte{}}
	if base != "" {
		if err := copyFolder(base, dir); err != nil {
			made.close()
			return nil, storeError(err)
		}
	}
	config := validate.Config{
		Dir: dir, File: request.FlowFile, Environment: request.EnvironmentVariables,
		Connections: func(environment connection.Lookup) (*connection.Set, error) {
			return connection.Load(s.config.Connections, environment)
		},
	}
	s.mu.Lock()
	manager := s.workers
	s.mu.Unlock()
	if manager != nil {
		made.checker = manager.NewChecker()
		config.Python = made.checker
	}
	made.validator = validate.New(config)
	return made, nil
}

// copyFolder copies the regular files of a folder; large ones are linked, and replaced as a whole when they change.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Size() >= largeFile && os.Link(name, target) == nil {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// validate brings the folder to what the request says and validates it.
func (s *session) validate(ctx context.Context, request *api.ValidateRequest) (*api.Validation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.apply(request.Files); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	result, err := s.validator.Check(ctx, request.Tools)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fault([]string{"ValidationTimeout"}, http.StatusGatewayTimeout, "The validation did not end within %s. Please look for work that is done when the flow's code is imported.", loadTimeout)
	}
	return result, err
}

// apply makes the folder the bundle with these files in the place of its own.
func (s *session) apply(files []api.File) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return storeError(err)
	}
	defer root.Close()
	wanted := make(map[string]bool, len(files))
	for _, f := range files {
		wanted[f.Path] = true
	}
	// What is below a name goes before it: a folder may have taken the place of a file.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(s.changed))) {
		if wanted[name] {
			continue
		}
		if err := s.put(root, name, s.originals[name]); err != nil {
			return err
		}
		delete(s.changed, name)
	}
	for _, removed := range []bool{true, false} {
		for _, f := range files {
			if f.Removed != removed {
				continue
			}
			if err := s.change(root, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) change(root *os.Root, f api.File) error {
	content := &f.Content
	sum := sha256.Sum256(append([]byte{1}, f.Content...))
	if f.Removed {
		content, sum = nil, [sha256.Size]byte{}
	}
	if before, ok := s.changed[f.Path]; ok && before == sum {
		return nil
	}
	if _, known := s.originals[f.Path]; !known {
		original, err := root.ReadFile(f.Path)
		switch {
		case err == nil:
			s.originals[f.Path] = &original
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			s.originals[f.Path] = nil
		case errors.Is(err, syscall.EISDIR):
			return badValidate("has the path %q, which is a folder of the flow", f.Path)
		default:
			return badValidate("has the path %q, which is no file of the flow: %v", f.Path, err)
		}
	}
	if err := s.put(root, f.Path, content); err != nil {
		return err
	}
	s.changed[f.Path] = sum
	return nil
}

// put writes a file as a whole, or removes it. Each file that is written gets a time of its own, so that it is seen to be another.
func (s *session) put(root *os.Root, name string, content *[]byte) error {
	if err := remove(root, name); err != nil {
		return badValidate("has the path %q, which cannot be written: %v", name, err)
	}
	if content == nil {
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return badValidate("has the path %q, which cannot be written: %v", name, err)
	}
	switch err := root.WriteFile(name, *content, 0o600); {
	case errors.Is(err, syscall.EISDIR):
		return badValidate("has the path %q, which is a folder of the flow", name)
	case err != nil:
		return storeError(err)
	}
	s.writes++
	at := time.Unix(s.writes, 0)
	if err := root.Chtimes(name, at, at); err != nil {
		return storeError(err)
	}
	return nil
}

// remove removes a file and the folders that are empty without it. A folder with files is no file, and stays.
func remove(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return nil
	}
	if err := root.Remove(name); err != nil {
		return err
	}
	parent := path.Dir(name)
	for parent != "." && root.Remove(parent) == nil { // it fails where there is more in it
		parent = path.Dir(parent)
	}
	return nil
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checker != nil {
		s.checker.Close()
	}
	_ = os.RemoveAll(s.dir)
}
