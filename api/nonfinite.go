package api

import (
	"bytes"
	"encoding/json"
)

var nonFinite = [][]byte{[]byte("-Infinity"), []byte("Infinity"), []byte("NaN")}

// CheckJSON returns what is wrong with data as JSON with Python's NaN and Infinity; nil when nothing is.
func CheckJSON(data []byte) error {
	var text json.RawMessage
	return json.Unmarshal(quoteNonFinite(data), &text)
}

// quoteNonFinite turns the numbers NaN, Infinity and -Infinity, which Python writes into JSON and Go's JSON has not, into strings of
// the same letters. What stands inside strings stays.
func quoteNonFinite(data []byte) []byte {
	if !bytes.Contains(data, nonFinite[1]) && !bytes.Contains(data, nonFinite[2]) {
		return data
	}
	out := make([]byte, 0, len(data)+16)
	inString := false
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case inString && c == '\\' && i+1 < len(data):
			out = append(out, c, data[i+1])
			i++
			continue
		case c == '"':
			inString = !inString
		case !inString:
			if token := tokenAt(data[i:]); token != nil {
				out = append(append(append(out, '"'), token...), '"')
				i += len(token) - 1
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

func tokenAt(data []byte) []byte {
	for _, token := range nonFinite {
		if bytes.HasPrefix(data, token) {
			return token
		}
	}
	return nil
}
