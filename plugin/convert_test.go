package plugin

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// fill sets every field below v to something that is not its zero value and differs from its neighbours, so that a field that
// is forgotten or crossed in a conversion shows.
func fill(v reflect.Value, seed *int64) {
	*seed++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), seed)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), seed)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), seed)
		fill(v.Index(1), seed)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, seed)
		fill(value, seed)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprint("text", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*seed) + 0.5)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed % 200))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(*seed % 200)
	default:
		panic(fmt.Sprintf("fill: %s", v.Type()))
	}
}

func filled[T any]() T {
	var out T
	var seed int64
	fill(reflect.ValueOf(&out).Elem(), &seed)
	return out
}

// travel encodes and decodes a message as the wire does.
func travel[M proto.Message](t *testing.T, message M) M {
	t.Helper()
	bytes, err := proto.Marshal(message)
	must.NoError(t, err)
	out := message.ProtoReflect().New().Interface().(M)
	must.NoError(t, proto.Unmarshal(bytes, out))
	return out
}

func TestConversions_loseNothing(t *testing.T) {
	t.Parallel()
	task := filled[TaskConfig]()
	// A port of a task's own network has a label and a number only.
	for i := range task.Resources.Networks {
		for _, ports := range [][]Port{task.Resources.Networks[i].ReservedPorts, task.Resources.Networks[i].DynamicPorts} {
			for j := range ports {
				ports[j].To, ports[j].HostIP = 0, ""
			}
		}
	}
	test.Eq(t, &task, taskFromWire(travel(t, taskToWire(&task))))

	handle := TaskHandle{Version: 3, Config: &task, State: TaskExited, DriverState: []byte("state")}
	test.Eq(t, &handle, handleFromWire(travel(t, handleToWire(&handle))))

	client := filled[ClientConfig]()
	test.Eq(t, &client, clientFromWire(travel(t, clientToWire(&client))))

	capabilities := filled[Capabilities]()
	test.Eq(t, capabilities, capabilitiesFromWire(travel(t, capabilitiesToWire(capabilities))))

	network := filled[NetworkIsolation]()
	test.Eq(t, &network, networkFromWire(travel(t, networkToWire(&network))))

	own := filled[DriverNetwork]()
	test.Eq(t, &own, driverNetworkFromWire(travel(t, driverNetworkToWire(&own))))

	exit := ExitResult{ExitCode: -3, Signal: 9, OOMKilled: true}
	test.Eq(t, exit, exitFromWire(travel(t, exitToWire(exit))))

	now := time.Unix(1700000000, 123456789).UTC()
	status := TaskStatus{ID: "i", Name: "n", State: TaskExited, StartedAt: now, CompletedAt: now.Add(time.Second), Exit: exit, Attributes: map[string]string{"a": "b"}}
	test.Eq(t, &status, statusFromWire(travel(t, statusToWire(&status))))

	event := TaskEvent{TaskID: "t", AllocID: "a", TaskName: "n", Time: now, Message: "m", Annotations: map[string]string{"k": "v"}}
	test.Eq(t, event, eventFromWire(travel(t, eventToWire(event))))

	usage := Usage{
		CPU: &CPUUsage{
			SystemMode: 1, UserMode: 2, TotalTicks: 3, Percent: 4, ThrottledPeriods: 5, ThrottledTime: 6,
			Measured: []string{"System Mode", "User Mode", "Total Ticks", "Throttled Periods", "Throttled Time", "Percent"},
		},
		Memory: &MemoryUsage{
			RSS: 1, Cache: 2, MaxUsage: 3, KernelUsage: 4, KernelMaxUsage: 5, Usage: 6, Swap: 7,
			Measured: []string{"RSS", "Cache", "Max Usage", "Kernel Usage", "Kernel Max Usage", "Usage", "Swap"},
		},
	}
	sample := TaskUsage{Time: now, Usage: usage, PerPID: map[string]Usage{"7": usage}}
	test.Eq(t, sample, usageFromWire(travel(t, usageToWire("t", sample)).GetStats()))

	fingerprint := Fingerprint{
		Attributes: map[string]any{"s": "x", "b": true, "i": int64(-4), "f": 0.5}, Health: Healthy, Description: "fine",
	}
	wire, err := fingerprintToWire(fingerprint)
	must.NoError(t, err)
	test.Eq(t, fingerprint, fingerprintFromWire(travel(t, wire)))
}

func TestConversions_ofNothing(t *testing.T) {
	t.Parallel()
	test.Nil(t, taskFromWire(taskToWire(nil)))
	test.Nil(t, clientFromWire(clientToWire(nil)))
	test.Nil(t, networkFromWire(networkToWire(nil)))
	test.Nil(t, driverNetworkFromWire(driverNetworkToWire(nil)))
	test.Nil(t, topologyFromWire(topologyToWire(nil)))
	empty := &TaskConfig{}
	test.Eq(t, empty, taskFromWire(travel(t, taskToWire(empty))))
	// What an agent sends nothing of must be readable all the same.
	test.Eq(t, &TaskConfig{}, taskFromWire(&drivers.TaskConfig{}))
}

// Agents dereference these without looking; a nil here takes the whole agent down.
func TestConversions_leaveNoNilThatPanicsAnAgent(t *testing.T) {
	t.Parallel()
	stats := usageToWire("t", TaskUsage{PerPID: map[string]Usage{"1": {}}}).GetStats()
	must.NotNil(t, stats)
	must.NotNil(t, stats.GetTimestamp())
	for _, usage := range []*drivers.TaskResourceUsage{stats.GetAggResourceUsage(), stats.GetResourceUsageByPid()["1"]} {
		must.NotNil(t, usage)
		must.NotNil(t, usage.GetCpu())
		must.NotNil(t, usage.GetMemory())
	}
	inspected := statusToWire(&TaskStatus{})
	must.NotNil(t, inspected.GetTask())
	must.NotNil(t, inspected.GetDriver())
	must.NotNil(t, inspected.GetTask().GetResult())
	must.NotNil(t, inspected.GetTask().GetStartedAt())
	must.NotNil(t, inspected.GetTask().GetCompletedAt())
	must.NoError(t, inspected.GetTask().GetStartedAt().CheckValid())
	must.NotNil(t, eventToWire(TaskEvent{}).GetTimestamp())
	must.NotNil(t, exitToWire(ExitResult{}))
	must.NotNil(t, capabilitiesToWire(Capabilities{}))
}

func TestFingerprint_refusesWhatIsNoAttribute(t *testing.T) {
	t.Parallel()
	_, err := fingerprintToWire(Fingerprint{Attributes: map[string]any{"driver.x.list": []string{"a"}}})
	must.EqError(t, err, `fingerprint attribute "driver.x.list": a []string is no attribute value`)
}

func TestConversions_makeTextFitToSend(t *testing.T) {
	t.Parallel()
	event := eventToWire(TaskEvent{Message: "pulling \xff", Annotations: map[string]string{"k\xfe": "v\xff"}})
	test.Eq(t, "pulling \uFFFD", travel(t, event).GetMessage())
	fingerprint, err := fingerprintToWire(Fingerprint{Description: "\xff", Err: errors.New("\xff"), Attributes: map[string]any{"a": "\xff"}})
	must.NoError(t, err)
	test.Eq(t, "\uFFFD", travel(t, fingerprint).GetErr())
	status := statusToWire(&TaskStatus{Attributes: map[string]string{"a": "\xff"}})
	test.Eq(t, "\uFFFD", travel(t, status).GetDriver().GetAttributes()["a"])
}

// The Go types number their constants as the protocol does.
func TestConstants_areTheProtocols(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		ours   int32
		theirs protoreflect.EnumNumber
	}{
		{"fs isolation none", int32(FSIsolationNone), drivers.DriverCapabilities_NONE.Number()},
		{"fs isolation chroot", int32(FSIsolationChroot), drivers.DriverCapabilities_CHROOT.Number()},
		{"fs isolation image", int32(FSIsolationImage), drivers.DriverCapabilities_IMAGE.Number()},
		{"fs isolation unveil", int32(FSIsolationUnveil), drivers.DriverCapabilities_UNVEIL.Number()},
		{"network host", int32(NetworkHost), drivers.NetworkIsolationSpec_HOST.Number()},
		{"network group", int32(NetworkGroup), drivers.NetworkIsolationSpec_GROUP.Number()},
		{"network task", int32(NetworkTask), drivers.NetworkIsolationSpec_TASK.Number()},
		{"network none", int32(NetworkNone), drivers.NetworkIsolationSpec_NONE.Number()},
		{"undetected", int32(Undetected), drivers.FingerprintResponse_UNDETECTED.Number()},
		{"unhealthy", int32(Unhealthy), drivers.FingerprintResponse_UNHEALTHY.Number()},
		{"healthy", int32(Healthy), drivers.FingerprintResponse_HEALTHY.Number()},
		{"task unknown", int32(TaskUnknown), drivers.TaskState_UNKNOWN.Number()},
		{"task running", int32(TaskRunning), drivers.TaskState_RUNNING.Number()},
		{"task exited", int32(TaskExited), drivers.TaskState_EXITED.Number()},
	}
	for _, tc := range tests {
		test.Eq(t, int32(tc.theirs), tc.ours, test.Sprint(tc.name))
	}
}
