package value

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// pictures are beginnings of files of many kinds, right ones and broken ones.
var pictures = []string{
	"", "x", "\xFF\xD8\xFF", "\xFF\xD8", "\x89PNG", "\x89PNG\r\n\x1A\n", "GIF89a", "RIFF0000WEBPVP8 ", "RIFF0000WEBP",
	"\x89PNG\r\n\x1A\n\x00\x00\x00\x01acTLxcrcc", "\x89PNG\r\n\x1A\n\x00\x00\x00\x01tEXtxcrcc\x00\x00\x00\x00acTL", "\x89PNG\r\n\x1A\n\x00\x00\x00\x00IDAT",
	"\x89PNG\r\n\x1A\n\xFF\xFF\xFF\xFFtEXt", "II*\x00\x08\x00\x00\x00CR", "II*\x00\x08\x00\x00\x00xx", "MM\x00*\x00\x00\x00\x08xx", "MM\x00*", "BM", "II\xBC", "8BPS",
	"\x00\x00\x01\x00", "AC10", "gimp xcf v", "\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
	"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif", "\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1miaf", "\x00\x00\x00\xFFftypavif\x00\x00\x00\x00mif1miaf",
	"\x00\x00\x00\x0C1234567890abftypjp2 12345678901234567890123456", "\x00\x00\x00\x0C1234567890abftypjp2 1234567890123456789012345678901",
	"%PDF-1.7", "PK\x03\x04", "ID3", "hello, no picture", "\x00\x00\x00\x0CjP  \r\n\x87\n",
}

// TestNewImage_isPromptFlowsImage compares names and types with prompt flow's own class.
func TestNewImage_isPromptFlowsImage(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	document := []any{}
	for _, p := range pictures {
		document = append(document, (&Image{Data: []byte(p)}).Base64())
	}
	cmd := exec.CommandContext(t.Context(), harness.Python(t), "-c", `
import base64, json, sys
from promptflow.contracts.multimedia import Image
for text in json.load(sys.stdin):
    image = Image(base64.b64decode(text))
    print(json.dumps([str(image), repr(image), image._mime_type, image.to_base64(with_type=True)]))
`)
	cmd.Stdin = bytes.NewReader(Encode(document))
	out, err := cmd.Output()
	must.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	must.SliceLen(t, len(pictures), lines)
	for i, line := range lines {
		want, err := Decode(line)
		must.NoError(t, err)
		image := NewImage([]byte(pictures[i]), "", "")
		test.Eq(t, want, any([]any{Str(image), Repr(image), image.MIME, image.DataURL()}), test.Sprintf("%q", pictures[i]))
	}
}

func TestMedia_behaveAsInPython(t *testing.T) {
	t.Parallel()
	a, b := NewImage([]byte("GIF89a"), "", ""), NewImage([]byte("GIF89a"), "Image/PNG", "http://x/y")
	test.Eq(t, "image/gif", a.MIME)
	test.Eq(t, "image/png", b.MIME)
	test.True(t, Equal(a, b))
	test.False(t, Equal(a, "GIF89a"))
	test.True(t, Equal(&Text{Value: "x"}, "x"))
	test.True(t, Equal("x", &Text{Value: "x", Annotations: []any{}}))
	test.False(t, Equal("x", &Text{Value: "y"}))
	test.False(t, Truth(NewImage(nil, "", "")))
	test.True(t, Truth(a))
	test.False(t, Truth(&Text{}))
	test.Eq(t, "['t', "+a.String()+"]", Str([]any{&Text{Value: "t"}, a}))
	test.Eq(t, `[{"type":"text","text":"t"},"`+a.String()+`",{"type":"text","text":{"value":"u","annotations":[]}}]`,
		string(Encode([]any{&Text{Value: "t"}, a, &Text{Value: "u", Annotations: []any{}}})))
	test.Eq(t, "gif", a.Extension())
	test.Eq(t, "", NewImage([]byte("?"), "", "").Extension())
	test.Eq(t, "x", NewImage(nil, "image/../../x", "").Extension())
	test.Eq(t, []any{"Image", "Text"}, []any{TypeName(a), TypeName(&Text{})})
}

func TestMap_copiesOnlyWhatChanges(t *testing.T) {
	t.Parallel()
	image := NewImage([]byte("GIF"), "", "")
	inner := []any{int64(1), image}
	other := []any{"same"}
	dict := NewDict()
	dict.Set("a", other)
	dict.Set("b", inner)
	mapped := Map(dict, func(v any) any {
		if i, ok := v.(*Image); ok {
			return i.MIME
		}
		return v
	}).(*Dict)
	test.Eq(t, `{"a":["same"],"b":[1,"image/gif"]}`, string(Encode(mapped)))
	test.Eq(t, any(image), inner[1])
	kept, _ := mapped.Get("a")
	test.True(t, same(kept, any(other)))
	test.True(t, HasMedia(dict))
	test.False(t, HasMedia(mapped))
	unchanged := Map(mapped, func(v any) any { return v })
	test.True(t, unchanged == any(mapped))
}
