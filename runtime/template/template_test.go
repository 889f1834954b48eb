package template

import (
	"context"
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func dict(pairs ...any) *value.Dict {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return d
}

func TestParse_TakesTextAndPlainSubstitutions(t *testing.T) {
	t.Parallel()
	cases := []struct {
		source string
		want   string
	}{
		{"", ""},
		{"plain\n", "plain\n"},
		{"a {{ s }} b", "a text b"},
		{"{{s}}{{i}}", "text7"},
		{"{{\n\ts\n}}", "text"},
		{"{{ gone }}|", "|"},
		{"{ {s} }}", "{ {s} }}"},
		{"}} %} #}", "}} %} #}"},
		{"a\r\nb\rc", "a\nb\nc"},
		{"{{ b }} {{ f }} {{ n }}", "True 1.0 None"},
		{"{{ list }} {{ map }}", "[1, 'a'] {'k': None}"},
		{"日本 {{ u }}", "日本 ü"},
		{"tail {", "tail {"},
	}
	vars := dict("s", "text", "i", int64(7), "b", true, "f", 1.0, "n", nil, "u", "ü",
		"list", []any{int64(1), "a"}, "map", dict("k", nil))
	for _, c := range cases {
		tpl, ok := Parse(c.source)
		must.True(t, ok, must.Sprintf("%q", c.source))
		got, ok := tpl.Render(vars, Options{})
		must.True(t, ok)
		must.Eq(t, c.want, got, must.Sprintf("%q", c.source))
	}
}

func TestParse_LeavesTheRestToJinja2(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		"{% if a %}b{% endif %}", "{# c #}", "{{ a.b }}", "{{ a['b'] }}", "{{ a|upper }}", "{{ a + 1 }}", "{{- a }}", "{{ a -}}", "{{+ a }}",
		"{{ 'a' }}", "{{ 1 }}", "{{ }}", "{{ a", "{{ a }", "{{{ a }}}", "{{ {} }}", "{{ True }}", "{{ none }}", "{{ self }}", "{{ self }}",
		"{{ range }}", "{{ not a }}", "{{ é }}", "{{ a b }}", "{{ a() }}", "{{ 1a }}", "{%- raw %}", "{{\va}}",
	} {
		_, ok := Parse(source)
		must.False(t, ok, must.Sprintf("%q", source))
	}
}

func TestRender_RefusesValuesWhoseTextIsNotCertain(t *testing.T) {
	t.Parallel()
	huge := new(big.Int).Lsh(big.NewInt(1), 20000)
	deep := any([]any{})
	for range 200 {
		deep = []any{deep}
	}
	for _, v := range []any{huge, deep, &value.Ref{Repr: "<x>"}, []any{&value.Ref{}}, []any{"é"}, dict("é", 1)} {
		tpl, ok := Parse("{{ v }}")
		must.True(t, ok)
		_, ok = tpl.Render(dict("v", v), Options{})
		must.False(t, ok)
	}
	tpl, _ := Parse("{{ v }}")
	got, ok := tpl.Render(dict("v", math.Inf(-1)), Options{})
	must.True(t, ok)
	must.Eq(t, "-inf", got)
}

// recorder is a Renderer that says what it was asked.
type recorder struct{ asked string }

func (r *recorder) Render(context.Context, string, *value.Dict) (string, error) {
	r.asked = "render"
	return "from jinja", nil
}

func (r *recorder) Variables(context.Context, string) ([]string, error) {
	r.asked = "variables"
	return []string{"x"}, nil
}

type listRecorder struct{ recorder }

func (r *listRecorder) RenderChatLists(context.Context, string, *value.Dict) (string, error) {
	r.asked = "lists"
	return "from jinja", nil
}

func TestSource_AsksJinja2OnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	plain, block := New("{{ a }}"), New("{% for x in a %}{{ x }}{% endfor %}")
	list := dict("a", []any{"x", "y"})

	r := &recorder{}
	got, err := plain.Render(t.Context(), r, dict("a", "z"), Options{})
	must.NoError(t, err)
	must.Eq(t, "z", got)
	must.Eq(t, "", r.asked)

	got, err = plain.Render(t.Context(), r, list, Options{ChatLists: true})
	must.NoError(t, err)
	must.Eq(t, "x\ny", got)
	must.Eq(t, "", r.asked)

	_, err = block.Render(t.Context(), r, dict("a", "xy"), Options{ChatLists: true})
	must.NoError(t, err)
	must.Eq(t, "render", r.asked)

	_, err = block.Render(t.Context(), r, list, Options{ChatLists: true})
	must.True(t, errors.Is(err, ErrListsUnsupported))

	lists := &listRecorder{}
	_, err = block.Render(t.Context(), lists, list, Options{ChatLists: true})
	must.NoError(t, err)
	must.Eq(t, "lists", lists.asked)

	names, err := plain.Variables(t.Context(), r)
	must.NoError(t, err)
	must.Eq(t, []string{"a"}, names)
	names, err = block.Variables(t.Context(), r)
	must.NoError(t, err)
	must.Eq(t, []string{"x"}, names)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "{{ a }}", "{{a}} {% b %}", "{{{ a }}}", "{{ a\n}}\r\n", "x {", "{{ a -}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tpl, ok := Parse(source)
		if !ok {
			return
		}
		got, ok := tpl.Render(value.NewDict(), Options{})
		must.True(t, ok)
		again := ""
		for _, p := range tpl.parts {
			must.True(t, (p.text == "") != (p.name == ""))
			must.False(t, special[p.name])
			again += p.text
		}
		must.Eq(t, again, got) // without values only the text is left
	})
}
