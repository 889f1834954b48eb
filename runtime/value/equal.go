package value

import (
	"bytes"
	"math"
	"math/big"
)

// Equal is Python's ==: numbers compare by value across bool, int and float, strings never equal numbers, dicts compare
// without regard to order. A Ref equals itself only; what its class says of equality is known to its worker alone.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		switch b := b.(type) {
		case string:
			return a == b
		case *Text:
			return a == b.Value
		}
		return false
	case *Text:
		return Equal(a.Value, b)
	case *Image:
		image, ok := b.(*Image)
		return ok && bytes.Equal(a.Data, image.Data)
	case []any:
		list, ok := b.([]any)
		return ok && equalLists(a, list)
	case *Dict:
		dict, ok := b.(*Dict)
		return ok && equalDicts(a, dict)
	case *Stream:
		return a == b
	case *Ref:
		ref, ok := b.(*Ref)
		return ok && a.ID == ref.ID
	default:
		return equalNumbers(a, b)
	}
}

func equalLists(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func equalDicts(a, b *Dict) bool {
	if a.Len() != b.Len() {
		return false
	}
	for k, v := range a.All() {
		other, ok := b.Get(k)
		if !ok || !Equal(v, other) {
			return false
		}
	}
	return true
}

func equalNumbers(a, b any) bool {
	fa, aFloat := a.(float64)
	fb, bFloat := b.(float64)
	if aFloat && bFloat {
		return fa == fb
	}
	if aFloat {
		return equalFloatInt(fa, bigOf(b))
	}
	if bFloat {
		return equalFloatInt(fb, bigOf(a))
	}
	ia, ib := bigOf(a), bigOf(b)
	return ia != nil && ib != nil && ia.Cmp(ib) == 0
}

func equalFloatInt(f float64, i *big.Int) bool {
	if i == nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return false
	}
	return new(big.Float).SetFloat64(f).Cmp(new(big.Float).SetPrec(uint(max(i.BitLen(), 64))).SetInt(i)) == 0
}

// bigOf returns a bool or int as *big.Int, nil for anything else.
func bigOf(v any) *big.Int {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1)
		}
		return new(big.Int)
	case int64:
		return big.NewInt(v)
	case int:
		return big.NewInt(int64(v))
	case *big.Int:
		return v
	default:
		return nil
	}
}

// Truth is Python's bool(v). A Ref is true: objects are unless their class says otherwise.
func Truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *Text:
		return v.Value != ""
	case *Image:
		return len(v.Data) > 0
	case []any:
		return len(v) > 0
	case *Dict:
		return v.Len() > 0
	default:
		return true
	}
}
