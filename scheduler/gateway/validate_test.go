package gateway

import (
	"net/http"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestValidate_is_passed_on_and_hands_the_bundle_in(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.needs = true
	f := serve(t, Config{}, r.URL)
	name, data := packed(t, "nodes: []\n")
	response, _ := f.call(t, "POST", "/v1/flows", string(data))
	must.Eq(t, http.StatusCreated, response.StatusCode)
	request := `{"files":[{"path":"a.py","content":"eA=="}],"flow":"` + name + `","tools":true}`
	response, body := f.call(t, "POST", "/v1/runtimes/shared/validate", request, "Content-Type", "application/json")
	test.Eq(t, http.StatusOK, response.StatusCode)
	test.Eq(t, request, body)
	test.Eq(t, "/v1/validate", r.request().URL.Path)
	_, puts := r.counts()
	test.Eq(t, 1, puts)
}

func TestValidate_says_that_a_bundle_is_nowhere(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.needs = true
	f := serve(t, Config{}, r.URL)
	response, body := f.call(t, "POST", "/v1/runtimes/shared/validate", `{"flow":"sha256:1"}`)
	test.Eq(t, http.StatusFailedDependency, response.StatusCode)
	test.Eq(t, "FlowNotFound", failure(t, response, body).Class())
	response, _ = f.call(t, "GET", "/v1/runtimes/shared/validate", "")
	test.Eq(t, http.StatusMethodNotAllowed, response.StatusCode)
}
