// Command matrix runs the end-to-end tests named TestNomad_… once for each Nomad binary, and prints a table of agent version × scenario.
// A scenario is a test without tests of its own.
//
//	go run ./e2e/matrix /path/to/nomad-1.9 /path/to/nomad-2.0
//
// The table is also written to .build/e2e/nomad-matrix.md, and what each run said beside it. The exit code is 1 when a scenario failed or
// none ran.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], filepath.Join(".build", "e2e"))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nomad-matrix:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bins []string, dir string) error {
	bins, err := binaries(bins)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	var results []results
	for _, bin := range bins {
		version, err := versionOf(ctx, bin)
		if err != nil {
			return err
		}
		seen, err := testWith(ctx, bin, version, filepath.Join(dir, "nomad-"+version+".json"))
		if err != nil {
			return fmt.Errorf("test with nomad %s: %w", version, err)
		}
		results = append(results, seen)
	}
	var table bytes.Buffer
	writeTable(&table, results, host(ctx))
	if err := os.WriteFile(filepath.Join(dir, "nomad-matrix.md"), table.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if _, err := table.WriteTo(os.Stdout); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return verdict(results)
}

// binaries are the ones asked for, else NOMAD_BIN, else the one on PATH. Tests run in another folder, so their paths are made absolute.
func binaries(asked []string) ([]string, error) {
	if len(asked) == 0 {
		asked = strings.Fields(os.Getenv("NOMAD_BIN"))
	}
	if len(asked) == 0 {
		found, err := exec.LookPath("nomad")
		if err != nil {
			return nil, errors.New(`no nomad binary: name some, as in make e2e-nomad NOMAD_BINS="/opt/nomad-1.9 /opt/nomad-2.0"`)
		}
		asked = []string{found}
	}
	var bins []string
	for _, bin := range asked {
		absolute, err := filepath.Abs(bin)
		if err != nil {
			return nil, err
		}
		bins = append(bins, absolute)
	}
	return bins, nil
}

// versionOf asks a binary, whose first line is as "Nomad v1.9.7".
func versionOf(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", bin, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	version, ok := strings.CutPrefix(strings.TrimSpace(first), "Nomad v")
	if !ok {
		return "", fmt.Errorf("%s is no nomad: its version is %q", bin, first)
	}
	return version, nil
}

// testLimit bounds the tests with one binary. They themselves bound every wait.
const testLimit = "30m"

// testWith runs the tests with one binary and keeps what they said in a file.
func testWith(ctx context.Context, bin, version, log string) (results, error) {
	fmt.Fprintf(os.Stderr, "nomad %s (%s)\n", version, bin)
	file, err := os.Create(log)
	if err != nil {
		return results{}, fmt.Errorf("create log: %w", err)
	}
	defer func() { _ = file.Close() }()
	// Scenarios wait most of their time, so more than one a processor can go on at once.
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-parallel", "8", "-timeout", testLimit, "-run", "^TestNomad_", "./e2e")
	cmd.Env = append(os.Environ(), "NOMAD_BIN="+bin, "PROMPTFLOW_INTEGRATION=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return results{}, err
	}
	if err := cmd.Start(); err != nil {
		return results{}, fmt.Errorf("start go test: %w", err)
	}
	seen, err := readResults(io.TeeReader(out, file), func(test, action string) {
		fmt.Fprintf(os.Stderr, "  %-5s %s\n", action, title(test))
	})
	seen.version = version
	if waited := cmd.Wait(); waited != nil && !seen.failed() {
		err = errors.Join(err, fmt.Errorf("go test, see %s: %w", log, waited))
	}
	return seen, err
}

// host describes the machine in a line.
func host(ctx context.Context) string {
	said := []string{time.Now().UTC().Format(time.DateOnly)}
	for _, ask := range [][]string{{"uname", "-sr"}, {"containerd", "--version"}, {"runc", "--version"}} {
		out, err := exec.CommandContext(ctx, ask[0], ask[1:]...).Output()
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(out), "\n")
		said = append(said, strings.TrimSpace(first))
	}
	said = append(said, "cgroup version "+cgroupVersion())
	return strings.Join(said, "; ")
}

func cgroupVersion() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "2"
	}
	return "1"
}

// verdict is an error unless every binary ran scenarios and none failed.
func verdict(all []results) error {
	for _, r := range all {
		switch {
		case len(r.scenarios) == 0:
			return fmt.Errorf("nomad %s: no scenario ran", r.version)
		case r.failed():
			return fmt.Errorf("nomad %s: a scenario failed", r.version)
		}
	}
	return nil
}
