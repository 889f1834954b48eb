package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo terminal with a program on it, as a person at a keyboard has it.
type Terminal struct {
	t      testing.TB
	master *os.File
	read   chan struct{} // closed when nothing more comes

	mu     sync.Mutex
	output strings.Builder
}

// StartOnTerminal starts the command on a terminal of the given size of its own.
func StartOnTerminal(t testing.TB, cmd *exec.Cmd, rows, columns uint16) *Terminal {
	t.Helper()
	master, slave := openTerminal(t)
	term := &Terminal{t: t, master: master, read: make(chan struct{})}
	term.Resize(rows, columns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	must(t, slave.Close())
	go term.collect()
	t.Cleanup(func() {
		_ = master.Close()
		<-term.read
	})
	return term
}

func openTerminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	// Without O_NONBLOCK a pending read would keep Close from ending it.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	must(t, err)
	var number int
	control(t, master, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return master, slave
}

// control calls do with the file's descriptor; [os.File.Fd] would make the file block.
func control(t testing.TB, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	must(t, err)
	var failed error
	must(t, raw.Control(func(fd uintptr) { failed = do(int(fd)) }))
	must(t, failed)
}

func (term *Terminal) collect() {
	defer close(term.read)
	buffer := make([]byte, 4096)
	for {
		n, err := term.master.Read(buffer)
		term.mu.Lock()
		term.output.Write(buffer[:n])
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Resize changes the terminal's size, which the program is told with SIGWINCH.
func (term *Terminal) Resize(rows, columns uint16) {
	term.t.Helper()
	control(term.t, term.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// Type types a text.
func (term *Terminal) Type(text string) {
	term.t.Helper()
	_, err := term.master.WriteString(text)
	must(term.t, err)
}

// Output is what was shown so far.
func (term *Terminal) Output() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.output.String()
}

// Await waits until a text is shown.
func (term *Terminal) Await(limit time.Duration, text string) {
	term.t.Helper()
	Eventually(term.t, limit, fmt.Sprintf("%q on the terminal", text), func() error {
		if shown := term.Output(); !strings.Contains(shown, text) {
			return fmt.Errorf("it shows %q", shown)
		}
		return nil
	})
}
