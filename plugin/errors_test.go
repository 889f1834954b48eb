package plugin

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/structs"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		err         error
		code        codes.Code
		recoverable bool
		is          error
	}{
		{"plain", errors.New("image does not exist"), codes.Unknown, false, nil},
		{"recoverable", Recoverable(errors.New("registry is down")), codes.FailedPrecondition, true, nil},
		{"recoverable below another", fmt.Errorf("start task: %w", Recoverable(errors.New("registry is down"))), codes.FailedPrecondition, true, nil},
		{"recoverable above a cause", Recoverable(fmt.Errorf("pull: %w", context.DeadlineExceeded)), codes.FailedPrecondition, true, nil},
		{"not found", fmt.Errorf("signal task: %w", ErrTaskNotFound), codes.NotFound, false, ErrTaskNotFound},
		{"not supported", ErrNotSupported, codes.Unimplemented, false, ErrNotSupported},
		{"canceled", context.Canceled, codes.Canceled, false, context.Canceled},
		{"too late", fmt.Errorf("pull: %w", context.DeadlineExceeded), codes.DeadlineExceeded, false, context.DeadlineExceeded},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sent := toStatus(tc.err)
			s := status.Convert(sent)
			test.Eq(t, tc.code, s.Code())
			test.Eq(t, tc.err.Error(), s.Message())
			// An agent looks at the first detail and nowhere else.
			must.SliceNotEmpty(t, s.Details())
			detail, ok := s.Details()[0].(*structs.RecoverableError)
			must.True(t, ok)
			test.Eq(t, tc.recoverable, detail.GetRecoverable())

			got := FromStatus(sent)
			test.EqError(t, got, tc.err.Error())
			test.Eq(t, tc.recoverable, IsRecoverable(got))
			if tc.is != nil {
				test.ErrorIs(t, got, tc.is)
			}
		})
	}
}

func TestStatus_ofNothing(t *testing.T) {
	t.Parallel()
	must.NoError(t, toStatus(nil))
	must.NoError(t, FromStatus(nil))
	must.NoError(t, Recoverable(nil))
	must.False(t, IsRecoverable(nil))
	other := errors.New("no status")
	must.Eq(t, other, FromStatus(other))
}

func TestRecoverable_keepsItsCause(t *testing.T) {
	t.Parallel()
	must.ErrorIs(t, Recoverable(fmt.Errorf("pull: %w", ErrNotSupported)), ErrNotSupported)
}

// Protobuf refuses a whole message for one byte that is not UTF-8, and errors quote what images and processes say.
func TestStatus_carriesAnyBytes(t *testing.T) {
	t.Parallel()
	s := status.Convert(toStatus(Recoverable(errors.New("exec: \xff\xfe"))))
	test.Eq(t, "exec: \uFFFD", s.Message())
	test.SliceNotEmpty(t, s.Details())
}
