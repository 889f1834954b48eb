// Package environment makes and names what runtimes are made from: OCI images with Python, prompt flow and the runtime server.
//
// It builds the base image, the environment called "default" ([BuildBase]), and says which image an environment's name stands
// for ([ImageName]). It never starts a container and never speaks to containerd: what it makes lands in an OCI layout, and the
// driver takes it from there.
package environment
