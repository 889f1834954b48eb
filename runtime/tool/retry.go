package tool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The rules of promptflow-tools' handle_openai_error.
const (
	maxRetries       = 100 // beyond the first attempt
	maxPromptyTries  = 10  // the same of a prompty file
	max422           = 3   // attempts in a row that end with 422
	minBackoff       = 3 * time.Second
	maxBackoff       = 60 * time.Second
	maxRetryAfter    = 24 * time.Hour // beyond it a Retry-After is taken for this long
	insufficientCode = "insufficient_quota"
)

// apiFailure is an exception of OpenAI's client.
type apiFailure struct {
	class      string // Python class name
	text       string // str() of the exception
	mend       string // what we add for the reader
	status     int    // 0 without an answer
	kind       string // the error's type, as the endpoint says it
	retryAfter string
	retriable  bool
}

// Error is the text of OpenAI's client.
func (f *apiFailure) Error() string { return f.class + ": " + f.text }

// statusFailure reads the answer with a status from 400 on.
func statusFailure(resp *http.Response, data []byte) *apiFailure {
	f := &apiFailure{
		class: statusClass(resp.StatusCode), text: fmt.Sprintf("Error code: %d", resp.StatusCode),
		status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"),
	}
	f.retriable = f.status >= 500 || f.status == http.StatusTooManyRequests || f.status == http.StatusUnprocessableEntity
	body, err := value.Decode(data)
	if err != nil {
		return f
	}
	detail, _ := body.(*value.Dict)
	if inner, ok := detail.Get("error"); ok {
		detail, _ = inner.(*value.Dict)
	}
	message, _ := detail.Get("message")
	if s, ok := message.(string); ok && s != "" {
		f.text += " - " + s
	}
	kind, _ := detail.Get("type")
	f.kind, _ = kind.(string)
	if f.status == http.StatusTooManyRequests && f.kind == insufficientCode {
		f.retriable = false
	}
	return f
}

func statusClass(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "BadRequestError"
	case http.StatusUnauthorized:
		return "AuthenticationError"
	case http.StatusForbidden:
		return "PermissionDeniedError"
	case http.StatusNotFound:
		return "NotFoundError"
	case http.StatusConflict:
		return "ConflictError"
	case http.StatusUnprocessableEntity:
		return "UnprocessableEntityError"
	case http.StatusTooManyRequests:
		return "RateLimitError"
	}
	if status >= 500 {
		return "InternalServerError"
	}
	return "APIStatusError"
}

// attempts counts what decides whether to go on.
type attempts struct {
	most  int // beyond the first
	index int // of the attempt that failed last, from 0
	row   int // how many in a row ended with 422
}

// exhausted notes a failure that may be retried and reports whether it was the last one allowed.
func (a *attempts) exhausted(f *apiFailure) bool {
	if f.status == http.StatusUnprocessableEntity {
		a.row++
	} else {
		a.row = 0
	}
	return a.index == a.most || a.row == max422
}

// backoff returns how long to wait before the next attempt, and the line that promptflow-tools prints about it.
func (a *attempts) backoff(f *apiFailure, now time.Time) (time.Duration, string) {
	if d, ok := readRetryAfter(f.retryAfter, now); ok {
		return d, fmt.Sprintf("%s #%d, Retry-After=%s, Back off %s seconds for retry.", f.class, a.index, f.retryAfter, value.Repr(d.Seconds()))
	}
	d := maxBackoff
	if a.index < 6 {
		d = min(minBackoff+time.Duration(1<<a.index-1)*time.Second, maxBackoff)
	}
	return d, fmt.Sprintf("%s #%d, but no Retry-After header, Back off %d seconds for retry.", f.class, a.index, int(d.Seconds()))
}

// readRetryAfter reads seconds or a date. What is neither is as good as none.
func readRetryAfter(text string, now time.Time) (time.Duration, bool) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(seconds) {
		seconds = min(max(seconds, 0), maxRetryAfter.Seconds())
		return time.Duration(seconds * float64(time.Second)), true
	}
	if date, err := http.ParseTime(text); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter), true
	}
	return 0, false
}

// gaveUp is a failure after which no other attempt is made.
type gaveUp struct {
	*apiFailure
	exhausted bool // it could have been tried again, but for the number of attempts
}

// persist sends until there is an answer, a failure that stays, or no more attempts (handle_openai_error). It tells log what
// promptflow-tools prints.
func persist[T any](ctx context.Context, c *Client, e *endpoint, send func() (T, error), log func(line string)) (T, error) {
	got, err := try(ctx, c, e, send, maxRetries, log)
	var f *gaveUp
	switch {
	case !errors.As(err, &f):
		return got, err
	case f.exhausted:
		return got, wrapped(f.apiFailure, "Exceed max retry times. ")
	default:
		return got, wrapped(f.apiFailure, "")
	}
}

// try is persist with a number of attempts beyond the first. What the endpoint's failures end with is a *gaveUp.
func try[T any](ctx context.Context, c *Client, e *endpoint, send func() (T, error), most int, log func(line string)) (T, error) {
	a := attempts{most: most}
	var none T
	for ; ; a.index++ {
		got, err := send()
		var f *apiFailure
		if !errors.As(err, &f) {
			return got, canceled(ctx, err)
		}
		e.scrub(f)
		log("Exception occurs: " + f.Error())
		if !f.retriable {
			if f.kind == insufficientCode && f.status == http.StatusTooManyRequests {
				log(f.class + " with insufficient quota. Throw user error.")
			}
			return none, &gaveUp{f, false}
		}
		if a.exhausted(f) {
			log(f.class + " reached max retry. Exit retry with user error.")
			return none, &gaveUp{f, true}
		}
		d, line := a.backoff(f, c.now())
		log(line)
		if err := c.wait(ctx, d); err != nil {
			return none, canceled(ctx, err)
		}
	}
}

// canceled turns the end of ctx into prompt flow's error; other errors stay.
func canceled(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	reason := "Received cancel request"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = "Timeout"
	}
	return api.NewError([]string{api.UserError, "ToolCanceledError"}, targetExecutor, "Tool execution is canceled because: %s.", reason)
}

// scrubbed is what prompt flow shows in place of a secret.
const scrubbed = "**data_scrubbed**"

// minSecret is the length below which a key is too common a word to look for in texts.
const minSecret = 4

// scrub removes the connection's key from what the endpoint said: some repeat it.
func (e *endpoint) scrub(f *apiFailure) {
	for _, name := range []string{"Authorization", "Api-Key"} {
		if secret := strings.TrimPrefix(e.header.Get(name), "Bearer "); len(secret) >= minSecret {
			f.text = strings.ReplaceAll(f.text, secret, scrubbed)
			f.mend = strings.ReplaceAll(f.mend, secret, scrubbed)
		}
	}
}
