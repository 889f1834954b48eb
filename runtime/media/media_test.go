package media

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// gif is the smallest picture that there is.
var gif, _ = base64.StdEncoding.DecodeString("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

var encoded = base64.StdEncoding.EncodeToString(gif)

func decode(t *testing.T, text string) any {
	t.Helper()
	v, err := value.Decode([]byte(text))
	must.NoError(t, err, must.Sprint(text))
	return v
}

// cases are values of inputs, right ones and wrong ones, as JSON.
func cases(dir string) []string {
	texts := []string{
		encoded, "data:image/png;base64," + encoded, "data:image/svg+xml;base64", "data:image/png;base64,QUJD,QUJD", "data:text/plain;base64,QUJD", "QQ==", "QQ", "QUI=", "QUJDRA",
		"QUJD\n", "QUJDR", "QUJDRE=", "QUJDREVGRw===", "====", "", "=", "Q", "x.gif", "./sub//y.gif", "sub", "sub/../x.gif", "gone.png", "x.gif/y", "a b", "\x00",
		filepath.Join(dir, "x.gif"), "file:///x", "://x", "http:", "http://", "1http://x/", "a,b", "日本",
		"http://127.0.0.1:1/x.png", "http://localhost/x.png", "https://10.1.2.3/", "http://[::1]/", "http://169.254.169.254/latest", "http://168.63.129.16/", "ftp://127.0.0.1/x",
	}
	var all []string
	for _, text := range texts {
		quoted := string(value.Encode(text))
		all = append(all, quoted)
		for _, kind := range []string{"base64", "path", "url"} {
			all = append(all, `{"data:image/png;`+kind+`":`+quoted+`}`)
		}
		all = append(all, `{"type":"image_url","image_url":{"url":`+quoted+`}}`, `{"type":"image_file","image_file":{"path":`+quoted+`}}`)
	}
	return append(all,
		`5`, `null`, `true`, `[]`, `{}`, `1.5`, `{"data:image/png;path":5}`, `{"data:image/png;base64":null}`, `{"data:image/;base64":"QUJD"}`, `{"data:image/*;base64":"QUJD"}`,
		`{"data:image/PNG;base64":"QUJD"}`, `{"data:image/a/b;base64":"QUJD"}`, `{"data:image/png;file":"x"}`, `{"data:image/png;base64":"QUJD","y":1}`, `{"data:image/png;base64\n":"QUJD"}`,
		`{"type":"image_url"}`, `{"type":"image_url","image_url":"x.gif"}`, `{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD","detail":"low"}}`, `{"type":"image_url","image_url":{}}`,
		`{"type":"image_file","image_file":{"path":5}}`, `{"type":"other","other":{"url":"x"}}`, `{"type":"image_url","image_url":{"url":"QUJD"},"more":1}`,
		`{"type":"text","text":"hello"}`, `{"type":"text","text":{"value":"v"}}`, `{"type":"text","text":{"value":"v","annotations":["a"]}}`, `{"type":"text","text":{"value":5}}`,
		`{"type":"text","text":"hello","x":1}`, `{"type":"text"}`,
		`[{"data:image/gif;path":"x.gif"},"text",{"deep":[{"data:image/gif;base64":"`+encoded+`"}]}]`,
		`{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"`+encoded+`"}},{"type":"image_file","image_file":{"path":"x.gif"}}]}`,
		`["`+encoded+`","x.gif"]`, `[[{"data:image/gif;path":"gone.gif"}]]`,
	)
}

func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "x.gif"), gif, 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "y.gif"), gif[:20], 0o600))
	return dir
}

// TestLoader_isPromptFlows loads every case in both formats and as every type with prompt flow's code and with ours.
func TestLoader_isPromptFlows(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	dir := folder(t)
	var document []any
	for _, c := range cases(dir) {
		for _, format := range []Format{Basic, OpenAIVision} {
			for _, kind := range []string{"image", "list", "object"} {
				document = append(document, []any{string(format), kind, decode(t, c)})
			}
		}
	}
	oracle, err := filepath.Abs("testdata/oracle.py")
	must.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), harness.Python(t), oracle)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(value.Encode(document))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	v, err := value.Decode(out)
	must.NoError(t, err)
	loaded, failed := 0, 0
	for i, want := range v.([]any) {
		c := document[i].([]any)
		if message, _ := want.(*value.Dict).Get("message"); strings.Contains(value.Str(message), "(MissingSchema)") {
			continue // the word of Python's HTTP client for an empty URL, which is an InvalidImageInput here
		}
		ours := ourLoad(t, dir, c)
		if must.NotNil(t, ours); ours.Has("error") {
			failed++
		} else {
			loaded++
		}
		test.Eq(t, string(value.Encode(want)), string(value.Encode(ours)), test.Sprintf("%s", value.Encode(c)))
	}
	test.Greater(t, 100, loaded)
	test.Greater(t, 100, failed)
}

func ourLoad(t *testing.T, dir string, c []any) *value.Dict {
	format, err := ParseFormat(c[0].(string))
	must.NoError(t, err)
	l := &Loader{Format: format, Files: Anywhere(dir), Fetcher: NewFetcher(PrivateAddresses)}
	in := &flow.Input{Name: "x", Type: c[1].(string)}
	v, err := l.Input(t.Context(), in, c[2])
	out := value.NewDict()
	if err != nil {
		e := api.AsError(err)
		out.Set("error", e.Class())
		out.Set("message", e.Message)
		return out
	}
	out.Set("value", show(v))
	out.Set("base64", format.Base64(v))
	out.Set("string", value.Map(v, func(v any) any {
		if t, ok := v.(*value.Text); ok {
			return t.Value
		}
		return v
	}))
	return out
}

func show(v any) any {
	return value.Map(v, func(v any) any {
		d := value.NewDict()
		switch v := v.(type) {
		case *value.Image:
			d.Set("image", v.String())
			d.Set("mime", v.MIME)
			d.Set("url", nil)
		case *value.Text:
			d.Set("text", v.Value)
			d.Set("annotations", v.Annotations)
		default:
			return v
		}
		return d
	})
}

func TestBelow_refusesWhatIsOutside(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	secret := filepath.Join(t.TempDir(), "secret")
	must.NoError(t, os.WriteFile(secret, gif, 0o600))
	must.NoError(t, os.Symlink(secret, filepath.Join(dir, "link.gif")))
	must.NoError(t, os.Symlink("x.gif", filepath.Join(dir, "inside.gif")))
	read := Below(dir)
	for _, path := range []string{"x.gif", "inside.gif", "sub/../x.gif", filepath.Join(dir, "x.gif"), filepath.Join(dir, "sub/../x.gif")} {
		data, err := read(path)
		must.NoError(t, err, must.Sprint(path))
		test.Eq(t, gif, data)
	}
	for _, path := range []string{secret, "link.gif", "../" + filepath.Base(dir) + "/../secret", "/etc/passwd", "..", "sub/../../x"} {
		_, err := read(path)
		test.Eq(t, "InvalidImageInput", api.AsError(err).Class(), test.Sprint(path))
		test.ErrorContains(t, err, "not in the flow's folder", test.Sprint(path))
	}
}

func TestFetcher_fetchesAndChecksRedirects(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/x.gif", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(gif) })
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such picture", http.StatusNotFound) })
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x.gif", http.StatusFound) })
	mux.HandleFunc("/inside", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.9.9.9:"+strings.Split(r.Host, ":")[1]+"/x.gif", http.StatusFound)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	// Everything private is denied but the server's own address.
	f := NewFetcher(prefixes("127.9.0.0/16", "10.0.0.0/8"))
	l := &Loader{Format: Basic, Files: Below(t.TempDir()), Fetcher: f}
	for _, path := range []string{"/x.gif", "/here"} {
		image, err := l.Image(t.Context(), server.URL+path)
		must.NoError(t, err)
		test.Eq(t, gif, image.Data)
		test.Eq(t, "image/gif", image.MIME)
		test.Eq(t, server.URL+path, image.URL)
	}
	for path, says := range map[string]string{
		"/gone":    "Failed to fetch image from URL: " + server.URL + "/gone. Error code: 404. Error message: no such picture\n.",
		"/inside":  "Failed to fetch image from URL: " + server.URL + "/inside.",
		"/file":    "Failed to fetch image from URL: " + server.URL + "/file.",
		"/loop":    "Failed to fetch image from URL: " + server.URL + "/loop.",
		"/endless": "has more than 64 MiB",
	} {
		_, err := l.Image(t.Context(), server.URL+path)
		test.Eq(t, "InvalidImageInput", api.AsError(err).Class(), test.Sprint(path))
		test.ErrorContains(t, err, says)
	}
	l.Fetcher = NewFetcher(PrivateAddresses)
	for _, address := range []string{server.URL + "/x.gif", "http://[::ffff:127.0.0.1]/", "http://[::]/", "http://[64:ff9b::7f00:1]/", "http://0x7f.1/", "http://2130706433/"} {
		_, err := l.Image(t.Context(), address)
		test.EqError(t, err, "Failed to fetch image from URL: "+address+".")
	}
	l.Fetcher = nil
	_, err := l.Image(t.Context(), server.URL+"/x.gif")
	test.ErrorContains(t, err, "are not fetched from URLs by this runtime")
}

func TestFormats_writeWhatTheyRead(t *testing.T) {
	t.Parallel()
	for _, format := range []Format{Basic, OpenAIVision} {
		image, fetched := value.NewImage(gif, "", ""), value.NewImage(gif, "", "https://pictures.example/x.gif")
		l := &Loader{Format: format}
		v := []any{image, fetched, &value.Text{Value: "t", Annotations: []any{"a"}}, &value.Text{Value: "u"}, int64(1)}
		portable := format.Portable(v)
		test.StrContains(t, string(value.Encode(portable)), "https://pictures.example/x.gif")
		back, err := l.Value(t.Context(), portable.([]any)[:1])
		must.NoError(t, err)
		test.True(t, value.Equal([]any{image}, back))

		dir := filepath.Join(t.TempDir(), "output")
		save := func(i *value.Image) (string, error) { return Save(i, dir) }
		files, err := format.Files(v, save)
		must.NoError(t, err)
		extracted, err := Extract(portable, save)
		must.NoError(t, err)
		for _, list := range []any{files, extracted} {
			l.Files = Below(dir)
			back, err = l.Value(t.Context(), list.([]any)[:1])
			must.NoError(t, err, must.Sprint(string(value.Encode(list))))
			test.True(t, value.Equal([]any{image}, back))
			inlined, err := Inline(list, l.Files)
			must.NoError(t, err)
			test.Eq(t, string(value.Encode(portable)), string(value.Encode(inlined)))
		}
		entries, err := os.ReadDir(dir)
		must.NoError(t, err)
		must.SliceLen(t, 2, entries)
		test.StrHasSuffix(t, ".gif", entries[0].Name())
		test.Eq(t, len("00000000-0000-0000-0000-000000000000.gif"), len(entries[0].Name()))
		test.True(t, format.spelled(portable))
		test.False(t, format.spelled([]any{"x", int64(1), nil}))
	}
}

func TestParseFormat(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Format{"": Basic, "Basic": Basic, "openai-VISION": OpenAIVision} {
		f, err := ParseFormat(text)
		must.NoError(t, err)
		test.Eq(t, want, f)
	}
	_, err := ParseFormat("json")
	test.EqError(t, err, "Invalid message format 'json'. Supported message formats are ['basic', 'openai-vision'].")
	test.Eq(t, []string{"UserError", "InvalidMessageFormatType"}, api.AsError(err).Chain())
}

func TestWellFormed(t *testing.T) {
	t.Parallel()
	// Hundreds of megabytes of text must not take long to be told from base64.
	text := strings.Repeat("QUJD", 8<<20)
	test.True(t, isBase64(text))
	test.False(t, isBase64(text+"!"))
	_, err := fromBase64(text[:5], "")
	test.EqError(t, err, "Invalid base64-encoded string: number of data characters (5) cannot be 1 more than a multiple of 4")
	test.Eq(t, fmt.Sprint([]byte("ABCABCD")), fmt.Sprint(first(decodeBase64("QUJD QUJDRA=="))))
}

func first[T any](v T, _ error) T { return v }
