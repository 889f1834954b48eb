package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestTopLevelString(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		`{"flow":"a"}`:              "a",
		` { "flow" : "a" , "x": 1}`: "a", //nolint:gocritic // the white space is the case
		`{"inputs":{"flow":"no","x":[1,{"flow":"no"}]},"flow":"a"}`: "a",
		`{"x":"flow\":\"no","y":"}]\\","flow":"a"}`:                 "a",
		`{"x":NaN,"y":-Infinity,"z":1e3,"flow":"a"}`:                "a",
		`{"\u0066low":"\u0061b"}`:                                   "ab",
		`{"x":[],"y":{},"flow":""}`:                                 "",
		`{"flow":1}`:                                                "",
		`{"flow":null}`:                                             "",
		`{"Flow":"a"}`:                                              "",
		`["flow","a"]`:                                              "",
		`"flow"`:                                                    "",
		``:                                                          "",
		`{`:                                                         "",
		`{"flow"`:                                                   "",
		`{"flow":`:                                                  "",
		`{"flow":"a`:                                                "",
		`{"x":}`:                                                    "",
		`{"x":[[[`:                                                  "",
		`{"x":"\`:                                                   "",
	}
	for document, want := range tests {
		test.Eq(t, want, topLevelString([]byte(document), "flow"), test.Sprint(document))
	}
}

func FuzzTopLevelString(f *testing.F) {
	f.Add(`{"inputs":{"flow":"no"},"flow":"a"}`)
	f.Add(`{"flow":"\u0061"}`)
	f.Add(`{"a":[{"b":"\\"},[]],"flow":"x"}`)
	f.Fuzz(func(t *testing.T, document string) {
		got := topLevelString([]byte(document), "flow")
		// Of a valid document that says it once, it is what a whole decoder says.
		var fields map[string]json.RawMessage
		if json.Unmarshal([]byte(document), &fields) != nil || strings.Count(document, "low") != 1 || strings.Contains(document, `\`) {
			return
		}
		var want string
		_ = json.Unmarshal(fields["flow"], &want)
		if strings.ContainsRune(want, '\uFFFD') {
			return // the decoder replaces bytes that are no UTF-8
		}
		must.Eq(t, want, got)
	})
}
