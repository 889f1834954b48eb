// Package flows holds example flows of our own, in prompt flow's format, and what they give.
//
// Each runs unchanged on this project and on prompt flow's own tools; the test of this package runs them on prompt flow's own
// executor.
package flows

import (
	"path/filepath"
	"testing"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// The example flows.
const (
	TicketTriage = "ticket-triage"
	ChatSupport  = "chat-support"
)

// Dir returns an example flow's folder.
func Dir(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(harness.Root(t), "e2e", "flows", name)
}
