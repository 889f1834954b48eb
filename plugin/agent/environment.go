package agent

import (
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// Env is the environment that an agent gives to a task whose file system is its image's.
func (a *Alloc) Env() map[string]string {
	c := a.config
	env := map[string]string{
		"NOMAD_ALLOC_DIR":      "/alloc",
		"NOMAD_TASK_DIR":       "/local",
		"NOMAD_SECRETS_DIR":    "/secrets",
		"NOMAD_ALLOC_ID":       c.ID,
		"NOMAD_SHORT_ALLOC_ID": c.ID[:min(8, len(c.ID))],
		"NOMAD_ALLOC_INDEX":    strconv.Itoa(c.Index),
		"NOMAD_ALLOC_NAME":     fmt.Sprintf("%s.%s[%d]", c.Job, c.Group, c.Index),
		"NOMAD_JOB_ID":         c.Job,
		"NOMAD_JOB_NAME":       c.Job,
		"NOMAD_GROUP_NAME":     c.Group,
		"NOMAD_TASK_NAME":      c.Task,
		"NOMAD_NAMESPACE":      c.Namespace,
		"NOMAD_REGION":         c.Region,
		"NOMAD_DC":             c.Datacenter,
		"NOMAD_CPU_LIMIT":      strconv.FormatInt(c.CPU, 10),
		"NOMAD_MEMORY_LIMIT":   strconv.FormatInt(c.MemoryMB, 10),
	}
	if c.MemoryMaxMB > 0 {
		env["NOMAD_MEMORY_MAX_LIMIT"] = strconv.FormatInt(c.MemoryMaxMB, 10)
	}
	for _, port := range c.Ports {
		maps.Copy(env, portEnv(port))
	}
	maps.Copy(env, c.Env)
	return env
}

// Variables are the names that the task's configuration may refer to, for [DecodeConfig]: the task's environment, and the node as
// the given attributes ("kernel.name") and meta values describe it.
func (a *Alloc) Variables(attributes, meta map[string]string) map[string]string {
	vars := a.Env()
	for name, value := range attributes {
		vars["attr."+name] = value
	}
	for name, value := range meta {
		vars["meta."+name] = value
	}
	vars["node.unique.id"] = a.config.NodeID
	vars["node.unique.name"] = a.config.NodeName
	vars["node.datacenter"] = a.config.Datacenter
	vars["node.region"] = a.config.Region
	return vars
}

// portEnv names a port to the task: PORT is the one to listen on, everything else is the node's.
func portEnv(port plugin.Port) map[string]string {
	inside := port.To
	if inside <= 0 {
		inside = port.Host
	}
	label := strings.Map(envChar, port.Label)
	host := strconv.Itoa(int(port.Host))
	address := net.JoinHostPort(port.HostIP, host)
	return map[string]string{
		"NOMAD_PORT_" + label:       strconv.Itoa(int(inside)),
		"NOMAD_ALLOC_PORT_" + label: strconv.Itoa(int(inside)),
		"NOMAD_IP_" + label:         port.HostIP,
		"NOMAD_ADDR_" + label:       address,
		"NOMAD_HOST_PORT_" + label:  host,
		"NOMAD_HOST_IP_" + label:    port.HostIP,
		"NOMAD_HOST_ADDR_" + label:  address,
	}
}

// envChar replaces what may not stand in the name of an environment variable.
func envChar(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
		return r
	default:
		return '_'
	}
}
