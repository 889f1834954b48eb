// Command nomad-promptflow is a Nomad task driver, the runtime that runs prompt flows inside its containers, the gateway in front
// of them and the command line: started by a Nomad agent it serves the driver plugin, started by a person it is the CLI.
package main

import (
	"os"

	"github.com/nomad-promptflow/nomad-promptflow/command"
	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/engine"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func main() {
	if plugin.StartedByAgent() {
		logger := plugin.NewLogger(command.Name)
		plugin.Serve(driver.New(driver.Parts{Version: command.Version, Logger: logger, OpenEngine: engine.Open}), logger)
		return
	}
	os.Exit(command.Run(os.Args[1:]))
}
