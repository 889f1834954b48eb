package validate

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

const (
	// maxShown bounds a line that is shown, in bytes.
	maxShown = 400
	// maxRead bounds a file that is read for its lines.
	maxRead = 16 << 20
)

// stamp tells whether a file is the same as before.
type stamp struct {
	size    int64
	changed time.Time
}

// folder is the flow's folder as one check sees it.
type folder struct {
	files  fs.FS
	stamps map[string]stamp
	texts  map[string]*text
}

type text struct {
	data  []byte
	lines [][]byte
	err   error
}

func newFolder(files fs.FS) *folder {
	return &folder{files: files, stamps: map[string]stamp{}, texts: map[string]*text{}}
}

// list notes all files and when they changed.
func (f *folder) list() error {
	return fs.WalkDir(f.files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if bundle.LeftOut(entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		f.stamps[name] = stamp{info.Size(), info.ModTime()}
		return nil
	})
}

// has reports whether there is a regular file of this name, written as flows write paths.
func (f *folder) has(name string) bool {
	info, err := fs.Stat(f.files, path.Clean(name))
	return err == nil && info.Mode().IsRegular()
}

// names returns the files with one of the endings, sorted.
func (f *folder) names(endings ...string) []string {
	var names []string
	for name := range f.stamps {
		if slices.Contains(endings, path.Ext(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (f *folder) text(name string) *text {
	if t := f.texts[name]; t != nil {
		return t
	}
	t := &text{}
	f.texts[name] = t
	file, err := f.files.Open(path.Clean(name))
	if err != nil {
		t.err = err
		return t
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		t.err = fs.ErrInvalid
		return t
	}
	t.data, t.err = io.ReadAll(io.LimitReader(file, maxRead))
	t.lines = bytes.Split(lineEnds(t.data), []byte("\n"))
	return t
}

// lineEnds makes every line end a line feed, as YAML, Python and Jinja2 count lines.
func lineEnds(data []byte) []byte {
	if bytes.IndexByte(data, '\r') < 0 {
		return data
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
}

// line returns a line of a file as it may be shown; empty where there is none.
func (f *folder) line(name string, number int) string {
	if name == "" || number < 1 {
		return ""
	}
	t := f.text(name)
	if t.err != nil || number > len(t.lines) {
		return ""
	}
	line := t.lines[number-1]
	if len(line) > maxShown {
		line = line[:maxShown]
		for len(line) > 0 && !utf8.Valid(line) && len(line) > maxShown-utf8.UTFMax {
			line = line[:len(line)-1]
		}
	}
	return strings.ToValidUTF8(string(line), "�")
}
