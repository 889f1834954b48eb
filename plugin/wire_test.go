package plugin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/base"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/hclspec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/structs"
)

// The tables below are the protocol as agents speak it. A field that moves is a plugin that no agent understands, and nothing else
// in this repository would notice: both of our sides would move together.

var wireFiles = []protoreflect.FileDescriptor{
	base.File_plugin_proto_base_base_proto,
	drivers.File_plugin_proto_drivers_drivers_proto,
	hclspec.File_plugin_proto_hclspec_hclspec_proto,
	structs.File_plugin_proto_structs_structs_proto,
}

// wireMessages is "full message name: field=number type, …" for each message with fields; ? after a number marks a oneof's member.
//
//nolint:misspell // "withold" is how the protocol spells it
const wireMessages = `
hashicorp.nomad.plugins.base.proto.PluginInfoResponse: type=1 enum PluginType, plugin_api_versions=2 rep string, plugin_version=3 string, name=4 string
hashicorp.nomad.plugins.base.proto.ConfigSchemaResponse: spec=1 Spec
hashicorp.nomad.plugins.base.proto.SetConfigRequest: msgpack_config=1 bytes, nomad_config=2 NomadConfig, plugin_api_version=3 string
hashicorp.nomad.plugins.base.proto.NomadConfig: driver=1 NomadDriverConfig
hashicorp.nomad.plugins.base.proto.NomadDriverConfig: ClientMaxPort=1 uint32, ClientMinPort=2 uint32, Topology=3 ClientTopology
hashicorp.nomad.plugins.base.proto.ClientTopology: node_ids=1 rep uint32, distances=2 ClientTopologySLIT, cores=3 rep ClientTopologyCore, override_total_compute=4 uint64, override_withold_compute=5 uint64
hashicorp.nomad.plugins.base.proto.ClientTopologySLIT: dimension=1 uint32, values=2 rep uint32
hashicorp.nomad.plugins.base.proto.ClientTopologyCore: socket_id=1 uint32, node_id=2 uint32, core_id=3 uint32, core_grade=4 enum CoreGrade, disable=5 bool, base_speed=6 uint64, max_speed=7 uint64, guess_speed=8 uint64
hashicorp.nomad.plugins.drivers.proto.TaskConfigSchemaResponse: spec=1 Spec
hashicorp.nomad.plugins.drivers.proto.CapabilitiesResponse: capabilities=1 DriverCapabilities
hashicorp.nomad.plugins.drivers.proto.DriverCapabilities: send_signals=1 bool, exec=2 bool, fs_isolation=3 enum FSIsolation, network_isolation_modes=4 rep enum NetworkIsolationMode, must_create_network=5 bool, mount_configs=6 enum MountConfigs, disable_log_collection=8 bool, dynamic_workload_users=9 bool
hashicorp.nomad.plugins.drivers.proto.FingerprintResponse: attributes=1 map<string,Attribute>, health=2 enum HealthState, health_description=3 string, err=4 string
hashicorp.nomad.plugins.drivers.proto.RecoverTaskRequest: task_id=1 string, handle=2 TaskHandle
hashicorp.nomad.plugins.drivers.proto.StartTaskRequest: task=1 TaskConfig
hashicorp.nomad.plugins.drivers.proto.StartTaskResponse: result=1 enum Result, driver_error_msg=2 string, handle=3 TaskHandle, network_override=4 NetworkOverride
hashicorp.nomad.plugins.drivers.proto.WaitTaskRequest: task_id=1 string
hashicorp.nomad.plugins.drivers.proto.WaitTaskResponse: result=1 ExitResult, err=2 string
hashicorp.nomad.plugins.drivers.proto.StopTaskRequest: task_id=1 string, timeout=2 Duration, signal=3 string
hashicorp.nomad.plugins.drivers.proto.DestroyTaskRequest: task_id=1 string, force=2 bool
hashicorp.nomad.plugins.drivers.proto.InspectTaskRequest: task_id=1 string
hashicorp.nomad.plugins.drivers.proto.InspectTaskResponse: task=1 TaskStatus, driver=2 TaskDriverStatus, network_override=3 NetworkOverride
hashicorp.nomad.plugins.drivers.proto.TaskDriverStatus: attributes=1 map<string,string>
hashicorp.nomad.plugins.drivers.proto.TaskStatsRequest: task_id=1 string, collection_interval=2 Duration
hashicorp.nomad.plugins.drivers.proto.TaskStatsResponse: stats=1 TaskStats
hashicorp.nomad.plugins.drivers.proto.SignalTaskRequest: task_id=1 string, signal=2 string
hashicorp.nomad.plugins.drivers.proto.ExecTaskRequest: task_id=1 string, command=2 rep string, timeout=3 Duration
hashicorp.nomad.plugins.drivers.proto.ExecTaskResponse: stdout=1 bytes, stderr=2 bytes, result=3 ExitResult
hashicorp.nomad.plugins.drivers.proto.ExecTaskStreamingIOOperation: data=1 bytes, close=2 bool
hashicorp.nomad.plugins.drivers.proto.ExecTaskStreamingRequest: setup=1 Setup, tty_size=2 TerminalSize, stdin=3 ExecTaskStreamingIOOperation
hashicorp.nomad.plugins.drivers.proto.ExecTaskStreamingRequest.Setup: task_id=1 string, command=2 rep string, tty=3 bool
hashicorp.nomad.plugins.drivers.proto.ExecTaskStreamingRequest.TerminalSize: height=1 int32, width=2 int32
hashicorp.nomad.plugins.drivers.proto.ExecTaskStreamingResponse: stdout=1 ExecTaskStreamingIOOperation, stderr=2 ExecTaskStreamingIOOperation, exited=3 bool, result=4 ExitResult
hashicorp.nomad.plugins.drivers.proto.CreateNetworkRequest: alloc_id=1 string, hostname=2 string
hashicorp.nomad.plugins.drivers.proto.CreateNetworkResponse: isolation_spec=1 NetworkIsolationSpec, created=2 bool
hashicorp.nomad.plugins.drivers.proto.DestroyNetworkRequest: alloc_id=1 string, isolation_spec=2 NetworkIsolationSpec
hashicorp.nomad.plugins.drivers.proto.NetworkIsolationSpec: mode=1 enum NetworkIsolationMode, path=2 string, labels=3 map<string,string>, hostsConfig=4 HostsConfig
hashicorp.nomad.plugins.drivers.proto.HostsConfig: hostname=1 string, address=2 string
hashicorp.nomad.plugins.drivers.proto.DNSConfig: servers=1 rep string, searches=2 rep string, options=3 rep string
hashicorp.nomad.plugins.drivers.proto.TaskConfig: id=1 string, name=2 string, msgpack_driver_config=3 bytes, env=4 map<string,string>, device_env=5 map<string,string>, resources=6 Resources, mounts=7 rep Mount, devices=8 rep Device, user=9 string, alloc_dir=10 string, stdout_path=11 string, stderr_path=12 string, task_group_name=13 string, job_name=14 string, alloc_id=15 string, network_isolation_spec=16 NetworkIsolationSpec, dns=17 DNSConfig, job_id=18 string, namespace=19 string, node_name=20 string, node_id=21 string, parent_job_id=22 string
hashicorp.nomad.plugins.drivers.proto.Resources: allocated_resources=1 AllocatedTaskResources, linux_resources=2 LinuxResources, ports=3 rep PortMapping
hashicorp.nomad.plugins.drivers.proto.AllocatedTaskResources: cpu=1 AllocatedCpuResources, memory=2 AllocatedMemoryResources, networks=5 rep NetworkResource
hashicorp.nomad.plugins.drivers.proto.AllocatedCpuResources: cpu_shares=1 int64
hashicorp.nomad.plugins.drivers.proto.AllocatedMemoryResources: memory_mb=2 int64, memory_max_mb=3 int64
hashicorp.nomad.plugins.drivers.proto.NetworkResource: device=1 string, cidr=2 string, ip=3 string, mbits=4 int32, reserved_ports=5 rep NetworkPort, dynamic_ports=6 rep NetworkPort
hashicorp.nomad.plugins.drivers.proto.NetworkPort: label=1 string, value=2 int32
hashicorp.nomad.plugins.drivers.proto.PortMapping: label=1 string, value=2 int32, to=3 int32, host_ip=4 string
hashicorp.nomad.plugins.drivers.proto.LinuxResources: cpu_period=1 int64, cpu_quota=2 int64, cpu_shares=3 int64, memory_limit_bytes=4 int64, oom_score_adj=5 int64, cpuset_cpus=6 string, PercentTicks=8 double, cpuset_cgroup=9 string
hashicorp.nomad.plugins.drivers.proto.Mount: task_path=1 string, host_path=2 string, readonly=3 bool, propagation_mode=4 string, selinux_label=5 string, request_name=6 string
hashicorp.nomad.plugins.drivers.proto.Device: task_path=1 string, host_path=2 string, cgroup_permissions=3 string
hashicorp.nomad.plugins.drivers.proto.TaskHandle: version=1 int32, config=2 TaskConfig, state=3 enum TaskState, driver_state=4 bytes
hashicorp.nomad.plugins.drivers.proto.NetworkOverride: port_map=1 map<string,int32>, addr=2 string, auto_advertise=3 bool
hashicorp.nomad.plugins.drivers.proto.ExitResult: exit_code=1 int32, signal=2 int32, oom_killed=3 bool
hashicorp.nomad.plugins.drivers.proto.TaskStatus: id=1 string, name=2 string, state=3 enum TaskState, started_at=4 Timestamp, completed_at=5 Timestamp, result=6 ExitResult
hashicorp.nomad.plugins.drivers.proto.TaskStats: id=1 string, timestamp=2 Timestamp, agg_resource_usage=3 TaskResourceUsage, resource_usage_by_pid=4 map<string,TaskResourceUsage>
hashicorp.nomad.plugins.drivers.proto.TaskResourceUsage: cpu=1 CPUUsage, memory=2 MemoryUsage
hashicorp.nomad.plugins.drivers.proto.CPUUsage: system_mode=1 double, user_mode=2 double, total_ticks=3 double, throttled_periods=4 uint64, throttled_time=5 uint64, percent=6 double, measured_fields=7 rep enum Fields
hashicorp.nomad.plugins.drivers.proto.MemoryUsage: rss=1 uint64, cache=2 uint64, max_usage=3 uint64, kernel_usage=4 uint64, kernel_max_usage=5 uint64, measured_fields=6 rep enum Fields, usage=7 uint64, swap=8 uint64
hashicorp.nomad.plugins.drivers.proto.DriverTaskEvent: task_id=1 string, alloc_id=2 string, task_name=3 string, timestamp=4 Timestamp, message=5 string, annotations=6 map<string,string>
hashicorp.nomad.plugins.shared.hclspec.Spec: object=1? Object, array=2? Array, Attr=3? Attr, block_value=4? Block, block_attrs=5? BlockAttrs, block_list=6? BlockList, block_set=7? BlockSet, block_map=8? BlockMap, default=9? Default, literal=10? Literal
hashicorp.nomad.plugins.shared.hclspec.Attr: name=1 string, type=2 string, required=3 bool
hashicorp.nomad.plugins.shared.hclspec.Block: name=1 string, required=2 bool, nested=3 Spec
hashicorp.nomad.plugins.shared.hclspec.BlockAttrs: name=1 string, type=2 string, required=3 bool
hashicorp.nomad.plugins.shared.hclspec.BlockList: name=1 string, min_items=2 uint64, max_items=3 uint64, nested=4 Spec
hashicorp.nomad.plugins.shared.hclspec.BlockSet: name=1 string, min_items=2 uint64, max_items=3 uint64, nested=4 Spec
hashicorp.nomad.plugins.shared.hclspec.BlockMap: name=1 string, labels=2 rep string, nested=3 Spec
hashicorp.nomad.plugins.shared.hclspec.Literal: value=1 string
hashicorp.nomad.plugins.shared.hclspec.Default: primary=1 Spec, default=2 Spec
hashicorp.nomad.plugins.shared.hclspec.Object: attributes=1 map<string,Spec>
hashicorp.nomad.plugins.shared.hclspec.Array: values=1 rep Spec
hashicorp.nomad.plugins.shared.structs.Attribute: float_val=1? double, int_val=2? int64, string_val=3? string, bool_val=4? bool, unit=5 string
hashicorp.nomad.plugins.shared.structs.RecoverableError: recoverable=1 bool
`

const wireEnums = `
hashicorp.nomad.plugins.base.proto.PluginType: UNKNOWN=0 DRIVER=2 DEVICE=3
hashicorp.nomad.plugins.base.proto.CoreGrade: Performance=0 Efficiency=1
hashicorp.nomad.plugins.drivers.proto.FingerprintResponse.HealthState: UNDETECTED=0 UNHEALTHY=1 HEALTHY=2
hashicorp.nomad.plugins.drivers.proto.StartTaskResponse.Result: SUCCESS=0 RETRY=1 FATAL=2
hashicorp.nomad.plugins.drivers.proto.DriverCapabilities.FSIsolation: NONE=0 CHROOT=1 IMAGE=2 UNVEIL=3
hashicorp.nomad.plugins.drivers.proto.DriverCapabilities.MountConfigs: UNKNOWN_MOUNTS=0 NO_MOUNTS=1
hashicorp.nomad.plugins.drivers.proto.NetworkIsolationSpec.NetworkIsolationMode: HOST=0 GROUP=1 TASK=2 NONE=3
hashicorp.nomad.plugins.drivers.proto.TaskState: UNKNOWN=0 RUNNING=1 EXITED=2
hashicorp.nomad.plugins.drivers.proto.CPUUsage.Fields: SYSTEM_MODE=0 USER_MODE=1 TOTAL_TICKS=2 THROTTLED_PERIODS=3 THROTTLED_TIME=4 PERCENT=5
hashicorp.nomad.plugins.drivers.proto.MemoryUsage.Fields: RSS=0 CACHE=1 MAX_USAGE=2 KERNEL_USAGE=3 KERNEL_MAX_USAGE=4 USAGE=5 SWAP=6
`

// wireMethods is "method client-stream server-stream request response" of both services.
const wireMethods = `
hashicorp.nomad.plugins.base.proto.BasePlugin.PluginInfo(PluginInfoRequest) PluginInfoResponse
hashicorp.nomad.plugins.base.proto.BasePlugin.ConfigSchema(ConfigSchemaRequest) ConfigSchemaResponse
hashicorp.nomad.plugins.base.proto.BasePlugin.SetConfig(SetConfigRequest) SetConfigResponse
hashicorp.nomad.plugins.drivers.proto.Driver.Init(InitRequest) InitResponse
hashicorp.nomad.plugins.drivers.proto.Driver.TaskConfigSchema(TaskConfigSchemaRequest) TaskConfigSchemaResponse
hashicorp.nomad.plugins.drivers.proto.Driver.Capabilities(CapabilitiesRequest) CapabilitiesResponse
hashicorp.nomad.plugins.drivers.proto.Driver.Fingerprint(FingerprintRequest) stream FingerprintResponse
hashicorp.nomad.plugins.drivers.proto.Driver.RecoverTask(RecoverTaskRequest) RecoverTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.StartTask(StartTaskRequest) StartTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.WaitTask(WaitTaskRequest) WaitTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.StopTask(StopTaskRequest) StopTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.DestroyTask(DestroyTaskRequest) DestroyTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.InspectTask(InspectTaskRequest) InspectTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.TaskStats(TaskStatsRequest) stream TaskStatsResponse
hashicorp.nomad.plugins.drivers.proto.Driver.TaskEvents(TaskEventsRequest) stream DriverTaskEvent
hashicorp.nomad.plugins.drivers.proto.Driver.SignalTask(SignalTaskRequest) SignalTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.ExecTask(ExecTaskRequest) ExecTaskResponse
hashicorp.nomad.plugins.drivers.proto.Driver.ExecTaskStreaming(stream ExecTaskStreamingRequest) stream ExecTaskStreamingResponse
hashicorp.nomad.plugins.drivers.proto.Driver.CreateNetwork(CreateNetworkRequest) CreateNetworkResponse
hashicorp.nomad.plugins.drivers.proto.Driver.DestroyNetwork(DestroyNetworkRequest) DestroyNetworkResponse
hashicorp.nomad.plugins.drivers.proto.Driver.Shutdown(ShutdownRequest) ShutdownResponse
`

func TestWireMessages(t *testing.T) {
	t.Parallel()
	var got []string
	eachMessage(func(m protoreflect.MessageDescriptor) {
		if m.Fields().Len() > 0 {
			got = append(got, messageLine(m))
		}
	})
	sameLines(t, wireMessages, got)
}

func TestWireEnums(t *testing.T) {
	t.Parallel()
	var got []string
	add := func(enums protoreflect.EnumDescriptors) {
		for i := range enums.Len() {
			got = append(got, enumLine(enums.Get(i)))
		}
	}
	for _, file := range wireFiles {
		add(file.Enums())
	}
	eachMessage(func(m protoreflect.MessageDescriptor) { add(m.Enums()) })
	sameLines(t, wireEnums, got)
}

func TestWireServices(t *testing.T) {
	t.Parallel()
	var got []string
	for _, file := range wireFiles {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				got = append(got, methodLine(methods.Get(j)))
			}
		}
	}
	sameLines(t, wireMethods, got)
}

func TestWireIsProto3(t *testing.T) {
	t.Parallel()
	for _, file := range wireFiles {
		test.EqOp(t, protoreflect.Proto3, file.Syntax(), test.Sprint(file.Path()))
	}
	// Row-major numbers travel packed, as proto3 has it.
	slit := base.File_plugin_proto_base_base_proto.Messages().ByName("ClientTopologySLIT")
	must.NotNil(t, slit)
	test.True(t, slit.Fields().ByName("values").IsPacked())
}

func eachMessage(visit func(protoreflect.MessageDescriptor)) {
	var walk func(protoreflect.MessageDescriptors)
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			if m := messages.Get(i); !m.IsMapEntry() {
				visit(m)
				walk(m.Messages())
			}
		}
	}
	for _, file := range wireFiles {
		walk(file.Messages())
	}
}

func messageLine(m protoreflect.MessageDescriptor) string {
	var fields []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		oneof := ""
		if f.ContainingOneof() != nil {
			oneof = "?"
		}
		fields = append(fields, fmt.Sprintf("%s=%d%s %s", f.Name(), f.Number(), oneof, wireType(f)))
	}
	return fmt.Sprintf("%s: %s", m.FullName(), strings.Join(fields, ", "))
}

func wireType(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return fmt.Sprintf("map<%s,%s>", wireType(f.MapKey()), wireType(f.MapValue()))
	}
	name := f.Kind().String()
	switch f.Kind() {
	case protoreflect.MessageKind:
		name = string(f.Message().Name())
	case protoreflect.EnumKind:
		name = "enum " + string(f.Enum().Name())
	default:
	}
	if f.IsList() {
		return "rep " + name
	}
	return name
}

func enumLine(e protoreflect.EnumDescriptor) string {
	var values []string
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		values = append(values, fmt.Sprintf("%s=%d", v.Name(), v.Number()))
	}
	return fmt.Sprintf("%s: %s", e.FullName(), strings.Join(values, " "))
}

func methodLine(m protoreflect.MethodDescriptor) string {
	request, response := string(m.Input().Name()), string(m.Output().Name())
	if m.IsStreamingClient() {
		request = "stream " + request
	}
	if m.IsStreamingServer() {
		response = "stream " + response
	}
	return fmt.Sprintf("%s(%s) %s", m.FullName(), request, response)
}

// sameLines compares without regard to order and names each line that differs.
func sameLines(t *testing.T, want string, got []string) {
	t.Helper()
	expected := strings.Split(strings.TrimSpace(want), "\n")
	must.SliceNotEmpty(t, got)
	for _, line := range expected {
		test.SliceContains(t, got, line, test.Sprint("the protocol has this, our files do not"))
	}
	for _, line := range got {
		test.SliceContains(t, expected, line, test.Sprint("our files have this, the protocol does not"))
	}
}
