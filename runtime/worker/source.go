package worker

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sources is the Python side. The folder name is the package's name in Python.
//
//go:embed nomad_promptflow_worker/*.py
var sources embed.FS

// writeSources writes the Python side into a new private folder under parent. Being a folder of files rather than a -c
// argument gives user stack traces real file names, and keeps ps readable.
func writeSources(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "promptflow-worker-") // mode 0700
	if err != nil {
		return "", fmt.Errorf("create worker folder: %w", err)
	}
	err = fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, path)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := sources.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("write worker sources: %w", err)
	}
	return dir, nil
}
