package pid1

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary an init process for the tests below. Being a subreaper it gets its command's orphans, as a
// container's first process does.
func TestMain(m *testing.M) {
	if os.Getenv("PID1_TEST") != "" {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		os.Exit(Run(os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

func initProcess(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], args...)
	command.Env = append(os.Environ(), "PID1_TEST=1")
	return command
}

func TestRun_endsAsTheCommandDoes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"--", "sh", "-c", "exit 7"}, 7, ""},
		{[]string{"true"}, 0, ""},
		{[]string{"--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"--", "no-such-command"}, 127, "no-such-command"},
		{[]string{"--", "/no/such/command"}, 127, "/no/such/command"},
		{[]string{"--", "/etc/passwd"}, 126, "permission denied"},
		{nil, 2, "usage"},
	} {
		command := initProcess(t, c.args...)
		var stderr bytes.Buffer
		command.Stderr = &stderr
		_ = command.Run() // the code is what counts
		test.Eq(t, c.want, command.ProcessState.ExitCode(), test.Sprint(c.args))
		test.StrContains(t, stderr.String(), c.says)
	}
}

func TestRun_passesSignalsOn(t *testing.T) {
	t.Parallel()
	command := initProcess(t, "--", "sh", "-c", `trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.05; done`)
	stdout, err := command.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, command.Start())
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	must.NoError(t, err)
	test.Eq(t, "ready\n", line)
	must.NoError(t, command.Process.Signal(syscall.SIGUSR1))
	rest, err := io.ReadAll(lines)
	must.NoError(t, err)
	test.Eq(t, "got it\n", string(rest))
	_ = command.Wait()
	test.Eq(t, 3, command.ProcessState.ExitCode())
}

func TestRun_collectsOrphans(t *testing.T) {
	t.Parallel()
	// The command's grandchild is orphaned and ends; then no zombie may be left below init.
	command := initProcess(t, "--", "sh", "-c", `
		(sh -c 'exit 0' & echo orphan $!) | { read -r _ pid
		for i in $(seq 200); do [ -e /proc/$pid ] || { echo collected; exit 0; }; sleep 0.02; done
		echo "still there: $(cat /proc/$pid/stat)"; }`)
	out, err := command.CombinedOutput()
	must.NoError(t, err)
	test.Eq(t, "collected", strings.TrimSpace(string(out)))
}
