package bundle

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// packing is a bundle in the making: its files, by their path in it with forward slashes.
type packing struct {
	files map[string]source
	bytes int64
	roots []*os.Root
}

// source is where a file's content comes from: a place below a root, or data made here.
type source struct {
	root *os.Root
	path string
	data []byte
}

func (s source) open() (io.ReadCloser, int64, error) {
	if s.root == nil {
		return io.NopCloser(bytes.NewReader(s.data)), int64(len(s.data)), nil
	}
	file, err := s.root.Open(filepath.FromSlash(s.path))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func (c *packing) close() {
	for _, root := range c.roots {
		_ = root.Close()
	}
}

func (c *packing) paths() []string { return slices.Sorted(maps.Keys(c.files)) }

// gather finds what goes into the bundle of a folder. The caller closes it.
func gather(dir string, o Options) (*packing, error) {
	c := &packing{files: map[string]source{}}
	if err := c.gather(dir, o); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *packing) gather(dir string, o Options) error {
	found := false
	err := c.walk(dir, "", func(path string, from source, size int64) error {
		found = found || isFlowFile(path) || path == filepath.ToSlash(o.File)
		return c.add(path, from, size)
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w in %s: looked for flow.dag.yaml, flow.flex.yaml and *.prompty; name the folder that holds one", ErrNoFlow, dir)
	}
	for _, include := range o.Includes {
		if err := c.include(dir, include, o.Warn); err != nil {
			return err
		}
	}
	return c.checkFolders()
}

func (c *packing) add(path string, from source, size int64) error {
	c.bytes += size
	c.files[path] = from
	return DefaultLimits.check(len(c.files), c.bytes, path)
}

// walk tells add of every file below a folder, with its path behind prefix.
func (c *packing) walk(dir, prefix string, add func(path string, from source, size int64) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	c.roots = append(c.roots, root)
	return fs.WalkDir(root.FS(), ".", func(inside string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case inside == ".":
			return nil
		case LeftOut(entry.Name()) && entry.IsDir():
			return fs.SkipDir
		case LeftOut(entry.Name()), entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return invalid("%s is %s: a flow may hold regular files only; copy what it points to into the folder", inside, kind(entry.Type()))
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return add(path.Join(prefix, inside), source{root: root, path: inside}, info.Size())
	})
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

// checkFolders refuses a file that is a folder too, which an include can make of it.
func (c *packing) checkFolders() error {
	for path := range c.files {
		for at := strings.IndexByte(path, '/'); at >= 0; {
			if _, ok := c.files[path[:at]]; ok {
				return invalid("%s is both a file and a folder: rename what is included", path[:at])
			}
			next := strings.IndexByte(path[at+1:], '/')
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	return nil
}
