package worker

import (
	"testing"

	"github.com/shoenig/test"
)

func TestCleanEnviron(t *testing.T) {
	t.Parallel()
	in := []string{"PATH=/bin", "PROMPTFLOW_TRUST=file", "PROMPTFLOW_CONNECTIONS=/secrets/c", "NOMAD_TOKEN=t", "VAULT_TOKEN=v",
		"CONSUL_HTTP_TOKEN=c", "NOMAD_ALLOC_ID=a", "PF_DISABLE_TRACING=false", "OPENAI_BASE_URL=http://x", "EMPTY="}
	test.Eq(t, []string{"PATH=/bin", "NOMAD_ALLOC_ID=a", "PF_DISABLE_TRACING=false", "OPENAI_BASE_URL=http://x", "EMPTY="}, cleanEnviron(in))
}

func TestAllowedVariables(t *testing.T) {
	t.Parallel()
	got := allowedVariables(map[string]string{"A": "1", "BROWSER": "evil", "PYTHONWARNINGS": "x", "PF_USE_SANDBOX_FOR_JINJA": "false"})
	test.Eq(t, map[string]string{"A": "1"}, got)
}
