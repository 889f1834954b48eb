package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// figure is a row of the table. The ratio is the one that the goal is about.
type figure struct {
	Row     string  `json:"row"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Against string  `json:"against"`
	Theirs  float64 `json:"theirs"`
	Ratio   float64 `json:"ratio"`
	Goal    float64 `json:"goal"`
	Met     bool    `json:"met"`

	goal string // in words
}

// The figures of one run, in the order in which they were measured.
var figures []figure

// times adds a row of which ours should be many times theirs.
func times(b *testing.B, row, unit string, ours float64, against string, theirs, goal float64) {
	b.Helper()
	r := ratio(ours, theirs)
	add(b, figure{row, unit, ours, against, theirs, r, goal, r >= goal, fmt.Sprintf("at least %g×", goal)})
}

// part adds a row of which ours should be a part of theirs.
func part(b *testing.B, row, unit string, ours float64, against string, theirs, goal float64) {
	b.Helper()
	r := ratio(ours, theirs)
	add(b, figure{row, unit, ours, against, theirs, r, goal, r <= goal, fmt.Sprintf("at most %.2f×", goal)})
}

// atLeast and atMost add rows with a goal of their own.
func atLeast(b *testing.B, row, unit string, ours float64, against string, theirs, goal float64) {
	b.Helper()
	add(b, figure{row, unit, ours, against, theirs, ratio(ours, theirs), goal, ours >= goal, fmt.Sprintf("at least %g %s", goal, unit)})
}

func atMost(b *testing.B, row, unit string, ours float64, against string, theirs, goal float64) {
	b.Helper()
	add(b, figure{row, unit, ours, against, theirs, ratio(ours, theirs), goal, ours <= goal, fmt.Sprintf("at most %g %s", goal, unit)})
}

func ratio(ours, theirs float64) float64 {
	if theirs == 0 {
		return 0
	}
	return ours / theirs
}

func add(b *testing.B, f figure) {
	b.Helper()
	figures = append(figures, f)
	b.Logf("%s: ours %.4g %s, %s %.4g, ratio %.3g, goal %s, met %v", f.Row, f.Ours, f.Unit, f.Against, f.Theirs, f.Ratio, f.goal, f.Met)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// writeFigures writes what was measured for `make bench`, and the table for docs/benchmarks.md beside it.
func writeFigures(b *testing.B) {
	b.Helper()
	dir := filepath.Join(harness.Root(b), ".build", "bench")
	must.NoError(b, os.MkdirAll(dir, 0o755))
	content, err := json.MarshalIndent(figures, "", "  ")
	must.NoError(b, err)
	must.NoError(b, os.WriteFile(filepath.Join(dir, "runtime.json"), append(content, '\n'), 0o644))
	must.NoError(b, os.WriteFile(filepath.Join(dir, "runtime.md"), []byte(table()), 0o644))
	fmt.Print("\n", table(), "\n")
}

func table() string {
	var t strings.Builder
	t.WriteString("| what | unit | ours | theirs | against | ratio | goal | met |\n|---|---|---|---|---|---|---|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %s | %.3g | %s | %s |\n", f.Row, f.Unit, number(f.Ours), number(f.Theirs), f.Against, f.Ratio, f.goal,
			map[bool]string{true: "yes", false: "**no**"}[f.Met])
	}
	return t.String()
}

func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
