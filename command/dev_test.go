package command

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/jobspecs"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// newDev is a dev that has started nothing yet.
func newDev(options devOptions) *devCluster {
	return &devCluster{
		options: options, progress: newProgress(io.Discard), logger: hclog.NewNullLogger(),
		task: jobspecs.Task{Job: "dev", Name: "runtime", MemoryMB: 512}, failed: make(chan error, 1),
	}
}

func TestJobVars(t *testing.T) {
	t.Parallel()
	vars, err := (&devOptions{count: 2, logLevel: "off", vars: repeated{"cpu=500", "image=a=b"}}).jobVars()
	must.NoError(t, err)
	test.Eq(t, map[string]string{"name": "dev", "count": "2", "cpu": "500", "image": "a=b"}, vars)

	vars, err = (&devOptions{count: 1, vars: repeated{"name=mine"}}).jobVars()
	must.NoError(t, err)
	test.Eq(t, map[string]string{"name": "mine", "count": "1"}, vars)
}

func TestConcurrency_is_the_one_of_the_job(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 32, "4": 4} {
		d := newDev(devOptions{})
		d.vars = map[string]string{"max_concurrency": text}
		test.Eq(t, want, d.concurrency())
	}
}

func TestDown_undoes_the_last_first_and_all_of_it(t *testing.T) {
	t.Parallel()
	d := newDev(devOptions{})
	var order []int
	lost := errors.New("lost")
	for i := range 3 {
		d.undo(func(ctx context.Context) error {
			order = append(order, i)
			_, bounded := ctx.Deadline()
			test.True(t, bounded)
			if i == 1 {
				return lost
			}
			return nil
		})
	}
	must.ErrorIs(t, d.down(t.Context()), lost)
	test.Eq(t, []int{2, 1, 0}, order)
	must.NoError(t, d.down(t.Context()))
	test.Eq(t, []int{2, 1, 0}, order)
}

func TestLockData_keeps_a_second_dev_out(t *testing.T) {
	t.Parallel()
	options := devOptions{dataDir: t.TempDir()}
	first, second := newDev(options), newDev(options)
	must.NoError(t, first.lockData())
	test.ErrorContains(t, second.lockData(), "data folder "+options.dataDir+" is in use by another dev: stop it, or name another folder with -data-dir")
	must.NoError(t, second.down(t.Context()))
	must.NoError(t, first.down(t.Context()))
	must.NoError(t, second.lockData())
	must.NoError(t, second.down(t.Context()))
}

func TestListen_takes_the_port_of_the_gateway(t *testing.T) {
	t.Parallel()
	first := newDev(devOptions{})
	listener, err := first.listen(t.Context())
	must.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	test.Eq(t, "http://127.0.0.1:"+strconv.Itoa(port), first.address)

	_, err = newDev(devOptions{port: port}).listen(t.Context())
	test.ErrorContains(t, err, "port "+strconv.Itoa(port)+" is taken: choose another with -port (0 takes a free one)")

	// The gateway closes it before it is taken down.
	must.NoError(t, listener.Close())
	must.NoError(t, first.down(t.Context()))
}

func TestFindContainerd_uses_the_one_that_is_named(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "npf-") //nolint:usetesting // a socket's path has at most 107 bytes
	must.NoError(t, err)
	defer func() { must.NoError(t, os.RemoveAll(dir)) }()
	d := newDev(devOptions{containerd: filepath.Join(dir, "s")})
	test.ErrorContains(t, d.findContainerd(t.Context()), "reach containerd at "+d.options.containerd)

	listener, err := net.Listen("unix", d.options.containerd)
	must.NoError(t, err)
	defer func() { must.NoError(t, listener.Close()) }()
	must.NoError(t, d.findContainerd(t.Context()))
	test.Eq(t, d.options.containerd, d.containerd)
}

func TestStartContainerd_says_what_to_install(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := newDev(devOptions{dataDir: t.TempDir()}).startContainerd(t.Context())
	test.ErrorContains(t, err, "there is no containerd to start one with: apt-get install containerd runc")
}

func TestStartContainerd_says_where_the_log_of_one_that_fails_is(t *testing.T) {
	programs := t.TempDir()
	for name, script := range map[string]string{"containerd": "#!/bin/sh\necho no disk\nexit 1\n", "runc": "#!/bin/sh\n"} {
		must.NoError(t, os.WriteFile(filepath.Join(programs, name), []byte(script), 0o700)) //nolint:gosec // a program
	}
	t.Setenv("PATH", programs)
	d := newDev(devOptions{dataDir: t.TempDir()})
	d.runDir = t.TempDir()
	err := d.startContainerd(t.Context())
	log := filepath.Join(d.options.dataDir, "containerd.log")
	test.EqError(t, err, "start containerd: it exited at once; its log: "+log)
	must.NoError(t, d.down(t.Context()))
	said, err := os.ReadFile(log)
	must.NoError(t, err)
	test.Eq(t, "no disk\n", string(said))
	config, err := os.ReadFile(filepath.Join(d.runDir, "containerd.toml"))
	must.NoError(t, err)
	test.StrContains(t, string(config), `root = "`+filepath.Join(d.options.dataDir, "containerd")+`"`)
}

func TestEndProcess_asks_and_then_makes_it(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script   string
		patience time.Duration
		want     string
	}{
		"one that listens":  {`echo; exec cat`, time.Minute, "signal: terminated"},
		"one that does not": {`trap "" TERM; echo; exec cat`, time.Millisecond, "signal: killed"},
		"one that is gone":  {`echo`, time.Minute, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/bin/sh", "-c", tc.script)
			in, err := cmd.StdinPipe()
			must.NoError(t, err)
			defer func() { _ = in.Close() }()
			out, err := cmd.StdoutPipe()
			must.NoError(t, err)
			must.NoError(t, cmd.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			must.NoError(t, err)
			exited := make(chan struct{})
			var waited error
			go func() { defer close(exited); waited = cmd.Wait() }()
			if tc.want == "" {
				<-exited
			}
			must.NoError(t, endProcess(cmd.Process, exited, tc.patience))
			if tc.want == "" {
				test.NoError(t, waited)
				return
			}
			test.EqError(t, waited, tc.want)
		})
	}
}

func TestUnmountBelow_leaves_a_folder_without_mounts_alone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must.NoError(t, unmountBelow(dir))
	must.NoError(t, unmountBelow(filepath.Join(dir, "none")))
	test.FileExists(t, filepath.Join(dir, "file"))
}

func TestModelEnv_passes_on_what_reaches_models(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "k=v")
	t.Setenv("AZURE_OPENAI_ENDPOINT", "https://x")
	t.Setenv("MY_OPENAI_API_KEY", "no")
	env := modelEnv()
	test.Eq(t, "k=v", env["OPENAI_API_KEY"])
	test.Eq(t, "https://x", env["AZURE_OPENAI_ENDPOINT"])
	for name := range env {
		test.True(t, strings.HasPrefix(name, "OPENAI_") || strings.HasPrefix(name, "AZURE_OPENAI_"), test.Sprint(name))
	}
}

func TestDevLogger_shows_nothing_unless_asked(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]bool{"": false, "off": false, "OFF": false, "error": false, "info": true, "debug": true} {
		var out bytes.Buffer
		devLogger(&out, level).Info("hello")
		test.Eq(t, want, strings.Contains(out.String(), "hello"), test.Sprint(level))
	}
}

func TestDevExec_passes_the_exit_code_on(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		command, stdout, stderr string
		code                    int
	}{
		"success":        {command: `echo "$PROMPTFLOW_ADDR $PROMPTFLOW_RUNTIME"`, stdout: "http://127.0.0.1:1 dev\n"},
		"failure":        {command: `echo oh >&2; exit 7`, stderr: "oh\n", code: 7},
		"a signal":       {command: `kill -9 $$`, stderr: "nomad-promptflow: run \"kill -9 $$\": signal: killed\n", code: exitFailure},
		"a wrong script": {command: `if`, stderr: "yntax error", code: 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			c := &devCommand{meta: meta{stdout: &stdout, stderr: &stderr}}
			d := newDev(devOptions{exec: tc.command})
			d.address = "http://127.0.0.1:1"
			test.Eq(t, tc.code, c.devExec(t.Context(), d))
			test.Eq(t, tc.stdout, stdout.String())
			test.StrContains(t, stderr.String(), tc.stderr)
		})
	}
}

func TestDevExec_ends_with_its_context(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	c := &devCommand{meta: meta{stdout: writer, stderr: io.Discard}}
	code := make(chan int, 1)
	go func() { code <- c.devExec(ctx, newDev(devOptions{exec: "echo started; exec sleep 60"})) }()
	_, err := bufio.NewReader(reader).ReadString('\n')
	must.NoError(t, err)
	cancel()
	select {
	case got := <-code:
		test.Eq(t, exitFailure, got)
	case <-time.After(30 * time.Second):
		t.Fatal("the command goes on")
	}
}

// newInstance is an instance without a container.
func newInstance(t *testing.T) *devInstance {
	t.Helper()
	alloc, err := agent.NewAlloc(agent.AllocConfig{Dir: filepath.Join(t.TempDir(), "alloc"), Job: "dev", Task: "runtime", ID: "0123456789ab"})
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, alloc.Destroy()) })
	return &devInstance{alloc: alloc, exited: make(chan struct{})}
}

func TestExitError_says_how_a_runtime_ended(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		exit *plugin.ExitResult
		err  error
		want string
	}{
		"a code":            {exit: &plugin.ExitResult{ExitCode: 3}, want: "exited with code 3"},
		"success":           {exit: &plugin.ExitResult{}, want: "exited with code 0"},
		"a signal":          {exit: &plugin.ExitResult{ExitCode: 137, Signal: 9}, want: "was ended by signal 9"},
		"no memory":         {exit: &plugin.ExitResult{ExitCode: 137, Signal: 9, OOMKilled: true}, want: "ran out of memory (limit 512 MiB): give it more with -var memory=…"},
		"a lost connection": {err: errors.New("connection refused"), want: "was lost: connection refused"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			instance := newInstance(t)
			instance.exit, instance.waitErr = tc.exit, tc.err
			test.EqError(t, newDev(devOptions{}).exitError(instance), "runtime instance 01234567 "+tc.want)
		})
	}
}

func TestAwaitReady(t *testing.T) {
	t.Parallel()
	t.Run("asks until the runtime is ready", func(t *testing.T) {
		t.Parallel()
		starting := api.ErrorBody{Error: api.NewError([]string{api.SystemError, "NotReady"}, "Runtime", "starting")}
		server := newCanned(t, map[string][]answer{"GET /ready": {{503, starting}, {503, starting}, {200, nil}}})
		instance := newInstance(t)
		instance.address, instance.token = server.URL, "secret"
		must.NoError(t, newDev(devOptions{}).awaitReady(t.Context(), instance))
		test.Eq(t, []string{"GET /ready", "GET /ready", "GET /ready"}, server.calls())
		test.Eq(t, "Bearer secret", server.asked[0].token)
	})
	t.Run("ends with the container", func(t *testing.T) {
		t.Parallel()
		server := newCanned(t, nil)
		instance := newInstance(t)
		instance.address, instance.exit = server.URL, &plugin.ExitResult{ExitCode: 1}
		close(instance.exited)
		test.EqError(t, newDev(devOptions{}).awaitReady(t.Context(), instance), "runtime instance 01234567 exited with code 1")
	})
	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		instance := newInstance(t)
		instance.address = newCanned(t, nil).URL
		test.ErrorIs(t, newDev(devOptions{}).awaitReady(ctx, instance), context.Canceled)
	})
}

func TestPrintDev_says_where_everything_is(t *testing.T) {
	t.Parallel()
	instance := newInstance(t)
	instance.address, instance.dir, instance.task = "http://127.0.0.1:2", "/run/x/alloc-0", &plugin.TaskConfig{Name: "runtime"}
	head := "\ngateway   http://127.0.0.1:1\nruntime   dev\ninstance  01234567  http://127.0.0.1:2  log /run/x/alloc-0/alloc/logs/runtime.stderr.0\n"
	for command, want := range map[string]string{
		"true": head,
		"":     head + "\nEverybody on this machine who reaches the gateway may run flows. Try:\n\n  nomad-promptflow run FLOW-FOLDER -address http://127.0.0.1:1\n\nCtrl-C stops.\n",
	} {
		var out bytes.Buffer
		d := newDev(devOptions{exec: command})
		d.address, d.instances = "http://127.0.0.1:1", []*devInstance{instance}
		(&devCommand{meta: meta{stdout: &out, stderr: io.Discard}}).printDev(d)
		test.Eq(t, want, out.String())
	}
}

func TestAbsolute(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	must.NoError(t, err)
	for path, want := range map[string]string{"/a/../b": "/b", "x": filepath.Join(here, "x"), "": here} {
		got, err := absolute(path)
		must.NoError(t, err)
		test.Eq(t, want, got)
	}
}
