package environment

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed base/rootfs.packages base/rootfs.dpkg base/rootfs.sh base/packages.sh base/compile.py base/enter.sh
//go:embed base/requirements.lock base/build-requirements.lock
var baseFiles embed.FS

// baseFile returns one of the embedded files, which the compiler has made sure of.
func baseFile(name string) []byte {
	raw, err := baseFiles.ReadFile("base/" + name)
	if err != nil {
		panic(err)
	}
	return raw
}

// baseLines returns the lines of an embedded list, without comments and empty lines.
func baseLines(name string) []string {
	var lines []string
	for line := range strings.Lines(string(baseFile(name))) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// writeBaseFiles puts the embedded files into dir, for scripts that run in a root file system.
func writeBaseFiles(dir string) error {
	entries, err := baseFiles.ReadDir("base")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.WriteFile(filepath.Join(dir, e.Name()), baseFile(e.Name()), 0o644); err != nil {
			return fmt.Errorf("write the build's files: %w", err)
		}
	}
	return nil
}
