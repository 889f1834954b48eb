package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// The two roots of every error code (prompt flow's own): the caller's fault or ours.
const (
	UserError   = "UserError"
	SystemError = "SystemError"
)

// Error is the one error shape on every wire of this system; it is prompt flow's. Code is [UserError] or [SystemError];
// InnerError names prompt flow's error classes below it, outermost first. Message says what was wrong, with which
// value, and what to do.
type Error struct {
	Code              string            `json:"code"`
	Message           string            `json:"message"`
	MessageFormat     string            `json:"messageFormat,omitempty"`
	MessageParameters map[string]string `json:"messageParameters,omitempty"`
	Target            string            `json:"target,omitempty"`
	ReferenceCode     string            `json:"referenceCode,omitempty"`
	InnerError        *InnerError       `json:"innerError,omitempty"`
	AdditionalInfo    []AdditionalInfo  `json:"additionalInfo,omitempty"`
	DebugInfo         json.RawMessage   `json:"debugInfo,omitempty"`
	RunID             string            `json:"runId,omitempty"`

	// Status is the HTTP status the error travels with; 0 means 400 for a UserError and 500 otherwise.
	Status int `json:"-"`
	// Location is where in the flow's files the mistake is, when it is in one.
	Location *Location `json:"location,omitempty"`
	// RetryAfterSeconds is for 429 and 503 answers, sent as the Retry-After header.
	RetryAfterSeconds int `json:"-"`
}

// InnerError is one class below another in an error's chain.
type InnerError struct {
	Code       string      `json:"code"`
	InnerError *InnerError `json:"innerError,omitempty"`
}

// AdditionalInfo is extra material for an error, such as the user's stack trace (type "ToolExecutionErrorDetails").
type AdditionalInfo struct {
	Type string          `json:"type"`
	Info json.RawMessage `json:"info"`
}

// Location is a place in a file of a flow; lines and columns count from 1.
type Location struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// ErrorBody is the envelope of an Error on the wire.
type ErrorBody struct {
	Error *Error `json:"error"`
}

// NewError makes an error from prompt flow's class chain, e.g. "UserError", "ValidationError", "InvalidFlowRequest",
// "InputNotFound". The first of the chain is the code.
func NewError(chain []string, target, format string, args ...any) *Error {
	e := &Error{Code: SystemError, Message: fmt.Sprintf(format, args...), Target: target}
	if len(chain) == 0 {
		return e
	}
	e.Code = chain[0]
	for i := len(chain) - 1; i > 0; i-- {
		e.InnerError = &InnerError{Code: chain[i], InnerError: e.InnerError}
	}
	return e
}

// Chain returns the error's classes, outermost first.
func (e *Error) Chain() []string {
	chain := []string{e.Code}
	for in := e.InnerError; in != nil; in = in.InnerError {
		chain = append(chain, in.Code)
	}
	return chain
}

// Class returns the innermost class of the chain.
func (e *Error) Class() string {
	chain := e.Chain()
	return chain[len(chain)-1]
}

// Error implements error.
func (e *Error) Error() string {
	if e.Location != nil && e.Location.Line > 0 {
		return fmt.Sprintf("%s:%d:%d: %s", e.Location.File, e.Location.Line, e.Location.Column, e.Message)
	}
	return e.Message
}

// HTTPStatus returns the status the error travels with.
func (e *Error) HTTPStatus() int {
	switch {
	case e.Status != 0:
		return e.Status
	case e.Code == UserError:
		return http.StatusBadRequest
	default:
		return http.StatusInternalServerError
	}
}

// WithStatus sets the HTTP status and returns the error.
func (e *Error) WithStatus(status int) *Error {
	e.Status = status
	return e
}

// At sets the error's place in the flow's files and returns the error.
func (e *Error) At(file string, line, column int) *Error {
	e.Location = &Location{File: file, Line: line, Column: column}
	return e
}

// AsError finds the *Error in err's chain, or wraps err as a SystemError/UnexpectedError. Nil stays nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return NewError([]string{SystemError, "UnexpectedError"}, "Unknown", "%s", err.Error())
}
