package media

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

var dataURL = regexp.MustCompile(`^data:image/(.*);base64`)

// isBase64 reports what prompt flow takes for base64: the characters of base64 with room for padding, with the head of a data URL
// before them or without.
func isBase64(s string) bool {
	head, rest, found := strings.Cut(s, ",")
	if !found {
		return wellFormed(s)
	}
	return !strings.Contains(rest, ",") && dataURL.MatchString(head) && wellFormed(rest)
}

// wellFormed is promptflow's pattern: an even number of characters, or with padding as many as it completes to pairs.
func wellFormed(s string) bool {
	s = strings.TrimSuffix(s, "\n")
	n := 0
	for n < len(s) && sextet[s[n]] >= 0 {
		n++
	}
	switch s[n:] {
	case "", "==":
		return n%2 == 0
	case "=":
		return n%2 == 1
	default:
		return false
	}
}

// sextet holds the value of each character of base64, -1 for others.
var sextet = func() (table [256]int8) {
	for i := range table {
		table[i] = -1
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		table[c] = int8(i)
	}
	return table
}()

// decodeBase64 is Python's b64decode of what comes behind the last comma: characters that are not of base64 are passed over.
func decodeBase64(s string) ([]byte, error) {
	s = s[strings.LastIndexByte(s, ',')+1:]
	out := make([]byte, 0, len(s)/4*3+3)
	var bits uint32
	place, pads, count := 0, 0, 0
	for i := range len(s) {
		if s[i] == '=' {
			if pads++; place >= 2 && place+pads >= 4 {
				return out, nil
			}
			continue
		}
		v := sextet[s[i]]
		if v < 0 {
			continue
		}
		pads = 0
		count++
		bits = bits<<6 | uint32(v)
		if place = (place + 1) % 4; place != 1 {
			out = append(out, byte(bits>>[...]int{0, 0, 4, 2}[place]))
		}
	}
	switch place {
	case 0:
		return out, nil
	case 1:
		return nil, binasciiError("Invalid base64-encoded string: number of data characters (" + strconv.Itoa(count) + ") cannot be 1 more than a multiple of 4")
	default:
		return nil, binasciiError("Incorrect padding")
	}
}

func binasciiError(text string) error { return &value.Error{Class: "Error", Message: text} }

func fromBase64(s, mime string) (*value.Image, error) {
	data, err := decodeBase64(s)
	if err != nil {
		return nil, err
	}
	return value.NewImage(data, mime, ""), nil
}

// dataURLType returns the type that a data URL names, empty when it names none.
func dataURLType(s string) string {
	if m := dataURL.FindStringSubmatch(s); m != nil {
		return "image/" + m[1]
	}
	return ""
}
