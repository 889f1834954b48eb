package document

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// corpus holds documents whose values the integration test compares with ruamel.yaml's.
var corpus = map[string]string{
	"colons":       "# c:d {e:f}\n\n- a: {x:y: 1, k: [12:30, a:b:c], url: https://h:1/x?y=z, \"q\":1, r:s, t: {u:v: w:x}}\r\n  b: [c:d, {e:f: g}, \"h\"]\n- c: d:e\n  í: {ö:ü: ä:ß}\n",
	"numbers.yaml": "a: 010\nb: 0o10\nc: 0x1F\nd: 1_000\ne: 1e3\nf: 1.\ng: .5\nh: +12\ni: 1_0.5\nj: 08\nk: 0o8\nl: .5e3\nm: -0\nn: 0b101\no: _1\np: 1__0\nq: -.inf\nr: .nan\ns: 123456789012345678901234567890\nt: 1e400\nu: 1:30\nv: 0.1e-7\nw: -1\n",
	"bools.yaml":   "a: yes\nb: No\nc: on\nd: True\ne: FALSE\nf: y\ng: null\nh: ~\ni:\nj: Null\nk: NULL\nl: nULL\nm: tRUE\n",
	"strings.yaml": "a: \"q\\n\\u00e9\\t\"\nb: 'it''s'\nc: |\n  one\n   two\n\n  three\nd: >-\n  folded\n  text\n\n  para\ne: plain # comment\nf: a#b\ng: \"1\"\nh: '~'\ni: |+\n  keep\n\n",
	"plain.yaml":   "a: ${inputs.text}\nb: http://host:80/x\nc: multi\n  line plain\n  text\nd: '日本語 😀'\ne: a, b\nf: \"{{ x }}\"\ng: 5 apples\nh: a-b-c\n",
	"flow.yaml":    "a: {x: 1, y: [1, 2.5, 'z', {q: null}], w: }\nb: []\nc: {}\nd: [\n  a,\n  b\n]\ne: {\"k\": v, \"l\":w, m: http://x:80/y}\n",
	"blocks.yaml":  "list:\n- a\n- b: 1\n  c: 2\n-\n  - nested\n  - x\nnone:\n- \n- 1\nmap:\n  k:\n    - v\n",
	"anchors.yaml": "base: &b {x: 1, y: 2}\nuse: *b\nmerged:\n  <<: *b\n  y: 3\n",
	"empty.yaml":   "# only a comment\n",
	"start.yaml":   "---\na: 1\n...\n",
}

func TestParse_values(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"numbers.yaml": `{"a":10,"b":8,"c":31,"d":1000,"e":1000.0,"f":1.0,"g":0.5,"h":12,"i":10.5,"j":8,"k":"0o8","l":".5e3","m":0,"n":5,"o":"_1","p":10,"q":-Infinity,"r":NaN,"s":123456789012345678901234567890,"t":Infinity,"u":"1:30","v":1e-08,"w":-1}`,
		"bools.yaml":   `{"a":"yes","b":"No","c":"on","d":true,"e":false,"f":"y","g":null,"h":null,"i":null,"j":null,"k":null,"l":"nULL","m":"tRUE"}`,
		"blocks.yaml":  `{"list":["a",{"b":1,"c":2},["nested","x"]],"none":[null,1],"map":{"k":["v"]}}`,
		"anchors.yaml": `{"base":{"x":1,"y":2},"use":{"x":1,"y":2},"merged":{"y":3,"x":1}}`,
		"empty.yaml":   `null`,
		"start.yaml":   `{"a":1}`,
	}
	for name, want := range cases {
		node, err := Parse([]byte(corpus[name]))
		must.NoError(t, err)
		v, err := node.Value()
		must.NoError(t, err)
		test.Eq(t, want, string(value.Encode(v)), test.Sprint(name))
	}
}

func TestParse_keepsPlaces(t *testing.T) {
	t.Parallel()
	node, err := Parse([]byte("nodes:\n- name: a\n  inputs:\n    x: 1\n- name: b\n"))
	must.NoError(t, err)
	nodes := node.Get("nodes")
	test.Eq(t, 1, nodes.Line)
	second := nodes.Value.Items[1]
	test.Eq(t, []int{5, 3}, []int{second.Line, second.Column})
	x := nodes.Value.Items[0].Get("inputs").Value.Get("x")
	test.Eq(t, []int{4, 5}, []int{x.Line, x.Column})
	test.Nil(t, node.Get("missing"))
	test.True(t, node.Get("missing") == nil && (*Node)(nil).IsNull())
}

func TestParse_refuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, text, want string
		line             int
	}{
		{"duplicate key", "a: 1\nb: 2\na: 3\n", `duplicate key "a"`, 3},
		{"nested duplicate key", "x:\n  a: 1\n  a: 2\n", `duplicate key "a"`, 3},
		{"two documents", "a: 1\n---\nb: 2\n", "single document", 3},
		{"undefined alias", "a: *x\n", "undefined alias", 1},
		{"unclosed bracket", "a: [1\n", "", 1},
		{"tab", "a:\n\tb: 1\n", "", 2},
		{"not UTF-8", "a: 1\nb: \xff\n", "not UTF-8", 2},
		{"deep brackets", strings.Repeat("[", 100_000), "nested deeper", 1},
		{"deep dashes", strings.Repeat("- ", 100_000) + "x", "nested deeper", 1},
		{"many laughs", laughs(), "more than", 0},
		{"large", strings.Repeat("#", MaxBytes+1), "bytes", 1},
	}
	for _, tc := range cases {
		_, err := Parse([]byte(tc.text))
		var e *Error
		must.True(t, errors.As(err, &e), must.Sprintf("%s: %v", tc.name, err))
		test.StrContains(t, e.Message, tc.want, test.Sprint(tc.name))
		if tc.line > 0 {
			test.Eq(t, tc.line, e.Line, test.Sprint(tc.name))
		}
	}
}

func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		p := string(rune('0' + i - 1))
		b.WriteString("a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.TrimSuffix(strings.Repeat("*a"+p+",", 10), ",") + "]\n")
	}
	return b.String()
}

func TestValue_refusesWhatHasNoPlainValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: {1: x}":              "line 1, column 5: the key 1 is of type int",
		"a: 2024-01-02":          "line 1, column 4: the unquoted date 2024-01-02",
		"a: 2024-01-02 10:00:00": "the unquoted date",
		"a: !mine 3":             "the tag !mine",
	} {
		node, err := Parse([]byte(text))
		must.NoError(t, err)
		_, err = node.Value()
		test.ErrorContains(t, err, want)
	}
	node, err := Parse([]byte("a: !!str 12\nb: !!int 3\n"))
	must.NoError(t, err)
	v, err := node.Value()
	must.NoError(t, err)
	test.Eq(t, `{"a":"12","b":3}`, string(value.Encode(v)))
}

func FuzzParse(f *testing.F) {
	for _, text := range corpus {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		node, err := Parse(text)
		if err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		if v, err := node.Value(); err == nil {
			_ = value.Repr(v)
		}
	})
}

func TestDatesAsText(t *testing.T) {
	t.Parallel()
	root, err := Parse([]byte("a: 2024-06-01\nb: [{c: 2024-06-02}]\nd: 2024-06-01 10:00:00\n"))
	must.NoError(t, err)
	root.DatesAsText()
	for key, want := range map[string]string{"a": `"2024-06-01"`, "b": `[{"c":"2024-06-02"}]`} {
		v, err := root.Get(key).Value.Value()
		must.NoError(t, err)
		test.Eq(t, want, string(value.Encode(v)))
	}
	_, err = root.Get("d").Value.Value()
	test.ErrorContains(t, err, "the unquoted date")
}
