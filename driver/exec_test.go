package driver

import (
	"fmt"

	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// closeFrame is how many bytes an agent can pass on of an exec's error.
const closeFrame = 123

func TestExecTaskStreaming_failsInFewWords(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	task := newTestTask(t)
	_, err := d.StartTask(t.Context(), task)
	must.NoError(t, err)
	engine.fail["exec"] = fmt.Errorf("%w: %s", ErrUnavailable, strings.Repeat("dial ünix ", 50))
	_, err = d.ExecTaskStreaming(t.Context(), task.ID, plugin.ExecOptions{Command: []string{"true"}, Stdout: discard{}, Stderr: discard{}})
	must.ErrorContains(t, err, "container engine does not answer")
	test.StrHasSuffix(t, "...", err.Error())
	test.LessEq(t, closeFrame, len("rpc error: code = Unknown desc = ")+len(err.Error()))
}

// discard is an output that nobody reads.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
