package plugin

import (
	"os"

	goplugin "github.com/hashicorp/go-plugin"
)

// Handshake is what an agent and its plugins recognise each other by: Nomad's own cookie and the second version of its
// plugin protocol.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  2,
	MagicCookieKey:   "NOMAD_PLUGIN_MAGIC_COOKIE",
	MagicCookieValue: "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
}

// The services of a driver plugin, as both sides of go-plugin name them.
const (
	BaseService   = "base"
	DriverService = "driver"
)

// StartedByAgent says whether this process was started as a plugin, not by a person.
func StartedByAgent() bool {
	return os.Getenv(Handshake.MagicCookieKey) == Handshake.MagicCookieValue
}
