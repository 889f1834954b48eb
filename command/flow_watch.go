package command

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

const (
	// quiet is how long nothing must have changed before a change is taken for complete: editors write a file in several steps.
	quiet = 8 * time.Millisecond
	// patience bounds the wait for quiet.
	patience = 200 * time.Millisecond
)

// watch validates at once and then after every change, until it is interrupted.
func (c *flowValidateCommand) watch(ctx context.Context, o *validateOptions, flow *edited) int {
	watcher, err := newWatcher(o.dir)
	if err != nil {
		c.fail(err)
		return exitFailure
	}
	defer func() { _ = watcher.Close() }()
	c.validateAt(ctx, o, flow, time.Now())
	watcher.follow(flow.source)
	c.note("Watching %s; Ctrl-C ends it.", o.dir)
	for {
		changed, began, err := watcher.next(ctx)
		switch {
		case ctx.Err() != nil:
			return exitOK
		case err != nil:
			c.fail(err)
			return exitFailure
		}
		if o.format == "text" {
			_, _ = fmt.Fprintf(c.stdout, "\n%s  %s\n\n", began.Format("15:04:05"), strings.Join(changed, ", "))
		}
		c.validateAt(ctx, o, flow, began)
		watcher.follow(flow.source)
	}
}

// validateAt validates and shows what was found; what keeps it from that is said, and the next change may mend it.
func (c *flowValidateCommand) validateAt(ctx context.Context, o *validateOptions, flow *edited, began time.Time) {
	once, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	v, err := flow.check(once)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.print(o, v, flow.shown, time.Since(began))
}

// folderWatcher says when files of a flow's folder change.
type folderWatcher struct {
	*fsnotify.Watcher
	dir     string
	outside map[string]bool // files elsewhere that the flow includes
}

func newWatcher(dir string) (*folderWatcher, error) {
	under, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	w := &folderWatcher{Watcher: under, dir: dir}
	if err := w.addFolders(dir); err != nil {
		_ = under.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return w, nil
}

// follow watches the files that a flow includes from outside of its folder, given where the files of its bundle are.
func (w *folderWatcher) follow(sources map[string]string) {
	w.outside = map[string]bool{}
	for _, source := range sources {
		if relative, err := filepath.Rel(w.dir, source); source == "" || err == nil && filepath.IsLocal(relative) {
			continue
		}
		w.outside[source] = true
		_ = w.Add(filepath.Dir(source)) // the folder, for editors put a new file in the place of an old one
	}
}

// addFolders watches a folder and those below it that belong to a flow. What is gone again is passed over.
func (w *folderWatcher) addFolders(from string) error {
	//nolint:nilerr // see above
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && name == w.dir:
			return err
		case err != nil || !entry.IsDir():
			return nil
		case name != w.dir && bundle.LeftOut(entry.Name()):
			return fs.SkipDir
		}
		if err := w.Add(name); err != nil && name == w.dir {
			return err
		}
		return nil
	})
}

// next waits for a change and returns the files that have changed once it is complete, and when it began.
func (w *folderWatcher) next(ctx context.Context) (changed []string, began time.Time, err error) {
	var settle, late <-chan time.Time
	for {
		select {
		case event, ok := <-w.Events:
			if !ok {
				return nil, began, fmt.Errorf("watch %s: it ended", w.dir)
			}
			name, counts := w.note(event)
			if !counts {
				continue
			}
			if len(changed) == 0 {
				began = time.Now()
				late = time.After(patience)
			}
			if !slices.Contains(changed, name) {
				changed = append(changed, name)
			}
			settle = time.After(quiet)
		case err := <-w.Errors:
			return nil, began, fmt.Errorf("watch %s: %w", w.dir, err)
		case <-settle:
			return changed, began, nil
		case <-late:
			return changed, began, nil
		case <-ctx.Done():
			return nil, began, ctx.Err()
		}
	}
}

// note tells whether an event is about the flow; folders that appeared are watched too.
func (w *folderWatcher) note(event fsnotify.Event) (name string, counts bool) {
	relative, err := filepath.Rel(w.dir, event.Name)
	if err != nil || event.Op == fsnotify.Chmod {
		return "", false
	}
	if !filepath.IsLocal(relative) {
		return event.Name, w.outside[event.Name]
	}
	relative = filepath.ToSlash(relative)
	if slices.ContainsFunc(strings.Split(relative, "/"), bundle.LeftOut) {
		return "", false
	}
	if event.Op.Has(fsnotify.Create) {
		_ = w.addFolders(event.Name) // a file is none, and what cannot be watched is not
	}
	return relative, true
}
