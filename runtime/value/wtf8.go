package value

import "unicode/utf8"

// Python strings may hold lone surrogates ("\ud800" in JSON). Strings here carry them in WTF-8: UTF-8 with three-byte
// sequences for U+D800 to U+DFFF.

// decodeRune is utf8.DecodeRune that knows surrogates.
func decodeRune(b []byte) (rune, int) {
	r, size := utf8.DecodeRune(b)
	if r == utf8.RuneError && size == 1 && isSurrogate(b) {
		return rune(b[0]&0x0F)<<12 | rune(b[1]&0x3F)<<6 | rune(b[2]&0x3F), 3
	}
	return r, size
}

// decodeRuneString is decodeRune of a string.
func decodeRuneString(s string) (rune, int) {
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 && len(s) >= 3 {
		return decodeRune([]byte(s[:3]))
	}
	return r, size
}

func isSurrogate(b []byte) bool {
	return len(b) >= 3 && b[0] == 0xED && b[1] >= 0xA0 && b[1] <= 0xBF && b[2] >= 0x80 && b[2] <= 0xBF
}

// appendRune is utf8.AppendRune that writes surrogates too.
func appendRune(b []byte, r rune) []byte {
	if r >= 0xD800 && r <= 0xDFFF {
		return append(b, byte(0xE0|r>>12), byte(0x80|r>>6&0x3F), byte(0x80|r&0x3F))
	}
	return utf8.AppendRune(b, r)
}

// invalidUTF8 returns the offset of the first byte that is not WTF-8, or -1.
func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, size := decodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// Len returns Python's len() of a string: its code points.
func Len(s string) int {
	n := 0
	for i := 0; i < len(s); n++ {
		_, size := decodeRuneString(s[i:])
		i += size
	}
	return n
}
