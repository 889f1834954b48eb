package value

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// python answers for every line of JSON what CPython makes of the value.
const python = `
import json, sys, unicodedata

def attempt(f, v):
    try:
        return repr(f(v))
    except Exception as e:
        return f"{type(e).__name__}: {e}"

for line in sys.stdin.buffer:
    try:
        v = json.loads(line.rstrip(b"\n"))
    except Exception as e:
        print(json.dumps([f"{type(e).__name__}: {e}"]))
        continue
    print(json.dumps([repr(v), str(v), json.dumps(v), attempt(int, v), attempt(float, v), bool(v), type(v).__name__]))
`

func generated(r *rand.Rand) [][]byte {
	var docs [][]byte
	for range 1500 {
		docs = append(docs, Encode(randomValue(r, 3)))
	}
	for range 1500 {
		docs = append(docs, Encode(randomNumberText(r)))
	}
	for range 800 {
		doc := Encode(randomValue(r, 2))
		doc[r.IntN(len(doc))] = "{}[]\",:\\0x. "[r.IntN(12)]
		if invalidUTF8(doc) < 0 {
			docs = append(docs, doc)
		}
	}
	return docs
}

var floats = []float64{0, 1, -1, 1e16, 1e15, 123456789012345678, 1e-4, 1e-5, 9.999e-5, 5e-324, 1.7976931348623157e308, 0.1, 1e22, 1e21, math.Inf(1), math.NaN()}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(9); {
	case n == 0:
		return nil
	case n == 1:
		return r.IntN(2) == 0
	case n == 2:
		return r.Int64() >> r.IntN(63)
	case n == 3:
		return floats[r.IntN(len(floats))]
	case n == 4:
		return math.Float64frombits(r.Uint64())
	case n == 5 || depth == 0:
		return randomText(r)
	case n == 6:
		list := []any{}
		for range r.IntN(4) {
			list = append(list, randomValue(r, depth-1))
		}
		return list
	default:
		d := NewDict()
		for range r.IntN(4) {
			d.Set(randomText(r), randomValue(r, depth-1))
		}
		return d
	}
}

func randomText(r *rand.Rand) string {
	var b []byte
	for range r.IntN(8) {
		switch r.IntN(5) {
		case 0:
			b = append(b, `'"\ab0`[r.IntN(6)])
		case 1:
			b = append(b, byte(r.IntN(128)))
		case 2:
			b = appendRune(b, rune(r.IntN(0x300)))
		case 3:
			b = appendRune(b, rune(r.IntN(0x10000)))
		default:
			b = appendRune(b, rune(r.IntN(0x110000)))
		}
	}
	// Two halves written apart would be one character for JSON.
	v, err := Decode(Encode(string(b)))
	if err != nil {
		return "x"
	}
	return v.(string)
}

func randomNumberText(r *rand.Rand) string {
	const alphabet = "0123456789_+-.eE infaty\t\u00a0٣９ x"
	letters := []rune(alphabet)
	var b strings.Builder
	for range r.IntN(7) {
		b.WriteRune(letters[min(r.IntN(len(letters)), r.IntN(len(letters)))])
	}
	return b.String()
}

func attempt[T any](f func(any) (T, error), v any) any {
	out, err := f(v)
	if err != nil {
		e := err.(*Error)
		return e.Class + ": " + e.Message
	}
	return Repr(out)
}

// TestPython compares texts, conversions and JSON with the real interpreter.
func TestPython(t *testing.T) {
	harness.Integration(t)
	docs := generated(rand.New(rand.NewPCG(1, 2)))
	cmd := exec.CommandContext(t.Context(), harness.Python(t), "-c", python)
	cmd.Stdin = bytes.NewReader(append(bytes.Join(docs, []byte("\n")), '\n'))
	out, err := cmd.Output()
	must.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	must.SliceLen(t, len(docs), lines)
	for i, doc := range docs {
		var ours []any
		v, err := Decode(doc)
		if err != nil {
			ours = []any{err.(*Error).Class + ": " + err.Error()}
		} else {
			ours = []any{Repr(v), Str(v), Dumps(v), attempt(Int, v), attempt(Float, v), Truth(v), TypeName(v)}
		}
		theirs, err := Decode([]byte(lines[i]))
		must.NoError(t, err)
		test.Eq(t, Dumps(theirs), Dumps(ours), test.Sprintf("%q", doc))
	}
}

// TestPython_characters compares what is printable, white space and a digit for every character.
func TestPython_characters(t *testing.T) {
	harness.Integration(t)
	script := `
import unicodedata
for c in range(0x110000):
    s = chr(c)
    d = unicodedata.decimal(s, -1)
    if s.isprintable() or s.isspace() or d >= 0:
        print(c, int(s.isprintable()), int(s.isspace()), d)
`
	out, err := exec.CommandContext(t.Context(), harness.Python(t), "-c", script).Output()
	must.NoError(t, err)
	type kind struct {
		printable, space int
		digit            int
	}
	theirs := map[rune]kind{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var c rune
		var k kind
		_, err := fmt.Sscan(lines.Text(), &c, &k.printable, &k.space, &k.digit)
		must.NoError(t, err)
		theirs[c] = k
	}
	differ := 0
	for c := rune(0x80); c < 0x110000; c++ {
		k, ok := theirs[c]
		if !ok {
			k.digit = -1
		}
		digit := -1
		if d, ok := decimalDigit(c); ok {
			digit = int(d)
		}
		if isPrintable(c) != (k.printable == 1) || IsSpace(c) != (k.space == 1) || digit != k.digit {
			differ++
			t.Logf("%U differs: %+v", c, k)
		}
	}
	test.Zero(t, differ)
}
