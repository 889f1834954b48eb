package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// maxAttempts bounds on how many instances a submission is tried.
const maxAttempts = 4

// statusClientGone is what is logged for a client that went away; nobody reads it.
const statusClientGone = 499

// instanceHeader says in an answer which instance gave it.
const instanceHeader = "X-Promptflow-Instance"

// outcome is what came of trying an instance: its answer is in the client's response, or err is the answer, or the next instance
// is to be tried.
type outcome struct {
	rest *stream // of an answer that streams
	err  *api.Error
	next bool
}

// forward tries instances until one has answered for good. Streams says that its answer goes on.
func (s *submission) forward() (streams bool, e *api.Error) {
	for len(s.tried) < maxAttempts {
		at := s.pool.chooser.Pick(s.flow, s.tried)
		if at < 0 {
			break
		}
		o := s.try(at)
		if o.rest != nil {
			o.rest.ended = func() {
				s.pool.chooser.Done(at)
				s.end()
			}
			if o.rest.size < 0 {
				// Events may come for longer than any answer is allowed to take; what is bounded is the taking of each.
				conn := s.client.Conn()
				o.rest.going = func() { _ = conn.SetWriteDeadline(time.Now().Add(writeTimeout)) }
			}
			s.client.Response.SetBodyStream(o.rest, o.rest.size)
			return true, nil
		}
		s.pool.chooser.Done(at)
		if !o.next {
			return false, o.err
		}
		s.tried = append(s.tried, at)
	}
	return false, s.nobody()
}

// nobody answers for a submission that no instance took: with the refusal of the last one where there is one.
func (s *submission) nobody() *api.Error {
	if s.refusal {
		s.pass(s.tried[len(s.tried)-1])
		return nil
	}
	e := fault("NoInstance", http.StatusServiceUnavailable, "No instance of runtime %q took the submission: %s. Please check that its job is running, and send the submission again.",
		s.pool.runtime.Name, strings.Join(s.failures, "; "))
	e.RetryAfterSeconds = 1
	return s.withRun(e)
}

// withRun names the run in an error.
func (s *submission) withRun(e *api.Error) *api.Error {
	if s.route == routeRuns {
		e.RunID = topLevelString(s.body.Bytes(), "run_id")
	}
	return e
}

// try sends the submission to an instance, with its bundle where that is missing.
func (s *submission) try(at int) outcome {
	o, missing := s.attempt(at)
	if !missing {
		return o
	}
	s.pool.chooser.Cold(s.flow, at)
	failed, handedIn := s.handIn(at)
	if !handedIn {
		return failed
	}
	o, _ = s.attempt(at) // once: an instance that lacks it again is to say so
	return o
}

// attempt sends the submission to an instance once. Missing says that the instance lacks the flow, and answered so.
func (s *submission) attempt(at int) (o outcome, missing bool) {
	l := s.pool.lines[at]
	response := &s.client.Response
	s.refusal = false
	s.asked = time.Now()
	head, body := s.request(l)
	rest, err := l.exchange(s.ctx, head, body, response, s.gateway.config.RunTimeout)
	if err != nil {
		return s.failed(at, err), false
	}
	s.pool.chooser.Reached(at)
	switch status := response.StatusCode(); {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if rest != nil {
			_ = rest.Close()
		}
		return outcome{err: s.distrusted(l)}, false
	case rest == nil && refusesWork(status) && len(response.Header.Peek("Retry-After")) > 0:
		// By the contract of the runtime's API, it answers so only before it begins.
		s.refusal = true
		s.failures = append(s.failures, fmt.Sprintf("%s refused it with status %d", l.instance.ID, status))
		return outcome{next: true}, false
	case status == http.StatusOK:
		s.pool.chooser.Warm(s.flow, at)
	}
	s.pass(at)
	return outcome{rest: rest}, rest == nil && response.StatusCode() == http.StatusFailedDependency && s.route != routeScore && s.flow != ""
}

func refusesWork(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// pass makes an instance's answer the client's: what was said about the connection to the instance goes.
func (s *submission) pass(at int) {
	header := &s.client.Response.Header
	header.ResetConnectionClose()
	for _, name := range [...]string{"Connection", "Keep-Alive", "Upgrade"} {
		header.Del(name)
	}
	header.Set(instanceHeader, s.pool.lines[at].instance.ID)
}

// failed judges an exchange that brought no answer.
func (s *submission) failed(at int, err error) outcome {
	id := s.pool.lines[at].instance.ID
	log := s.gateway.log.With("runtime", s.pool.runtime.Name, "instance", id, "error", err)
	switch {
	case s.ctx.Err() != nil:
		return outcome{err: s.cancelled()}
	case notSent(err):
		s.pool.chooser.Failed(at)
		log.Warn("cannot reach instance")
		s.failures = append(s.failures, fmt.Sprintf("%s: %v", id, err))
		return outcome{next: true}
	case isTimeout(err):
		log.Warn("instance did not answer in time")
		return outcome{err: s.withRun(fault("RunTimeout", http.StatusGatewayTimeout,
			"Instance %s of runtime %q did not answer within %s. The run was cancelled. Please send less work at once, or allow more time.", id, s.pool.runtime.Name, s.gateway.config.RunTimeout))}
	default:
		s.pool.chooser.Failed(at)
		log.Warn("instance broke off")
		return outcome{err: s.withRun(fault("InstanceLost", http.StatusBadGateway,
			"Instance %s of runtime %q broke off while it had the submission: %v. It may have run, so it was not sent to another instance. Please look at the instance's logs, and send it again if it may run twice.",
			id, s.pool.runtime.Name, err))}
	}
}

// cancelled answers for a submission that ended from our side.
func (s *submission) cancelled() *api.Error {
	s.client.SetConnectionClose()
	if errors.Is(context.Cause(s.ctx), errGone) {
		return s.withRun(fault("ClientGone", statusClientGone, "The client went away; its run was cancelled."))
	}
	return s.withRun(fault("Stopping", http.StatusServiceUnavailable, "The gateway stopped before the run had ended, and the run was cancelled. Please send the submission again."))
}

func (s *submission) distrusted(l *line) *api.Error {
	s.gateway.log.Error("instance refuses the gateway's token", "runtime", s.pool.runtime.Name, "instance", l.instance.ID)
	return s.withRun(fault("InstanceDistrusts", http.StatusBadGateway,
		"Instance %s of runtime %q does not accept the gateway's token. Please tell the gateway's operator: the token in its catalog and that of the instance differ.", l.instance.ID, s.pool.runtime.Name))
}
