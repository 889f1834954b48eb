// Package bundle packs flow folders, names them and unpacks them again.
//
// A bundle is a tar of the folder's regular files in the order of their paths, with one mode, no owner and no times; its name is
// "sha256:" and the hex digest of that tar, so the same content has the same name everywhere. On the wire it is compressed with
// zstd ([MediaType]); compression is no part of the name.
//
// Left out when packing: .git, .svn, .hg, .venv, venv, __pycache__, .promptflow, .pytest_cache, .mypy_cache, .ipynb_checkpoints,
// node_modules and *.pyc, at any depth. Links are refused: a flow must be whole on its own. What a flow includes from outside
// (additional_includes) is packed with it ([Options]), so that whoever unpacks it needs nothing else.
//
// Unpacking trusts nothing: paths that leave the folder, links, devices, more bytes or files than allowed and content that does not
// match the name are refused, and nothing is left behind.
package bundle

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MediaType is a packed bundle's media type on the wire.
const MediaType = "application/vnd.nomad-promptflow.flow.v1.tar+zstd"

// Limits bound what a bundle may hold.
type Limits struct {
	Bytes int64 // of all files together, unpacked
	Files int
	Path  int // length of a path in bytes
	Depth int // folders in a path
}

// DefaultLimits are generous for a flow, and far from filling a disk.
var DefaultLimits = Limits{Bytes: 512 << 20, Files: 20_000, Path: 1024, Depth: 32}

var (
	// ErrInvalid is wrapped by every error that is the bundle's own fault.
	ErrInvalid = errors.New("invalid bundle")
	// ErrTooLarge is wrapped, beside ErrInvalid, by errors about limits.
	ErrTooLarge = errors.New("too large")
	// ErrNoFlow is wrapped when a folder holds no flow.
	ErrNoFlow = errors.New("no flow found")
)

// ParseDigest checks that text is a bundle's name and returns its hex part.
func ParseDigest(text string) (string, error) {
	d, err := digest.Parse(text)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%w: digest %q: must be sha256: and 64 hex digits", ErrInvalid, text)
	}
	return d.Encoded(), nil
}

// LeftOut says whether a file or folder of this name is never packed.
func LeftOut(name string) bool {
	switch name {
	case ".git", ".svn", ".hg", ".venv", "venv", "__pycache__", ".promptflow", ".pytest_cache", ".mypy_cache", ".ipynb_checkpoints", "node_modules":
		return true
	default:
		return strings.HasSuffix(name, ".pyc")
	}
}

// isFlowFile says whether a file of this name, at the top of a folder, makes the folder a flow.
func isFlowFile(name string) bool {
	switch name {
	case "flow.dag.yaml", "flow.dag.yml", "flow.flex.yaml", "flow.flex.yml":
		return true
	default:
		return strings.HasSuffix(name, ".prompty")
	}
}

// mayBeFlowFile says whether a file of this path could be the flow of a bundle: who packed it may have named it.
func mayBeFlowFile(path string) bool {
	for _, suffix := range []string{".yaml", ".yml", ".prompty"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", ErrInvalid, ErrTooLarge, fmt.Sprintf(format, args...))
}
