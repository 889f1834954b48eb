// Package api holds the HTTP types that runtime, gateway and CLI share, and the Go client for both servers.
//
// It imports nothing else of ours. Errors of every server are [Error], prompt flow's shape; bundles are packed, named
// and unpacked by the package api/bundle.
package api
