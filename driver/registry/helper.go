package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// helperPrefix begins the names of all credential helpers.
	helperPrefix = "docker-credential-"
	// helperTimeout bounds one question to a helper, which may itself have to ask a cloud.
	helperTimeout = 20 * time.Second
	// helperGrace is how long what a killed helper left behind may hold its output open.
	helperGrace = time.Second
	// maxHelperOutput bounds what is kept of either output.
	maxHelperOutput = 64 << 10
	// maxHelperMessage is how much of a helper's complaint is passed on.
	maxHelperMessage = 200
)

// noCredentials is what a helper says that has none for the registry, as docker's protocol has it.
const noCredentials = "credentials not found in native keychain"

// tokenUser is the user name beside which a helper gives an identity token.
const tokenUser = "<token>"

// askHelper asks a docker-credential-… program for the credentials of a registry.
func askHelper(ctx context.Context, name, address string) (Credentials, error) {
	program := helperPrefix + name
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	output, err := runHelper(ctx, program, address)
	if ctx.Err() != nil && err != nil {
		return Credentials{}, fmt.Errorf("%s does not answer: %w", program, ctx.Err())
	}
	if err != nil && strings.Contains(string(output), noCredentials) {
		return Credentials{}, nil
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("%s: %w", program, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(output, &answer); err != nil {
		// What it said instead may be a secret.
		return Credentials{}, fmt.Errorf("%s: its answer is not the JSON of a credential helper", program)
	}
	if answer.Username == tokenUser {
		answer.Username = ""
	}
	return Credentials{Username: answer.Username, Secret: answer.Secret}, nil
}

// runHelper runs the program in a process group of its own, so that nothing of it outlives the call.
func runHelper(ctx context.Context, program, address string) ([]byte, error) {
	stdout, stderr := boundedBuffer{}, boundedBuffer{}
	command := exec.CommandContext(ctx, program, "get")
	command.Stdin = strings.NewReader(address)
	command.Stdout, command.Stderr = &stdout, &stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = helperGrace
	err := command.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// It has answered; only what it left in the background holds its output.
		err = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	}
	if stdout.full {
		return nil, fmt.Errorf("it prints more than %d bytes", maxHelperOutput)
	}
	var exit *exec.ExitError
	if message := firstLine(stderr.kept.String()); errors.As(err, &exit) && message != "" {
		err = fmt.Errorf("%w: %s", err, message)
	}
	return stdout.kept.Bytes(), err
}

// boundedBuffer takes so much and no more; who writes on finds the pipe closed. The buffer is not embedded, so that Write is
// the only way into it.
type boundedBuffer struct {
	kept bytes.Buffer
	full bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := maxHelperOutput - b.kept.Len(); len(p) > room {
		b.full = true
		n, _ := b.kept.Write(p[:room]) // it never fails
		return n, io.ErrShortWrite
	}
	return b.kept.Write(p)
}

// firstLine is the printable beginning of a message.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, line)
	if len(line) > maxHelperMessage {
		line = strings.ToValidUTF8(line[:maxHelperMessage], "") + "…"
	}
	return line
}
