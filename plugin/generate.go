package plugin

//go:generate protoc -I .. --plugin=protoc-gen-go=../.build/bin/protoc-gen-go --plugin=protoc-gen-go-grpc=../.build/bin/protoc-gen-go-grpc --go_out=.. --go_opt=module=github.com/nomad-promptflow/nomad-promptflow --go-grpc_out=.. --go-grpc_opt=module=github.com/nomad-promptflow/nomad-promptflow plugin/proto/base/base.proto plugin/proto/drivers/drivers.proto plugin/proto/hclspec/hclspec.proto plugin/proto/structs/structs.proto
