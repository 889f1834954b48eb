package value

// The Python exception classes that conversions raise.
const (
	TypeError       = "TypeError"
	ValueError      = "ValueError"
	OverflowError   = "OverflowError"
	RecursionError  = "RecursionError"
	JSONDecodeError = "JSONDecodeError"
	UnicodeError    = "UnicodeDecodeError"
)

// Error is what Python would have raised: Class is the exception's class name, Message is str() of the exception.
type Error struct {
	Class   string
	Message string
}

// Error implements error with Python's text.
func (e *Error) Error() string { return e.Message }
