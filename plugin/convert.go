package plugin

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/base"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/structs"
)

// The functions here come in pairs: xToWire and xFromWire. A message that an agent dereferences without looking is never nil.

func clientToWire(c *ClientConfig) *base.NomadConfig {
	if c == nil {
		return nil
	}
	return &base.NomadConfig{Driver: &base.NomadDriverConfig{
		ClientMinPort: c.MinPort,
		ClientMaxPort: c.MaxPort,
		Topology:      topologyToWire(c.Topology),
	}}
}

func clientFromWire(c *base.NomadConfig) *ClientConfig {
	if c.GetDriver() == nil {
		return nil
	}
	return &ClientConfig{
		MinPort:  c.GetDriver().GetClientMinPort(),
		MaxPort:  c.GetDriver().GetClientMaxPort(),
		Topology: topologyFromWire(c.GetDriver().GetTopology()),
	}
}

func topologyToWire(t *Topology) *base.ClientTopology {
	if t == nil {
		return nil
	}
	out := &base.ClientTopology{
		NodeIds:                t.NodeIDs,
		OverrideTotalCompute:   t.OverrideTotalCompute,
		OverrideWitholdCompute: t.OverrideWitholdCompute,
	}
	for _, c := range t.Cores {
		core := &base.ClientTopologyCore{
			SocketId: c.SocketID, NodeId: c.NodeID, CoreId: c.CoreID, Disable: c.Disable,
			BaseSpeed: c.BaseSpeed, MaxSpeed: c.MaxSpeed, GuessSpeed: c.GuessSpeed,
		}
		if c.Efficiency {
			core.CoreGrade = base.CoreGrade_Efficiency
		}
		out.Cores = append(out.Cores, core)
	}
	return out
}

func topologyFromWire(t *base.ClientTopology) *Topology {
	if t == nil {
		return nil
	}
	out := &Topology{
		NodeIDs:                t.GetNodeIds(),
		OverrideTotalCompute:   t.GetOverrideTotalCompute(),
		OverrideWitholdCompute: t.GetOverrideWitholdCompute(),
	}
	for _, c := range t.GetCores() {
		out.Cores = append(out.Cores, Core{
			SocketID: c.GetSocketId(), NodeID: c.GetNodeId(), CoreID: c.GetCoreId(), Disable: c.GetDisable(),
			Efficiency: c.GetCoreGrade() == base.CoreGrade_Efficiency,
			BaseSpeed:  c.GetBaseSpeed(), MaxSpeed: c.GetMaxSpeed(), GuessSpeed: c.GetGuessSpeed(),
		})
	}
	return out
}

func capabilitiesToWire(c Capabilities) *drivers.DriverCapabilities {
	out := &drivers.DriverCapabilities{
		SendSignals:          c.SendSignals,
		Exec:                 c.Exec,
		FsIsolation:          drivers.DriverCapabilities_FSIsolation(c.FSIsolation),
		MustCreateNetwork:    c.MustCreateNetwork,
		DisableLogCollection: c.DisableLogCollection,
		DynamicWorkloadUsers: c.DynamicWorkloadUsers,
	}
	if c.NoMounts {
		out.MountConfigs = drivers.DriverCapabilities_NO_MOUNTS
	}
	for _, mode := range c.NetworkModes {
		out.NetworkIsolationModes = append(out.NetworkIsolationModes, drivers.NetworkIsolationSpec_NetworkIsolationMode(mode))
	}
	return out
}

func capabilitiesFromWire(c *drivers.DriverCapabilities) Capabilities {
	out := Capabilities{
		SendSignals:          c.GetSendSignals(),
		Exec:                 c.GetExec(),
		FSIsolation:          FSIsolation(c.GetFsIsolation()),
		MustCreateNetwork:    c.GetMustCreateNetwork(),
		NoMounts:             c.GetMountConfigs() == drivers.DriverCapabilities_NO_MOUNTS,
		DisableLogCollection: c.GetDisableLogCollection(),
		DynamicWorkloadUsers: c.GetDynamicWorkloadUsers(),
	}
	for _, mode := range c.GetNetworkIsolationModes() {
		out.NetworkModes = append(out.NetworkModes, NetworkMode(mode))
	}
	return out
}

func fingerprintToWire(f Fingerprint) (*drivers.FingerprintResponse, error) {
	out := &drivers.FingerprintResponse{
		Attributes:        make(map[string]*structs.Attribute, len(f.Attributes)),
		Health:            drivers.FingerprintResponse_HealthState(f.Health),
		HealthDescription: valid(f.Description),
	}
	for name, value := range f.Attributes {
		attribute, err := attributeToWire(value)
		if err != nil {
			return nil, fmt.Errorf("fingerprint attribute %q: %w", name, err)
		}
		out.Attributes[name] = attribute
	}
	if f.Err != nil {
		out.Err = valid(f.Err.Error())
	}
	return out, nil
}

// valid makes text fit to send: protobuf refuses a whole message for one byte that is not UTF-8, and texts quote what images and
// processes say.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func validAll(texts map[string]string) map[string]string {
	if texts == nil {
		return nil
	}
	out := make(map[string]string, len(texts))
	for name, text := range texts {
		out[valid(name)] = valid(text)
	}
	return out
}

func attributeToWire(value any) (*structs.Attribute, error) {
	switch v := value.(type) {
	case string:
		return &structs.Attribute{Value: &structs.Attribute_StringVal{StringVal: valid(v)}}, nil
	case bool:
		return &structs.Attribute{Value: &structs.Attribute_BoolVal{BoolVal: v}}, nil
	case int64:
		return &structs.Attribute{Value: &structs.Attribute_IntVal{IntVal: v}}, nil
	case int:
		return &structs.Attribute{Value: &structs.Attribute_IntVal{IntVal: int64(v)}}, nil
	case float64:
		return &structs.Attribute{Value: &structs.Attribute_FloatVal{FloatVal: v}}, nil
	default:
		return nil, fmt.Errorf("a %T is no attribute value", value)
	}
}

func fingerprintFromWire(f *drivers.FingerprintResponse) Fingerprint {
	out := Fingerprint{
		Attributes:  make(map[string]any, len(f.GetAttributes())),
		Health:      Health(f.GetHealth()),
		Description: f.GetHealthDescription(),
	}
	for name, attribute := range f.GetAttributes() {
		switch v := attribute.GetValue().(type) {
		case *structs.Attribute_StringVal:
			out.Attributes[name] = v.StringVal
		case *structs.Attribute_BoolVal:
			out.Attributes[name] = v.BoolVal
		case *structs.Attribute_IntVal:
			out.Attributes[name] = v.IntVal
		case *structs.Attribute_FloatVal:
			out.Attributes[name] = v.FloatVal
		}
	}
	if f.GetErr() != "" {
		out.Err = errors.New(f.GetErr())
	}
	return out
}

func eventToWire(e TaskEvent) *drivers.DriverTaskEvent {
	return &drivers.DriverTaskEvent{
		TaskId: e.TaskID, AllocId: e.AllocID, TaskName: e.TaskName,
		Timestamp: timestamp(e.Time), Message: valid(e.Message), Annotations: validAll(e.Annotations),
	}
}

func eventFromWire(e *drivers.DriverTaskEvent) TaskEvent {
	return TaskEvent{
		TaskID: e.GetTaskId(), AllocID: e.GetAllocId(), TaskName: e.GetTaskName(),
		Time: e.GetTimestamp().AsTime(), Message: e.GetMessage(), Annotations: e.GetAnnotations(),
	}
}

func taskToWire(t *TaskConfig) *drivers.TaskConfig {
	if t == nil {
		return nil
	}
	out := &drivers.TaskConfig{
		Id: t.ID, Name: t.Name, MsgpackDriverConfig: t.DriverConfig, Env: t.Env, DeviceEnv: t.DeviceEnv,
		Resources: resourcesToWire(t.Resources), User: t.User, AllocDir: t.AllocDir,
		StdoutPath: t.StdoutPath, StderrPath: t.StderrPath, TaskGroupName: t.GroupName, JobName: t.JobName,
		AllocId: t.AllocID, NetworkIsolationSpec: networkToWire(t.Network), JobId: t.JobID, Namespace: t.Namespace,
		NodeName: t.NodeName, NodeId: t.NodeID,
	}
	if t.DNS != nil {
		out.Dns = &drivers.DNSConfig{Servers: t.DNS.Servers, Searches: t.DNS.Searches, Options: t.DNS.Options}
	}
	for _, m := range t.Mounts {
		out.Mounts = append(out.Mounts, &drivers.Mount{
			TaskPath: m.TaskPath, HostPath: m.HostPath, Readonly: m.ReadOnly, PropagationMode: m.Propagation,
			SelinuxLabel: m.SELinuxLabel, RequestName: m.RequestName,
		})
	}
	for _, d := range t.Devices {
		out.Devices = append(out.Devices, &drivers.Device{TaskPath: d.TaskPath, HostPath: d.HostPath, CgroupPermissions: d.CgroupPermissions})
	}
	return out
}

func taskFromWire(t *drivers.TaskConfig) *TaskConfig {
	if t == nil {
		return nil
	}
	out := &TaskConfig{
		ID: t.GetId(), Name: t.GetName(), DriverConfig: t.GetMsgpackDriverConfig(), Env: t.GetEnv(), DeviceEnv: t.GetDeviceEnv(),
		Resources: resourcesFromWire(t.GetResources()), User: t.GetUser(), AllocDir: t.GetAllocDir(),
		StdoutPath: t.GetStdoutPath(), StderrPath: t.GetStderrPath(), GroupName: t.GetTaskGroupName(), JobName: t.GetJobName(),
		AllocID: t.GetAllocId(), Network: networkFromWire(t.GetNetworkIsolationSpec()), JobID: t.GetJobId(), Namespace: t.GetNamespace(),
		NodeName: t.GetNodeName(), NodeID: t.GetNodeId(),
	}
	if dns := t.GetDns(); dns != nil {
		out.DNS = &DNS{Servers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()}
	}
	for _, m := range t.GetMounts() {
		out.Mounts = append(out.Mounts, Mount{
			TaskPath: m.GetTaskPath(), HostPath: m.GetHostPath(), ReadOnly: m.GetReadonly(), Propagation: m.GetPropagationMode(),
			SELinuxLabel: m.GetSelinuxLabel(), RequestName: m.GetRequestName(),
		})
	}
	for _, d := range t.GetDevices() {
		out.Devices = append(out.Devices, Device{TaskPath: d.GetTaskPath(), HostPath: d.GetHostPath(), CgroupPermissions: d.GetCgroupPermissions()})
	}
	return out
}

func resourcesToWire(r Resources) *drivers.Resources {
	out := &drivers.Resources{AllocatedResources: &drivers.AllocatedTaskResources{
		Cpu:    &drivers.AllocatedCpuResources{CpuShares: r.CPUShares},
		Memory: &drivers.AllocatedMemoryResources{MemoryMb: r.MemoryMB, MemoryMaxMb: r.MemoryMaxMB},
	}}
	for _, n := range r.Networks {
		out.AllocatedResources.Networks = append(out.AllocatedResources.Networks, &drivers.NetworkResource{
			Device: n.Device, Cidr: n.CIDR, Ip: n.IP, Mbits: n.MBits,
			ReservedPorts: taskPortsToWire(n.ReservedPorts), DynamicPorts: taskPortsToWire(n.DynamicPorts),
		})
	}
	if l := r.Linux; l != nil {
		out.LinuxResources = &drivers.LinuxResources{
			CpuPeriod: l.CPUPeriod, CpuQuota: l.CPUQuota, CpuShares: l.CPUShares, MemoryLimitBytes: l.MemoryLimitBytes,
			OomScoreAdj: l.OOMScoreAdj, CpusetCpus: l.CpusetCPUs, PercentTicks: l.PercentTicks, CpusetCgroup: l.CgroupPath,
		}
	}
	for _, p := range r.Ports {
		out.Ports = append(out.Ports, &drivers.PortMapping{Label: p.Label, Value: p.Host, To: p.To, HostIp: p.HostIP})
	}
	return out
}

func resourcesFromWire(r *drivers.Resources) Resources {
	allocated := r.GetAllocatedResources()
	out := Resources{
		CPUShares:   allocated.GetCpu().GetCpuShares(),
		MemoryMB:    allocated.GetMemory().GetMemoryMb(),
		MemoryMaxMB: allocated.GetMemory().GetMemoryMaxMb(),
	}
	for _, n := range allocated.GetNetworks() {
		out.Networks = append(out.Networks, NetworkResource{
			Device: n.GetDevice(), CIDR: n.GetCidr(), IP: n.GetIp(), MBits: n.GetMbits(),
			ReservedPorts: taskPortsFromWire(n.GetReservedPorts()), DynamicPorts: taskPortsFromWire(n.GetDynamicPorts()),
		})
	}
	if l := r.GetLinuxResources(); l != nil {
		out.Linux = &LinuxResources{
			CPUPeriod: l.GetCpuPeriod(), CPUQuota: l.GetCpuQuota(), CPUShares: l.GetCpuShares(), MemoryLimitBytes: l.GetMemoryLimitBytes(),
			OOMScoreAdj: l.GetOomScoreAdj(), CpusetCPUs: l.GetCpusetCpus(), PercentTicks: l.GetPercentTicks(), CgroupPath: l.GetCpusetCgroup(),
		}
	}
	for _, p := range r.GetPorts() {
		out.Ports = append(out.Ports, Port{Label: p.GetLabel(), Host: p.GetValue(), To: p.GetTo(), HostIP: p.GetHostIp()})
	}
	return out
}

func taskPortsToWire(ports []Port) []*drivers.NetworkPort {
	var out []*drivers.NetworkPort
	for _, p := range ports {
		out = append(out, &drivers.NetworkPort{Label: p.Label, Value: p.Host})
	}
	return out
}

func taskPortsFromWire(ports []*drivers.NetworkPort) []Port {
	var out []Port
	for _, p := range ports {
		out = append(out, Port{Label: p.GetLabel(), Host: p.GetValue()})
	}
	return out
}

func networkToWire(n *NetworkIsolation) *drivers.NetworkIsolationSpec {
	if n == nil {
		return nil
	}
	out := &drivers.NetworkIsolationSpec{
		Mode: drivers.NetworkIsolationSpec_NetworkIsolationMode(n.Mode), Path: n.Path, Labels: n.Labels,
	}
	if n.Hosts != nil {
		out.HostsConfig = &drivers.HostsConfig{Hostname: n.Hosts.Hostname, Address: n.Hosts.Address}
	}
	return out
}

func networkFromWire(n *drivers.NetworkIsolationSpec) *NetworkIsolation {
	if n == nil {
		return nil
	}
	out := &NetworkIsolation{Mode: NetworkMode(n.GetMode()), Path: n.GetPath(), Labels: n.GetLabels()}
	if n.GetHostsConfig() != nil {
		out.Hosts = &HostsConfig{Hostname: n.GetHostsConfig().GetHostname(), Address: n.GetHostsConfig().GetAddress()}
	}
	return out
}

func driverNetworkToWire(n *DriverNetwork) *drivers.NetworkOverride {
	if n == nil {
		return nil
	}
	return &drivers.NetworkOverride{PortMap: n.PortMap, Addr: n.IP, AutoAdvertise: n.AutoAdvertise}
}

func driverNetworkFromWire(n *drivers.NetworkOverride) *DriverNetwork {
	if n == nil {
		return nil
	}
	return &DriverNetwork{PortMap: n.GetPortMap(), IP: n.GetAddr(), AutoAdvertise: n.GetAutoAdvertise()}
}

// handleVersion is the version of every handle made here; the protocol reserves 0.
const handleVersion = 1

func handleToWire(h *TaskHandle) *drivers.TaskHandle {
	return &drivers.TaskHandle{
		Version: h.Version, Config: taskToWire(h.Config), State: drivers.TaskState(h.State), DriverState: h.DriverState,
	}
}

func handleFromWire(h *drivers.TaskHandle) *TaskHandle {
	return &TaskHandle{
		Version: h.GetVersion(), Config: taskFromWire(h.GetConfig()), State: TaskState(h.GetState()), DriverState: h.GetDriverState(),
	}
}

func exitToWire(e ExitResult) *drivers.ExitResult {
	return &drivers.ExitResult{ExitCode: int32(e.ExitCode), Signal: int32(e.Signal), OomKilled: e.OOMKilled}
}

func exitFromWire(e *drivers.ExitResult) ExitResult {
	return ExitResult{ExitCode: int(e.GetExitCode()), Signal: int(e.GetSignal()), OOMKilled: e.GetOomKilled()}
}

func statusToWire(s *TaskStatus) *drivers.InspectTaskResponse {
	return &drivers.InspectTaskResponse{
		Task: &drivers.TaskStatus{
			Id: s.ID, Name: s.Name, State: drivers.TaskState(s.State),
			StartedAt: timestamp(s.StartedAt), CompletedAt: timestamp(s.CompletedAt), Result: exitToWire(s.Exit),
		},
		Driver: &drivers.TaskDriverStatus{Attributes: validAll(s.Attributes)},
	}
}

func statusFromWire(r *drivers.InspectTaskResponse) *TaskStatus {
	s := r.GetTask()
	return &TaskStatus{
		ID: s.GetId(), Name: s.GetName(), State: TaskState(s.GetState()), StartedAt: s.GetStartedAt().AsTime(),
		CompletedAt: s.GetCompletedAt().AsTime(), Exit: exitFromWire(s.GetResult()), Attributes: r.GetDriver().GetAttributes(),
	}
}

// timestamp sends the zero time as the epoch: an agent takes a missing timestamp, or one before year 1, for an error.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return &timestamppb.Timestamp{}
	}
	return timestamppb.New(t)
}

func usageToWire(id string, u TaskUsage) *drivers.TaskStatsResponse {
	stats := &drivers.TaskStats{
		Id: id, Timestamp: timestamp(u.Time), AggResourceUsage: resourceUsageToWire(u.Usage),
		ResourceUsageByPid: make(map[string]*drivers.TaskResourceUsage, len(u.PerPID)),
	}
	for pid, usage := range u.PerPID {
		stats.ResourceUsageByPid[pid] = resourceUsageToWire(usage)
	}
	return &drivers.TaskStatsResponse{Stats: stats}
}

func usageFromWire(s *drivers.TaskStats) TaskUsage {
	out := TaskUsage{Time: s.GetTimestamp().AsTime(), Usage: resourceUsageFromWire(s.GetAggResourceUsage())}
	if len(s.GetResourceUsageByPid()) > 0 {
		out.PerPID = make(map[string]Usage, len(s.GetResourceUsageByPid()))
	}
	for pid, usage := range s.GetResourceUsageByPid() {
		out.PerPID[pid] = resourceUsageFromWire(usage)
	}
	return out
}

// cpuFields and memoryFields name the protocol's measured fields as agents print them.
var (
	cpuFields = map[string]drivers.CPUUsage_Fields{
		"System Mode": drivers.CPUUsage_SYSTEM_MODE, "User Mode": drivers.CPUUsage_USER_MODE,
		"Total Ticks": drivers.CPUUsage_TOTAL_TICKS, "Throttled Periods": drivers.CPUUsage_THROTTLED_PERIODS,
		"Throttled Time": drivers.CPUUsage_THROTTLED_TIME, "Percent": drivers.CPUUsage_PERCENT,
	}
	memoryFields = map[string]drivers.MemoryUsage_Fields{
		"RSS": drivers.MemoryUsage_RSS, "Cache": drivers.MemoryUsage_CACHE, "Max Usage": drivers.MemoryUsage_MAX_USAGE,
		"Kernel Usage": drivers.MemoryUsage_KERNEL_USAGE, "Kernel Max Usage": drivers.MemoryUsage_KERNEL_MAX_USAGE,
		"Usage": drivers.MemoryUsage_USAGE, "Swap": drivers.MemoryUsage_SWAP,
	}
)

func resourceUsageToWire(u Usage) *drivers.TaskResourceUsage {
	out := &drivers.TaskResourceUsage{Cpu: &drivers.CPUUsage{}, Memory: &drivers.MemoryUsage{}}
	if c := u.CPU; c != nil {
		out.Cpu = &drivers.CPUUsage{
			SystemMode: c.SystemMode, UserMode: c.UserMode, TotalTicks: c.TotalTicks, Percent: c.Percent,
			ThrottledPeriods: c.ThrottledPeriods, ThrottledTime: c.ThrottledTime,
		}
		for _, name := range c.Measured {
			if field, ok := cpuFields[name]; ok {
				out.Cpu.MeasuredFields = append(out.Cpu.MeasuredFields, field)
			}
		}
	}
	if m := u.Memory; m != nil {
		out.Memory = &drivers.MemoryUsage{
			Rss: m.RSS, Cache: m.Cache, MaxUsage: m.MaxUsage, KernelUsage: m.KernelUsage,
			KernelMaxUsage: m.KernelMaxUsage, Usage: m.Usage, Swap: m.Swap,
		}
		for _, name := range m.Measured {
			if field, ok := memoryFields[name]; ok {
				out.Memory.MeasuredFields = append(out.Memory.MeasuredFields, field)
			}
		}
	}
	return out
}

func resourceUsageFromWire(u *drivers.TaskResourceUsage) Usage {
	out := Usage{}
	if c := u.GetCpu(); c != nil {
		out.CPU = &CPUUsage{
			SystemMode: c.GetSystemMode(), UserMode: c.GetUserMode(), TotalTicks: c.GetTotalTicks(), Percent: c.GetPercent(),
			ThrottledPeriods: c.GetThrottledPeriods(), ThrottledTime: c.GetThrottledTime(),
		}
		for _, field := range c.GetMeasuredFields() {
			out.CPU.Measured = append(out.CPU.Measured, fieldName(cpuFields, field))
		}
	}
	if m := u.GetMemory(); m != nil {
		out.Memory = &MemoryUsage{
			RSS: m.GetRss(), Cache: m.GetCache(), MaxUsage: m.GetMaxUsage(), KernelUsage: m.GetKernelUsage(),
			KernelMaxUsage: m.GetKernelMaxUsage(), Usage: m.GetUsage(), Swap: m.GetSwap(),
		}
		for _, field := range m.GetMeasuredFields() {
			out.Memory.Measured = append(out.Memory.Measured, fieldName(memoryFields, field))
		}
	}
	return out
}

func fieldName[F comparable](names map[string]F, field F) string {
	for name, f := range names {
		if f == field {
			return name
		}
	}
	return ""
}
