package value

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // prompt flow names images by it; nothing is trusted because of it
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Image is prompt flow's Image: bytes that know what kind of picture they are and, when they were fetched, from where. It is
// never changed once made.
type Image struct {
	Data []byte
	// MIME is in lower case; "image/*" when nobody knows.
	MIME string
	// URL is where the image was fetched from, empty when it was not.
	URL string
}

// NewImage makes an image. An empty MIME type is guessed from the data, by the rules of the filetype package that prompt flow asks.
func NewImage(data []byte, mime, url string) *Image {
	if mime == "" {
		mime = guessImage(data)
	}
	return &Image{Data: data, MIME: strings.ToLower(mime), URL: url}
}

// String is str(image): its name by the first half of its bytes' SHA-1.
func (i *Image) String() string {
	sum := sha1.Sum(i.Data) //nolint:gosec // see above
	return "Image(" + hex.EncodeToString(sum[:4]) + ")"
}

// Base64 returns the image's bytes in base64.
func (i *Image) Base64() string { return base64.StdEncoding.EncodeToString(i.Data) }

// DataURL returns the image as a data: URL.
func (i *Image) DataURL() string { return "data:" + i.MIME + ";base64," + i.Base64() }

// Text is prompt flow's Text of the openai-vision message format: a str that remembers its annotations.
type Text struct {
	Value string
	// Annotations is nil for a text that was written without.
	Annotations any
}

// Dict returns the text as the openai-vision format and run records spell it.
func (t *Text) Dict() *Dict {
	d := NewDictSize(2)
	d.Set("type", "text")
	if t.Annotations == nil {
		d.Set("text", t.Value)
		return d
	}
	inner := NewDictSize(2)
	inner.Set("value", t.Value)
	inner.Set("annotations", t.Annotations)
	d.Set("text", inner)
	return d
}

// signatures are what images of each kind begin with, in the order in which they are tried. A pattern's '?' is any byte.
var signatures = []struct{ mime, pattern string }{
	{"image/vnd.dwg", "AC10"},
	{"image/x-xcf", "gimp xcf v"},
	{"image/jpeg", "\xFF\xD8\xFF"},
	{"image/jpx", "\x00\x00\x00\x0C????????????ftypjp2 "},
	{"image/png", "\x89PNG"},
	{"image/gif", "GIF"},
	{"image/webp", "RIFF????WEBPVP"},
	{"image/tiff", "II*\x00??????"},
	{"image/tiff", "MM\x00*??????"},
	{"image/bmp", "BM"},
	{"image/vnd.ms-photo", "II\xBC"},
	{"image/vnd.adobe.photoshop", "8BPS"},
	{"image/x-icon", "\x00\x00\x01\x00"},
}

// unknownImage is the type of what is no image that anybody knows.
const unknownImage = "image/*"

// guessImage returns the MIME type of an image's first bytes.
func guessImage(data []byte) string {
	data = data[:min(len(data), 8192)]
	for _, s := range signatures {
		if !begins(data, s.pattern) {
			continue
		}
		switch {
		case s.mime == "image/jpx" && len(data) <= 50:
			continue
		case s.mime == "image/png" && isAnimated(data):
			return "image/apng"
		case s.mime == "image/tiff" && string(data[8:10]) == "CR":
			return "image/x-canon-cr2"
		}
		return s.mime
	}
	return guessByBrand(data)
}

func begins(data []byte, pattern string) bool {
	if len(data) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != '?' && pattern[i] != data[i] {
			return false
		}
	}
	return true
}

// isAnimated reports whether a PNG has the chunk acTL before its picture.
func isAnimated(data []byte) bool {
	if len(data) <= 8 || !bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1A\n")) {
		return false
	}
	for at := 8; at+8 <= len(data); {
		size := int(binary.BigEndian.Uint32(data[at:]))
		switch string(data[at+4 : at+8]) {
		case "acTL":
			return true
		case "IDAT", "IEND":
			return false
		}
		at += 12 + size
	}
	return false
}

// guessByBrand tells HEIC from AVIF, which are files of the same kind.
func guessByBrand(data []byte) string {
	if len(data) < 16 || string(data[4:8]) != "ftyp" {
		return unknownImage
	}
	size := int(binary.BigEndian.Uint32(data))
	if len(data) < size {
		return unknownImage
	}
	brands := map[string]bool{}
	for at := 16; at+4 <= size; at += 4 {
		brands[string(data[at:at+4])] = true
	}
	major := string(data[8:12])
	if major == "heic" || (major == "mif1" || major == "msf1") && brands["heic"] {
		return "image/heic"
	}
	if len(data) > 132 && string(data[128:132]) == "DICM" { // a medical picture, which is not called an image
		return unknownImage
	}
	if major == "avif" || (major == "mif1" || major == "msf1") && brands["avif"] {
		return "image/avif"
	}
	return unknownImage
}

// Extension returns what files of the image's type are called by, empty when the type is not known.
func (i *Image) Extension() string {
	ext := i.MIME[strings.LastIndexByte(i.MIME, '/')+1:]
	if ext == "*" || strings.ContainsAny(ext, "\\\x00") || !utf8.ValidString(ext) {
		return ""
	}
	return ext
}

// HasMedia reports whether an image or a text is in a value.
func HasMedia(v any) bool {
	switch v := v.(type) {
	case *Image, *Text:
		return true
	case []any:
		for _, item := range v {
			if HasMedia(item) {
				return true
			}
		}
	case *Dict:
		for _, item := range v.All() {
			if HasMedia(item) {
				return true
			}
		}
	}
	return false
}

// Map returns v with what change makes of every value that is no container; containers without a changed value are v's own.
func Map(v any, change func(any) any) any {
	switch v := v.(type) {
	case []any:
		return mapList(v, change)
	case *Dict:
		return mapDict(v, change)
	default:
		return change(v)
	}
}

func mapList(list []any, change func(any) any) any {
	var out []any
	for i, item := range list {
		mapped := Map(item, change)
		if out == nil && same(mapped, item) {
			continue
		}
		if out == nil {
			out = append([]any(nil), list...)
		}
		out[i] = mapped
	}
	if out == nil {
		return list
	}
	return out
}

func mapDict(dict *Dict, change func(any) any) any {
	var out *Dict
	for key, item := range dict.All() {
		mapped := Map(item, change)
		if out == nil && same(mapped, item) {
			continue
		}
		if out == nil {
			out = dict.Clone()
		}
		out.Set(key, mapped)
	}
	if out == nil {
		return dict
	}
	return out
}

// same reports whether two values are one and the same, lists by their memory.
func same(a, b any) bool {
	x, xList := a.([]any)
	y, yList := b.([]any)
	if xList || yList {
		return xList && yList && len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
	}
	if _, ok := a.(json.RawMessage); ok {
		return false
	}
	return a == b
}
