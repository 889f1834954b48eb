package validate

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

func BenchmarkAgain(b *testing.B) {
	harness.Integration(b)
	m, err := worker.Start(b.Context(), worker.Config{Python: harness.Python(b), Dir: b.TempDir()})
	must.NoError(b, err)
	defer m.Close()
	dir := b.TempDir()
	must.NoError(b, os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(b), "e2e/flows/ticket-triage"))))
	c := m.NewChecker()
	defer c.Close()
	v := New(Config{Dir: dir, Python: c, Connections: func(env connection.Lookup) (*connection.Set, error) { return connection.Load("", env) }})
	out, err := v.Check(b.Context(), false)
	must.NoError(b, err)
	b.Log(out.Problems, out.Duration, out.Checked)
	out, err = v.Check(b.Context(), false)
	must.NoError(b, err)
	b.Log(out.Duration, out.Checked, out.Reused)
	text, err := os.ReadFile(filepath.Join(dir, "route.py"))
	must.NoError(b, err)
	for b.Loop() {
		text = append(text, "# x\n"...)
		must.NoError(b, os.WriteFile(filepath.Join(dir, "route.py"), text, 0o600))
		out, err = v.Check(b.Context(), false)
		must.NoError(b, err)
	}
	b.Log(out.Duration, out.Checked, out.Reused)
}
