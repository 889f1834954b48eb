package worker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func mustFrame(t testing.TB, head map[string]any, parts ...part) []byte {
	t.Helper()
	b, err := appendFrame(nil, head, parts...)
	must.NoError(t, err)
	return b
}

func TestFrame_RoundTrip(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("x"), 3<<20)
	b := mustFrame(t, map[string]any{"id": 7}, part{"value", []byte("NaN")}, part{"none", nil}, part{"big", big})
	b = append(b, mustFrame(t, map[string]any{"id": 8})...)
	r := bytes.NewReader(b)

	f, err := readFrame(r, 1<<24)
	must.NoError(t, err)
	var head reply
	must.NoError(t, json.Unmarshal(f.head, &head))
	must.Eq(t, 7, head.ID)
	parts, err := f.split(head.Parts)
	must.NoError(t, err)
	must.Eq(t, "NaN", string(parts["value"]))
	must.Eq(t, "", string(parts["none"]))
	must.True(t, bytes.Equal(big, parts["big"]))

	f, err = readFrame(r, 1<<24)
	must.NoError(t, err)
	must.Eq(t, `{"id":8,"parts":[]}`, string(f.head))
	_, err = readFrame(r, 1<<24)
	must.ErrorIs(t, err, io.EOF)
}

func TestFrame_Refuses(t *testing.T) {
	t.Parallel()
	header := func(size, head uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, size), head)
	}
	cases := map[string]struct {
		data  []byte
		wrong string
	}{
		"a length below its own header": {header(3, 0), "head of 0"},
		"a head longer than the frame":  {header(6, 3), "head of 3 in 2"},
		"more than the limit":           {header(4+101, 1), "at most 100"},
		"a cut header":                  {header(4, 0)[:5], "cut in its header"},
		"a cut body":                    {append(header(14, 2), "{}x"...), "cut in its body"},
		"a cut body of a claimed giant": {header(4+90, 2), "cut in its body"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := readFrame(bytes.NewReader(c.data), 100)
			must.ErrorIs(t, err, errFrame)
			must.StrContains(t, err.Error(), c.wrong)
		})
	}
}

func TestFrame_SplitMustCoverExactly(t *testing.T) {
	t.Parallel()
	f := frame{parts: []byte("12345")}
	for _, lengths := range [][]partLength{{{"a", 6}}, {{"a", 2}}, {{"a", 3}, {"b", 3}}, {}} {
		_, err := f.split(lengths)
		test.ErrorIs(t, err, errFrame)
	}
}

func TestPartLength_RefusesNegative(t *testing.T) {
	t.Parallel()
	var p partLength
	must.ErrorIs(t, json.Unmarshal([]byte(`["a",-1]`), &p), errFrame)
	must.Error(t, json.Unmarshal([]byte(`{"a":1}`), &p))
}

func FuzzReadFrame(f *testing.F) {
	whole, err := appendFrame(nil, map[string]any{"id": 1}, part{"value", []byte("[1]")})
	must.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(strings.Repeat("\xff", 16)))
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			fr, err := readFrame(r, 1<<16)
			if err != nil {
				if !errors.Is(err, errFrame) && !errors.Is(err, io.EOF) {
					t.Fatalf("unexpected error %v", err)
				}
				return
			}
			var head reply
			if json.Unmarshal(fr.head, &head) != nil {
				continue
			}
			if head.parts, err = fr.split(head.Parts); err == nil {
				_, _ = head.value()
			}
		}
	})
}
