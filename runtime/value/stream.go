package value

import (
	"context"
	"strings"
)

// Stream is an iterator that lives here and not in a worker: what a model is still saying. It can be read once.
type Stream struct {
	// Read hands over every item as soon as it comes, until the end, an error of its own or of emit.
	Read func(ctx context.Context, emit func(item any) error) error
	// Repr stands for the iterator where its items are not.
	Repr string
}

// Join returns "".join(str(item) for item in items).
func Join(items []any) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(Str(item))
	}
	return b.String()
}
