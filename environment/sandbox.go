package environment

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sandbox runs the programs of a build. Each runs in mount and process namespaces of its own: when it ends, is cancelled, or when
// this process dies, everything that it started and mounted is gone.
type sandbox struct {
	// inputs is the folder that commands in a root file system see as /mnt.
	inputs string
	// temp is where programs outside of a root file system put their temporary files.
	temp string
	// line is told each line of output.
	line func(string)
}

// tailLines is how many lines of output an error can look back on.
const tailLines = 15

// waitDelay is how long a cancelled program's output is waited for.
const waitDelay = 5 * time.Second

// commandError is a program that failed, with the end of its output.
type commandError struct {
	name string
	tail []string
	err  error
}

func (e *commandError) Error() string {
	return fmt.Sprintf("%s: %v; its last words:\n%s", e.name, e.err, strings.Join(e.tail, "\n"))
}

func (e *commandError) Unwrap() error { return e.err }

// host runs a program of this machine.
func (s *sandbox) host(ctx context.Context, name string, args ...string) error {
	return s.run(ctx, filepath.Base(name), s.environment("TMPDIR="+s.temp), append([]string{name}, args...))
}

// chroot runs a program inside a root file system, as root, with the machine's network.
func (s *sandbox) chroot(ctx context.Context, root string, command ...string) error {
	argv := append([]string{"sh", filepath.Join(s.inputs, "enter.sh"), root, s.inputs}, command...)
	return s.run(ctx, strings.Join(command, " "), s.environment(insideEnvironment(s.inputs)...), argv)
}

func (s *sandbox) run(ctx context.Context, name string, env, argv []string) error {
	namespaces := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"}
	cmd := exec.CommandContext(ctx, "unshare", append(namespaces, argv...)...)
	cmd.Env = env
	cmd.Dir = "/"
	cmd.WaitDelay = waitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// An own process group and SIGKILL, because Ctrl-C on a terminal must not reach the program before us.
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	tail := make(chan []string, 1)
	go func() { tail <- s.follow(reader) }()
	err := runOnOneThread(cmd)
	_ = writer.Close()
	last := <-tail
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("run %s: the program unshare is missing: apt-get install util-linux: %w", name, err)
	default:
		return &commandError{name: name, tail: last, err: err}
	}
}

// runOnOneThread keeps the thread that started the program alive for as long as the program runs: Linux ties Pdeathsig to the
// thread, not to the process, and Go ends idle threads.
func runOnOneThread(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// follow reports the output line by line and returns its end.
func (s *sandbox) follow(r io.Reader) (tail []string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " \r")
		if line == "" {
			continue
		}
		s.line(line)
		tail = append(tail, line)
		tail = tail[max(0, len(tail)-tailLines):]
	}
	// A line that is too long ends the scanner; the program must still be able to write.
	_, _ = io.Copy(io.Discard, r)
	return tail
}

// passedOn are the variables of this machine that say how to reach the network. Nothing of them gets into the image.
var passedOn = []string{
	"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES",
}

// environment is the whole environment of a build program: fixed but for the network.
func (s *sandbox) environment(more ...string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", sourceDate.Unix()),
	}
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return slices.Concat(env, more)
}

const (
	insideCA        = "host-ca.pem"
	insidePipConfig = "host-pip.conf"
)

// insideEnvironment names, for programs inside a root file system, the certificate authorities and the pip configuration of this
// machine, which are among the inputs when there are any.
func insideEnvironment(inputs string) []string {
	env := []string{"HOME=/tmp"}
	if _, err := os.Stat(filepath.Join(inputs, insideCA)); err == nil {
		env = append(env, "PIP_CERT=/mnt/"+insideCA, "SSL_CERT_FILE=/mnt/"+insideCA)
	}
	if _, err := os.Stat(filepath.Join(inputs, insidePipConfig)); err == nil {
		env = append(env, "PIP_CONFIG_FILE=/mnt/"+insidePipConfig)
	}
	return env
}

// writeHostSettings copies the machine's certificate authorities and pip configuration into the inputs.
func writeHostSettings(inputs string) error {
	authorities := []string{os.Getenv("PIP_CERT"), os.Getenv("REQUESTS_CA_BUNDLE"), os.Getenv("SSL_CERT_FILE"),
		os.Getenv("CURL_CA_BUNDLE"), "/etc/ssl/certs/ca-certificates.crt"}
	if err := copyFirst(filepath.Join(inputs, insideCA), authorities); err != nil {
		return err
	}
	return copyFirst(filepath.Join(inputs, insidePipConfig), []string{os.Getenv("PIP_CONFIG_FILE"), "/etc/pip.conf"})
}

// copyFirst copies the first of the files that can be read, if any.
func copyFirst(target string, files []string) error {
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if err := os.WriteFile(target, raw, 0o600); err != nil {
			return fmt.Errorf("copy %s for the build: %w", file, err)
		}
		return nil
	}
	return nil
}
