package plugin

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/structs"
)

// recoverable marks an error after which trying again can help.
type recoverable struct{ error }

func (r recoverable) Unwrap() error { return r.error }

// Recoverable marks an error of StartTask so that the agent tries again by the task's restart policy. Nil stays nil.
func Recoverable(err error) error {
	if err == nil {
		return nil
	}
	return recoverable{err}
}

// IsRecoverable says whether an error is marked by [Recoverable].
func IsRecoverable(err error) bool {
	var r recoverable
	return errors.As(err, &r)
}

// toStatus turns an error of a driver into what travels. The agent looks at the first detail only, to learn whether trying
// again can help.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	var code codes.Code
	switch {
	case IsRecoverable(err):
		code = codes.FailedPrecondition
	case errors.Is(err, ErrTaskNotFound):
		code = codes.NotFound
	case errors.Is(err, ErrNotSupported):
		code = codes.Unimplemented
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	default:
		code = codes.Unknown
	}
	s := status.New(code, valid(err.Error()))
	if detailed, derr := s.WithDetails(protoadapt.MessageV1Of(&structs.RecoverableError{Recoverable: IsRecoverable(err)})); derr == nil {
		s = detailed
	}
	return s.Err()
}

// FromStatus turns what travelled back into an error of this package: the agent's side uses it.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	out := errors.New(s.Message())
	switch s.Code() {
	case codes.NotFound:
		out = withMessage{ErrTaskNotFound, s.Message()}
	case codes.Unimplemented:
		out = withMessage{ErrNotSupported, s.Message()}
	case codes.Canceled:
		out = withMessage{context.Canceled, s.Message()}
	case codes.DeadlineExceeded:
		out = withMessage{context.DeadlineExceeded, s.Message()}
	default:
	}
	for _, detail := range s.Details() {
		if r, ok := detail.(*structs.RecoverableError); ok && r.GetRecoverable() {
			return Recoverable(out)
		}
	}
	return out
}

// withMessage is a sentinel error with the text that came over the wire.
type withMessage struct {
	error
	message string
}

func (w withMessage) Error() string { return w.message }
func (w withMessage) Unwrap() error { return w.error }
