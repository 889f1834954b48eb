package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// MissingIncludeError says that an additional include of a flow is not there. Its text is prompt flow's.
type MissingIncludeError struct{ Include string }

// Error implements error.
func (e *MissingIncludeError) Error() string { return "Unable to find additional include " + e.Include }

// include puts a file or folder from outside at the bundle's top, as prompt flow merges additional includes: by base name, what
// comes later in the place of what was there. A link at the end of the path is followed, none inside of a folder.
func (c *packing) include(dir, include string, warn func(string)) error {
	at := filepath.FromSlash(include)
	if !filepath.IsAbs(at) {
		at = filepath.Join(dir, at)
	}
	full, err := filepath.Abs(at)
	if err != nil {
		return err
	}
	if resolved, err := filepath.EvalSymlinks(full); err == nil {
		full = resolved
	}
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isFolder(strings.TrimSuffix(full, ".zip")) && strings.HasSuffix(full, ".zip"):
		return c.includeZipped(full, warn)
	case errors.Is(err, fs.ErrNotExist):
		return &MissingIncludeError{include}
	case err != nil:
		return err
	case info.IsDir():
		return c.walk(full, filepath.Base(full), func(path string, from source, size int64) error {
			return c.replace(path, from, size, filepath.Join(full, from.path), warn)
		})
	case !info.Mode().IsRegular():
		return invalid("additional include %s is %s: only files and folders can be included", include, kind(info.Mode().Type()))
	}
	root, err := os.OpenRoot(filepath.Dir(full))
	if err != nil {
		return err
	}
	c.roots = append(c.roots, root)
	name := filepath.Base(full)
	return c.replace(name, source{root: root, path: name}, info.Size(), full, warn)
}

// HasInclude reports whether an additional include of the flow in a folder is there.
func HasInclude(dir, include string) bool {
	at := filepath.FromSlash(include)
	if !filepath.IsAbs(at) {
		at = filepath.Join(dir, at)
	}
	_, err := os.Stat(at)
	return err == nil || strings.HasSuffix(at, ".zip") && isFolder(strings.TrimSuffix(at, ".zip"))
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (c *packing) replace(path string, from source, size int64, shown string, warn func(string)) error {
	if _, ok := c.files[path]; ok && warn != nil {
		warn(fmt.Sprintf("Found duplicate file in additional includes, additional include file %s will overwrite %s", shown, path))
	}
	return c.add(path, from, size)
}

// includeZipped packs the folder x for an include x.zip. As everything in a bundle it is the same wherever it is made: entries in
// order, stored, without times.
func (c *packing) includeZipped(full string, warn func(string)) error {
	folder := strings.TrimSuffix(full, ".zip")
	inside := &packing{files: map[string]source{}}
	defer inside.close()
	if err := inside.walk(folder, filepath.Base(folder), inside.add); err != nil {
		return err
	}
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	names := append([]string{filepath.Base(folder) + "/"}, inside.paths()...)
	for _, name := range slices.Compact(names) {
		if err := zipFile(archive, name, inside.files[name]); err != nil {
			return fmt.Errorf("zip %s: %w", path.Base(full), err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("zip %s: %w", path.Base(full), err)
	}
	name := filepath.Base(full)
	return c.replace(name, source{data: out.Bytes()}, int64(out.Len()), folder, warn)
}

func zipFile(archive *zip.Writer, name string, from source) error {
	w, err := archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil || strings.HasSuffix(name, "/") {
		return err
	}
	content, size, err := from.open()
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	_, err = io.Copy(w, io.LimitReader(content, size))
	return err
}
