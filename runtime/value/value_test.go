package value

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func decode(t *testing.T, text string) any {
	t.Helper()
	v, err := Decode([]byte(text))
	must.NoError(t, err)
	return v
}

func TestDecode_keepsOrderAndKindsOfNumbers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"b":1,"a":[1.0,2,-0.0,1e+300,1e-07],"":{"z":null,"y":[true,false]}}`,
		`123456789012345678901234567890`,
		`-9223372036854775808`,
		`9223372036854775808`,
		`[NaN,Infinity,-Infinity]`,
		`"Hello 日本語 \"q\" \\ \n \u0001"`,
		`"\ud800 lone"`,
		`[]`, `{}`, `null`, `""`,
	} {
		test.Eq(t, text, string(Encode(decode(t, text))))
	}
	test.Eq[any](t, int64(1), decode(t, "1"))
	test.Eq[any](t, 1.0, decode(t, "1.0"))
	test.Eq[any](t, math.Inf(1), decode(t, "1e999"))
	test.Eq[any](t, "😀", decode(t, `"\ud83d\ude00"`))
	test.Eq(t, `{"a":2,"b":1}`, string(Encode(decode(t, `{"a":1,"b":1,"a":2}`))))
}

func TestDecode_refusesWhatPythonRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"":          "Expecting value: line 1 column 1 (char 0)",
		"['hello']": "Expecting value: line 1 column 2 (char 1)",
		`{"a":1,}`:  "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)",
		`{"a" 1}`:   "Expecting ':' delimiter: line 1 column 6 (char 5)",
		"[1\n 2]":   "Expecting ',' delimiter: line 2 column 2 (char 4)",
		`"日本`:       "Unterminated string starting at: line 1 column 1 (char 0)",
		`"日本" x`:    "Extra data: line 1 column 6 (char 5)",
		"\"a\tb\"":  "Invalid control character at: line 1 column 3 (char 2)",
		`"\q"`:      `Invalid \escape: line 1 column 2 (char 1)`,
		`"\u12"`:    `Invalid \uXXXX escape: line 1 column 3 (char 2)`,
		"01":        "Extra data: line 1 column 2 (char 1)",
		"-":         "Expecting value: line 1 column 1 (char 0)",
		"1.":        "Extra data: line 1 column 2 (char 1)",
		"\"\xff\"":  "'utf-8' codec can't decode byte 0xff in position 1",
	}
	for text, want := range cases {
		_, err := Decode([]byte(text))
		test.EqError(t, err, want)
	}
}

func TestDecode_boundsDepthAndDigits(t *testing.T) {
	t.Parallel()
	_, err := Decode([]byte(strings.Repeat("[", 100000)))
	test.ErrorContains(t, err, "recursion depth")
	_, err = Decode([]byte(strings.Repeat("9", 4301)))
	test.ErrorContains(t, err, "Exceeds the limit (4300 digits)")
}

func TestDumps_isPythonsDefault(t *testing.T) {
	t.Parallel()
	test.Eq(t, `{"a": 1, "b": "\u00e9\ud83d\ude00", "c": [NaN, 1.5]}`, Dumps(decode(t, `{"a":1,"b":"é😀","c":[NaN,1.5]}`)))
	test.Eq(t, "[]", Dumps([]any{}))
	test.Eq(t, `"\u007f"`, Dumps("\x7f"))
}

func TestRepr(t *testing.T) {
	t.Parallel()
	cases := []struct {
		v    any
		want string
	}{
		{nil, "None"}, {true, "True"}, {false, "False"}, {int64(-5), "-5"},
		{new(big.Int).Lsh(big.NewInt(1), 70), "1180591620717411303424"},
		{1.0, "1.0"}, {1e16, "1e+16"}, {123456789012345680.0, "1.2345678901234568e+17"}, {1e-5, "1e-05"}, {0.0001, "0.0001"},
		{0.0, "0.0"}, {math.Copysign(0, -1), "-0.0"}, {math.Inf(-1), "-inf"}, {math.NaN(), "nan"}, {1e22, "1e+22"}, {5e-324, "5e-324"},
		{"it's", `"it's"`}, {`it's "x"`, `'it\'s "x"'`}, {"a\nb\t\\", `'a\nb\t\\'`}, {"\x00\x7f\u00a0\u200b", `'\x00\x7f\xa0\u200b'`},
		{"日本\U0001F600\U000E0001", "'日本😀\\U000e0001'"}, {"\xed\xa0\x80", `'\ud800'`},
		{[]any{"a", int64(1), nil}, "['a', 1, None]"},
	}
	for _, tc := range cases {
		test.Eq(t, tc.want, Repr(tc.v))
	}
	test.Eq(t, "{'a': {'b': [True, 'x']}}", Str(decode(t, `{"a":{"b":[true,"x"]}}`)))
	test.Eq(t, "plain", Str("plain"))
}

func TestEqual_isPythons(t *testing.T) {
	t.Parallel()
	huge, _ := new(big.Int).SetString("100000000000000000000", 10)
	cases := []struct {
		a, b any
		want bool
	}{
		{true, int64(1), true}, {true, 1.0, true}, {int64(1), 1.0, true}, {false, int64(0), true}, {"1", int64(1), false},
		{nil, false, false}, {nil, nil, true}, {"", nil, false}, {math.NaN(), math.NaN(), false},
		{int64(1<<53 + 1), float64(1 << 53), false}, {huge, 1e20, true}, {huge, math.Inf(1), false},
		{[]any{int64(1)}, []any{true}, true}, {[]any{}, nil, false}, {[]any{int64(1)}, []any{int64(1), int64(2)}, false},
		{decode(t, `{"a":1,"b":2}`), decode(t, `{"b":2.0,"a":true}`), true}, {decode(t, `{"a":1}`), decode(t, `{"b":1}`), false},
		{&Ref{ID: 1}, &Ref{ID: 1}, true}, {&Ref{ID: 1}, "x", false}, {"x", &Ref{ID: 1}, false},
	}
	for _, tc := range cases {
		test.Eq(t, tc.want, Equal(tc.a, tc.b), test.Sprintf("%s == %s", Repr(tc.a), Repr(tc.b)))
		test.Eq(t, tc.want, Equal(tc.b, tc.a), test.Sprintf("%s == %s", Repr(tc.b), Repr(tc.a)))
	}
}

func TestInt(t *testing.T) {
	t.Parallel()
	good := []struct {
		v    any
		want string
	}{
		{1.9, "1"}, {-1.9, "-1"}, {true, "1"}, {" 11 ", "11"}, {"1_0", "10"}, {"+7", "7"}, {"-0", "0"}, {"00012", "12"},
		{"\u00a0١٢\u2003", "12"}, {"９", "9"}, {1e20, "100000000000000000000"}, {"123456789012345678901", "123456789012345678901"},
	}
	for _, tc := range good {
		got, err := Int(tc.v)
		must.NoError(t, err)
		test.Eq(t, tc.want, Repr(got))
	}
	bad := []struct {
		v           any
		class, text string
	}{
		{"1.9", ValueError, "invalid literal for int() with base 10: '1.9'"},
		{"", ValueError, "invalid literal for int() with base 10: ''"},
		{"1__0", ValueError, "invalid literal for int() with base 10: '1__0'"},
		{"_1", ValueError, "invalid literal for int() with base 10: '_1'"},
		{"+-1", ValueError, "invalid literal for int() with base 10: '+-1'"},
		{nil, TypeError, "int() argument must be a string, a bytes-like object or a real number, not 'NoneType'"},
		{[]any{}, TypeError, "int() argument must be a string, a bytes-like object or a real number, not 'list'"},
		{math.Inf(1), OverflowError, "cannot convert float infinity to integer"},
		{math.NaN(), ValueError, "cannot convert float NaN to integer"},
	}
	for _, tc := range bad {
		_, err := Int(tc.v)
		var e *Error
		must.True(t, asError(err, &e))
		test.Eq(t, Error{Class: tc.class, Message: tc.text}, *e)
	}
}

func TestFloat(t *testing.T) {
	t.Parallel()
	good := []struct {
		v    any
		want string
	}{
		{"1e5", "100000.0"}, {" 1_0.5 ", "10.5"}, {"-inf", "-inf"}, {"+Infinity", "inf"}, {"nAn", "nan"}, {".5", "0.5"}, {"5.", "5.0"},
		{int64(3), "3.0"}, {true, "1.0"}, {"1e999", "inf"}, {"١.٥", "1.5"},
	}
	for _, tc := range good {
		got, err := Float(tc.v)
		must.NoError(t, err)
		test.Eq(t, tc.want, Repr(got))
	}
	for _, text := range []string{"", "x", "0x1p3", "1e", "1_", "1__0", "._5", "infinit", "1 2", "e5", "--1"} {
		_, err := Float(text)
		test.EqError(t, err, "could not convert string to float: "+Repr(text))
	}
	_, err := Float(new(big.Int).Exp(big.NewInt(10), big.NewInt(400), nil))
	test.EqError(t, err, "int too large to convert to float")
	_, err = Float(nil)
	test.EqError(t, err, "float() argument must be a string or a real number, not 'NoneType'")
}

func TestDict(t *testing.T) {
	t.Parallel()
	d := NewDict()
	d.Set("b", int64(1))
	d.Set("a", int64(2))
	d.Set("b", int64(3))
	test.Eq(t, []string{"b", "a"}, d.Keys())
	c := d.Clone()
	d.Delete("b")
	d.Delete("missing")
	test.Eq(t, []string{"a"}, d.Keys())
	test.Eq(t, 2, c.Len())
	var none *Dict
	test.Eq(t, 0, none.Len())
	test.False(t, none.Has("x"))
	test.Error(t, NewDict().UnmarshalJSON([]byte("[1]")))
	_, err := DecodeDict([]byte("3"))
	test.EqError(t, err, "expected a JSON object, got int")
}

func asError(err error, target **Error) bool {
	e, ok := err.(*Error)
	*target = e
	return ok
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\u00e9\ud83d"]}`, `NaN`, `[[[[`, "\xed\xa0\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil {
			return
		}
		first := Encode(v)
		again, err := Decode(first)
		must.NoError(t, err)
		must.Eq(t, string(first), string(Encode(again)))
		_ = Repr(v)
		_ = Dumps(v)
	})
}
