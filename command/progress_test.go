package command

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"

	"github.com/nomad-promptflow/nomad-promptflow/environment"
)

func TestProgress_off_a_terminal_is_a_line_per_step(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out)
	p.doing("layer %d", 1)
	p.did("layer %d is done", 1)
	p.doing("layer %d", 2)
	p.end()
	test.RegexMatch(t, regexp.MustCompile(`^ +\d+\.\ds  layer 1 is done\n$`), out.String())
}

func TestProgress_on_a_terminal_is_one_line_that_changes(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &progress{out: &out, terminal: true, started: time.Now()}
	p.doing("%s", strings.Repeat("ü", 200))
	shown := out.String()
	test.Eq(t, maxProgress, len([]rune(shown)))
	test.StrHasSuffix(t, "…", shown)

	out.Reset()
	p.did("done")
	clear := "\r" + strings.Repeat(" ", maxProgress) + "\r"
	test.StrHasPrefix(t, clear, out.String())
	test.StrHasSuffix(t, "s  done\n", out.String())

	out.Reset()
	p.end()
	test.Eq(t, "", out.String())
	p.doing("more")
	out.Reset()
	p.end()
	test.RegexMatch(t, regexp.MustCompile("^\r +\r$"), out.String())
}

func TestProgress_shows_what_a_build_does(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out)
	p.build(environment.Event{Stage: "python", Detail: "installing"})
	p.build(environment.Event{Stage: "python", Detail: "12 MB", Done: true})
	p.build(environment.Event{Stage: "rootfs", Detail: "80 MB", Done: true, Cached: true})
	test.RegexMatch(t, regexp.MustCompile(`^ +\S+s  python: 12 MB\n +\S+s  rootfs: 80 MB, as before\n$`), out.String())
}

func TestMegabytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0.0 MB", 50_000: "0.1 MB", 123_456_789: "123.5 MB"} {
		test.Eq(t, want, megabytes(n))
	}
}
