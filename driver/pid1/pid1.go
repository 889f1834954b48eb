// Package pid1 is the first process of a container whose task asks for init.
//
// The kernel gives a container's orphans to its first process, and does not end that process by a signal it has no handler
// for. Most programs know nothing of either. [Run] is a first process that does: it passes every signal on to the command
// it runs, collects orphans, and ends as the command does.
package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a command that cannot be run, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Run runs a command ("--" may stand before it) and returns its exit code, 128 + n for signal n.
func Run(args []string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(stderr, "usage: nomad-promptflow init -- COMMAND [ARGUMENT...]")
		return 2
	}
	signals := make(chan os.Signal, 32)
	signal.Notify(signals)
	child, err := start(args)
	if err != nil {
		fmt.Fprintf(stderr, "init: run %s: %v\n", args[0], err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound
		}
		return exitNotExecutable
	}
	go passOn(signals, child)
	return await(child.Pid)
}

func start(args []string) (*os.Process, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	attributes := &syscall.SysProcAttr{}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		// Keys such as Ctrl-C go to whoever is in the terminal's foreground.
		attributes.Setpgid, attributes.Foreground, attributes.Ctty = true, true, 0
	}
	return os.StartProcess(path, args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: attributes,
	})
}

// passOn gives the command all signals but those that are about this process itself.
func passOn(signals <-chan os.Signal, child *os.Process) {
	for s := range signals {
		switch s {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGTTIN, syscall.SIGTTOU:
		default:
			_ = child.Signal(s) // it may have ended just now
		}
	}
}

// await collects whatever ends, until the command does.
func await(pid int) int {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return exitNotExecutable // no child is left, which cannot be
		case ended != pid:
		case status.Signaled():
			return 128 + int(status.Signal())
		case status.Exited():
			return status.ExitStatus()
		}
	}
}
