package worker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A frame is
//
//	uint32  length of all that follows
//	uint32  length of the head
//	head    strict JSON, an object
//	parts   raw JSON documents and the bytes of images one after the other, their names and lengths in the head's "parts"
//
// with big-endian lengths. Values travel in parts because Python's JSON knows NaN and Infinity, which strict readers of the
// head do not; and so that a large value is not scanned twice.

var errFrame = errors.New("bad frame")

const frameHeader = 8

// part is a named JSON document, or the bytes of an image, behind a head.
type part struct {
	Name string
	Data []byte
}

// partLength is a part as the head announces it: ["name", bytes].
type partLength struct {
	Name   string
	Length int
}

func (p partLength) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{p.Name, p.Length})
}

func (p *partLength) UnmarshalJSON(data []byte) error {
	pair := []any{&p.Name, &p.Length}
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 || p.Length < 0 {
		return fmt.Errorf("%w: part %s", errFrame, data)
	}
	return nil
}

// frame is a received message.
type frame struct {
	head  []byte
	parts []byte
}

// split cuts the parts by their announced lengths, which must cover them exactly.
func (f frame) split(lengths []partLength) (map[string][]byte, error) {
	parts := make(map[string][]byte, len(lengths))
	rest := f.parts
	for _, l := range lengths {
		if l.Length > len(rest) {
			return nil, fmt.Errorf("%w: part %q of %d bytes, %d left", errFrame, l.Name, l.Length, len(rest))
		}
		parts[l.Name] = rest[:l.Length:l.Length]
		rest = rest[l.Length:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last part", errFrame, len(rest))
	}
	return parts, nil
}

// appendFrame builds a frame. head must encode to an object without a "parts" field.
func appendFrame(b []byte, head map[string]any, parts ...part) ([]byte, error) {
	lengths := make([]partLength, len(parts))
	for i, p := range parts {
		lengths[i] = partLength{p.Name, len(p.Data)}
	}
	head["parts"] = lengths
	text, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode frame head: %w", err)
	}
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = append(b, text...)
	for _, p := range parts {
		b = append(b, p.Data...)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	binary.BigEndian.PutUint32(b[start+4:], uint32(len(text)))
	return b, nil
}

// readFrame reads one frame of at most limit bytes. io.EOF means that the stream ended between frames.
func readFrame(r io.Reader, limit int) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return frame{}, fmt.Errorf("%w: cut in its header", errFrame)
		}
		return frame{}, err
	}
	size := int64(binary.BigEndian.Uint32(header[:])) - 4
	head := int64(binary.BigEndian.Uint32(header[4:]))
	switch {
	case size < 0 || head > size:
		return frame{}, fmt.Errorf("%w: head of %d in %d bytes", errFrame, head, size)
	case size > int64(limit):
		return frame{}, fmt.Errorf("%w: %d bytes, at most %d", errFrame, size, limit)
	}
	body, err := readBody(r, size)
	if err != nil {
		return frame{}, fmt.Errorf("%w: cut in its body: %w", errFrame, err)
	}
	return frame{head: body[:head:head], parts: body[head:]}, nil
}

// readBody reads size bytes. It trusts only small announced sizes with memory; for the others memory follows what arrives.
func readBody(r io.Reader, size int64) ([]byte, error) {
	const trusted = 1 << 20
	if size <= trusted {
		body := make([]byte, size)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var body bytes.Buffer
	body.Grow(trusted)
	n, err := io.CopyN(&body, r, size)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return body.Bytes(), err
}
