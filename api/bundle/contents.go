package bundle

import (
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// Contents is what the bundle of a folder would hold, file by file, for those who want to see what changes.
type Contents struct{ packing *packing }

// Gather finds what goes into the bundle of a folder. The caller closes it.
func Gather(dir string, o Options) (*Contents, error) {
	c, err := gather(dir, o)
	if err != nil {
		return nil, err
	}
	return &Contents{c}, nil
}

// Close closes the folders that the files are read from.
func (c *Contents) Close() { c.packing.close() }

// Paths returns the paths of the files in the bundle, sorted.
func (c *Contents) Paths() []string { return c.packing.paths() }

// Read returns the content of a file.
func (c *Contents) Read(path string) ([]byte, error) {
	file, size, err := c.packing.files[path].open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, size))
}

// Source returns where a file is on disk; empty for one that is made when the bundle is packed.
func (c *Contents) Source(path string) string {
	from := c.packing.files[path]
	if from.root == nil {
		return ""
	}
	return filepath.Join(from.root.Name(), filepath.FromSlash(from.path))
}

// Stat returns size and time of change of a file; the time is zero for one that is made when the bundle is packed.
func (c *Contents) Stat(path string) (size int64, changed time.Time, err error) {
	from := c.packing.files[path]
	if from.root == nil {
		return int64(len(from.data)), time.Time{}, nil
	}
	info, err := fs.Stat(from.root.FS(), from.path)
	if err != nil {
		return 0, time.Time{}, err
	}
	return info.Size(), info.ModTime(), nil
}
