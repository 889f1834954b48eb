package media

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// MaxBytes bounds one image.
const MaxBytes = 64 << 20

// Below returns a reader of the files in a folder; paths that lead out of it are refused, also by links. Whoever calls a flow names
// paths, and the folder is all of the machine that a caller may see.
func Below(dir string) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		name := clean(path)
		if filepath.IsAbs(name) {
			rel, err := filepath.Rel(dir, name)
			if err != nil || !filepath.IsLocal(rel) {
				return nil, outside(path)
			}
			name = rel
		}
		if !filepath.IsLocal(name) {
			return nil, outside(path)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return read(root.OpenFile, name, path)
	}
}

// Anywhere returns a reader of all files, of relative paths in a folder.
func Anywhere(dir string) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		name := clean(path)
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return read(os.OpenFile, name, path)
	}
}

func outside(path string) error {
	return invalid("The image file '{path}' is not in the flow's folder. Please put it there, or send the image in base64.", "path", cut(path))
}

// clean is str(pathlib.Path(path)): without empty steps and single dots.
func clean(path string) string {
	var steps []string
	for step := range strings.SplitSeq(path, "/") {
		if step != "" && step != "." {
			steps = append(steps, step)
		}
	}
	out := strings.Join(steps, "/")
	switch {
	case strings.HasPrefix(path, "/"):
		return "/" + out
	case out == "":
		return "."
	default:
		return out
	}
}

func read(open func(string, int, fs.FileMode) (*os.File, error), name, path string) ([]byte, error) {
	if strings.ContainsRune(name, 0) {
		return nil, &value.Error{Class: value.ValueError, Message: "embedded null byte"}
	}
	f, err := open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return nil, osError(err, path)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, osError(err, path)
	case info.IsDir():
		return nil, osError(syscall.EISDIR, path)
	case !info.Mode().IsRegular():
		return nil, invalid("The image file '{path}' is no regular file.", "path", cut(path))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, osError(err, path)
	}
	if len(data) > MaxBytes {
		return nil, tooLarge(path)
	}
	return data, nil
}

func tooLarge(where string) error {
	return invalid("The image {where} has more than 64 MiB. Please make it smaller.", "where", cut(where))
}

// osErrors are the exceptions that Python makes of the errors of opening a file.
var osErrors = []struct {
	errno       syscall.Errno
	class, text string
}{
	{syscall.ENOENT, "FileNotFoundError", "[Errno 2] No such file or directory"},
	{syscall.EISDIR, "IsADirectoryError", "[Errno 21] Is a directory"},
	{syscall.ENOTDIR, "NotADirectoryError", "[Errno 20] Not a directory"},
	{syscall.EACCES, "PermissionError", "[Errno 13] Permission denied"},
	{syscall.ENAMETOOLONG, "OSError", "[Errno 36] File name too long"},
}

func osError(err error, path string) error {
	for _, e := range osErrors {
		if errors.Is(err, e.errno) {
			return &value.Error{Class: e.class, Message: e.text + ": " + value.Repr(cut(clean(path)))}
		}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		if p.Err.Error() == "path escapes from parent" {
			return outside(path)
		}
		err = p.Err
	}
	return &value.Error{Class: "OSError", Message: err.Error() + ": " + value.Repr(cut(clean(path)))}
}
