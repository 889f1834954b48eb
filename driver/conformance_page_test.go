package driver

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// The page of conformance cases names tests; each must be there.
func TestConformancePage_namesTestsThatAreThere(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance.md"))
	must.NoError(t, err)
	files, err := filepath.Glob("*_test.go")
	must.NoError(t, err)
	var sources strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		must.NoError(t, err)
		sources.Write(content)
	}
	named := regexp.MustCompile("`(Test[A-Za-z]+_[A-Za-z_]+)`").FindAllStringSubmatch(string(page), -1)
	must.Greater(t, 20, len(named))
	for _, name := range named {
		test.StrContains(t, sources.String(), "func "+name[1]+"(", test.Sprint(name[1]))
	}
}
