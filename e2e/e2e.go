// Package e2e holds the tests of the whole system: the built binary, real containers from the real base image, and, when a nomad binary
// is at hand (NOMAD_BIN, or on PATH), a real Nomad agent; without one the same path is walked through the agent's side of the
// plugin protocol, which dev mode uses. The tests print which it was.
package e2e
