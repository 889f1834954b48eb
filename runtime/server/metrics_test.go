package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
)

func TestMetrics_countWhatWasAsked(t *testing.T) {
	t.Parallel()
	_, url := openai.Start(t)
	s, h, dir := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", url, "b", url) })
	name := dir[strings.LastIndexByte(dir, '/')+1:]
	for _, accept := range []string{"application/json", api.EventStream} {
		must.Eq(t, 200, ask(t, h, "POST", "/v1/runs", `{}`, "Accept", accept).status)
	}
	must.Eq(t, 200, ask(t, h, "POST", "/score", `{}`).status)
	must.Eq(t, 400, ask(t, h, "POST", "/score", `{}`, "Accept", api.EventStream).status) // two outputs stream
	must.Eq(t, 400, ask(t, h, "POST", "/score", `[1]`).status)
	a := ask(t, h, "GET", "/metrics", "")
	must.Eq(t, http.StatusOK, a.status)
	flow := `{flow="` + name + `",`
	for _, line := range []string{
		`Flow_Request_total{exception="",flow="` + name + `",response_code="200",streaming="False"} 2`,
		`Flow_Request_total{exception="",flow="` + name + `",response_code="200",streaming="True"} 1`,
		`Flow_Request_total{exception="MultipleStreamOutputFieldsNotSupported",flow="` + name + `",response_code="400",streaming="False"} 1`,
		`Flow_Request_total{exception="BadRequest",flow="` + name + `",response_code="400",streaming="False"} 1`,
		`Flow_Latency_count` + flow + `response_code="200",response_type="default",streaming="False"} 2`,
		`Flow_Latency_count` + flow + `response_code="200",response_type="firstbyte",streaming="True"} 1`,
		`Flow_Latency_count` + flow + `response_code="200",response_type="lastbyte",streaming="True"} 1`,
		`Flow_Streaming_Response_Duration_count{flow="` + name + `"} 1`,
		`Node_Request_total{exception="",flow="` + name + `",node="one",run_status="Completed"} 3`,
		`Node_Latency_count` + flow + `node="p",run_status="Completed"} 3`,
		`RPC_Request_total{api_call="openai_chat",exception="",flow="` + name + `",node="two"} 3`,
		`Token_Consumption_total` + flow + `llm_engine="m",node="one",token_type="prompt_tokens"} 2`,
		`promptflow_runs_total{status="Completed"} 2`,
		`promptflow_ready 1`,
		`promptflow_concurrency 32`,
		`promptflow_runs_running 0`,
		`promptflow_flows_loaded 0`,
		`process_resident_memory_bytes `,
	} {
		test.StrContains(t, a.body, line)
	}
	s.stats.forget(name)
	test.StrNotContains(t, ask(t, h, "GET", "/metrics", "").body, `flow="`+name)
}

func TestMetrics_forgetFlowsThatAreGone(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", func(c *Config) { c.MaxFlows = 1 })
	first, body := packed(t, echoFlow)
	must.Eq(t, 201, ask(t, h, "PUT", "/v1/flows/"+first, string(body)).status)
	must.Eq(t, 200, ask(t, h, "POST", "/v1/runs", `{"flow":"`+first+`","inputs":{"q":1}}`).status)
	label := first[len("sha256:"):][:12]
	shown := ask(t, h, "GET", "/metrics", "").body
	test.StrContains(t, shown, label)
	test.StrContains(t, shown, "promptflow_flows_loaded 1")
	second, body := packed(t, strings.ReplaceAll(echoFlow, "default: 1", "default: 2"))
	must.Eq(t, 201, ask(t, h, "PUT", "/v1/flows/"+second, string(body)).status)
	shown = ask(t, h, "GET", "/metrics", "").body
	test.StrNotContains(t, shown, label)
	test.StrContains(t, shown, "promptflow_flows_stored 1")
}
