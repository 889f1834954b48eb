package validate

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

func TestCorpus(t *testing.T) {
	harness.Integration(t)
	top := os.Getenv("PROMPTFLOW_FLOWS")
	if top == "" {
		t.Skip("set PROMPTFLOW_FLOWS")
	}
	m, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir()})
	must.NoError(t, err)
	defer m.Close()
	must.NoError(t, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasPrefix(d.Name(), "flow.dag.y") {
			return err
		}
		dir := filepath.Dir(path)
		c := m.NewChecker()
		defer c.Close()
		v := New(Config{Dir: dir, Python: c, Connections: func(env connection.Lookup) (*connection.Set, error) {
			return connection.Load(os.Getenv("CONNECTIONS"), env)
		}})
		out, err := v.Check(t.Context(), true)
		if err != nil {
			fmt.Println("##", dir, err)
			return nil
		}
		rel, _ := filepath.Rel(top, dir)
		fmt.Printf("## %s %s %.0fms\n", rel, out.Result, out.Duration*1000)
		for _, p := range out.Problems {
			fmt.Printf("%s:%d:%d: %s: %s [%s] node=%s/%s\n   mend: %s\n   | %s\n", p.File, p.Line, p.Column, p.Severity, p.Message, p.Code, p.Node, p.Variant, p.Mend, p.Text)
		}
		for _, u := range out.Unchecked {
			fmt.Println("unchecked:", u)
		}
		return nil
	}))
}
