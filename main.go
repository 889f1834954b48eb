// Command nomad-promptflow is a Nomad task driver, the runtime that runs prompt flows inside its containers, the gateway in front
// of them and the command line: started by a Nomad agent it serves the driver plugin, started by a person it is the CLI, and
// started as a container's first process it is that task's init.
package main

import (
	"os"

	"github.com/nomad-promptflow/nomad-promptflow/command"
	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/engine"
	"github.com/nomad-promptflow/nomad-promptflow/driver/pid1"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func main() {
	if plugin.StartedByAgent() {
		serve()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "init" {
		os.Exit(pid1.Run(os.Args[2:], os.Stderr))
	}
	os.Exit(command.Run(os.Args[1:]))
}

func serve() {
	logger := plugin.NewLogger(command.Name)
	self, err := os.Executable()
	if err != nil {
		logger.Error("cannot find own program, tasks cannot have init", "error", err)
	}
	plugin.Serve(driver.New(driver.Parts{
		Version: command.Version, Logger: logger, OpenEngine: engine.Open, InitBinary: self,
	}), logger)
}
