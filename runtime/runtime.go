// Package runtime holds the parts of what runs inside a runtime's container. It has no code of its own.
//
// From the ground up: value (Python's plain data), flow (the model of flow.dag.yaml and its checks), graph (which nodes are
// ready), template and tool (prompt and llm nodes), connection, worker (Python processes), run (executes submissions) and server
// (the HTTP server, which `nomad-promptflow runtime serve` runs). Nothing below it knows of Nomad, of drivers or of gateways: they
// meet in environment variables and HTTP.
package runtime
