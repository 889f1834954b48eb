package environment

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// requirement is one locked package: its line and the hash lines below it.
var requirement = regexp.MustCompile(`(?m)^([a-z0-9.-]+)==([^ ]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)`)

func TestEveryLockedPackageHasHashes(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"requirements.lock", "build-requirements.lock"} {
		rest := requirement.ReplaceAllString(string(baseFile(file)), "")
		for line := range strings.Lines(rest) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				t.Errorf("%s has a line that is no package with hashes: %s", file, line)
			}
		}
	}
}

func TestTheLockFileHasWhatItsSourceAsksFor(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("base/requirements.in")
	must.NoError(t, err)
	locked := pythonPackages()
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, version, pinned := strings.Cut(line, "==")
		must.MapContainsKey(t, locked, name)
		if pinned {
			test.Eq(t, version, locked[name])
		}
	}
}

func TestPythonPackages(t *testing.T) {
	t.Parallel()
	packages := pythonPackages()
	test.Eq(t, "1.18.5", packages["promptflow-core"])
	test.Eq(t, "1.6.1", packages["promptflow-tools"])
	test.Eq(t, len(requirement.FindAllString(string(baseFile("requirements.lock")), -1)), len(packages))
}
