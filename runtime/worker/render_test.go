package worker

import (
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func TestSession_Render_boundsTemplatesThatLoopForEver(t *testing.T) {
	m := startManager(t, Config{Workers: 1, Render: 300 * time.Millisecond, Grace: 300 * time.Millisecond})
	f := open(t, m, FlowSpec{ID: "f", Dir: t.TempDir()})
	for _, endless := range []string{
		"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
		"{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 100 }}{% endfor %}{% endfor %}",
		"{{ 9 ** (9 ** 9) }}", // Python computes it while it compiles the template, and lets nothing else run
	} {
		s := lease(t, f)
		began := time.Now()
		_, err := s.Render(within(t, time.Minute), endless, value.NewDict())
		e := api.AsError(err)
		must.NotNil(t, e, must.Sprint(endless))
		test.Eq(t, []string{"UserError", "ToolValidationError", "JinjaTemplateError"}, e.Chain())
		test.StrContains(t, e.Message, "it did not end within 300ms")
		test.Less(t, 10*time.Second, time.Since(began))
		s.Release()

		// The flow goes on.
		eventually(t, "the flow to render again", func() bool {
			again := lease(t, f)
			defer again.Release()
			vars := value.NewDict()
			vars.Set("x", true)
			text, err := again.Render(within(t, time.Minute), "{% if x %}fine{% endif %}", vars)
			return err == nil && text == "fine"
		})
	}
}
