package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// driverServer answers the driver service: it converts, and leaves every decision to the driver.
type driverServer struct {
	drivers.UnimplementedDriverServer
	driver Driver
	logger hclog.Logger
}

func (s *driverServer) Init(ctx context.Context, _ *drivers.InitRequest) (*drivers.InitResponse, error) {
	return &drivers.InitResponse{}, toStatus(s.driver.Init(ctx))
}

func (s *driverServer) Shutdown(ctx context.Context, _ *drivers.ShutdownRequest) (*drivers.ShutdownResponse, error) {
	return &drivers.ShutdownResponse{}, toStatus(s.driver.Shutdown(ctx))
}

func (s *driverServer) TaskConfigSchema(context.Context, *drivers.TaskConfigSchemaRequest) (*drivers.TaskConfigSchemaResponse, error) {
	return &drivers.TaskConfigSchemaResponse{Spec: s.driver.TaskConfigSchema()}, nil
}

func (s *driverServer) Capabilities(context.Context, *drivers.CapabilitiesRequest) (*drivers.CapabilitiesResponse, error) {
	return &drivers.CapabilitiesResponse{Capabilities: capabilitiesToWire(s.driver.Capabilities())}, nil
}

func (s *driverServer) Fingerprint(_ *drivers.FingerprintRequest, stream grpc.ServerStreamingServer[drivers.FingerprintResponse]) error {
	err := s.driver.Fingerprint(stream.Context(), func(f Fingerprint) error {
		message, err := fingerprintToWire(f)
		if err != nil {
			return err
		}
		return stream.Send(message)
	})
	return s.hold(stream.Context(), "fingerprint", err)
}

func (s *driverServer) TaskEvents(_ *drivers.TaskEventsRequest, stream grpc.ServerStreamingServer[drivers.DriverTaskEvent]) error {
	err := s.driver.TaskEvents(stream.Context(), func(e TaskEvent) error {
		return stream.Send(eventToWire(e))
	})
	return s.hold(stream.Context(), "task events", err)
}

// hold keeps a stream open until the agent closes it, also when the driver has given it up: an agent opens a closed stream
// again at once and without end.
func (s *driverServer) hold(ctx context.Context, stream string, err error) error {
	if ctx.Err() == nil {
		s.logger.Error("driver ended a stream that must stay open", "stream", stream, "error", err)
		<-ctx.Done()
	}
	return nil
}

// answered makes an answer that is missing without an error into an error: to dereference it would end the plugin, to
// send it the agent.
func answered[T any](call string, answer *T, err error) (*T, error) {
	if err == nil && answer == nil {
		err = fmt.Errorf("%s: the driver gave no answer", call)
	}
	return answer, err
}

func (s *driverServer) StartTask(ctx context.Context, req *drivers.StartTaskRequest) (*drivers.StartTaskResponse, error) {
	if req.GetTask() == nil {
		return nil, toStatus(errors.New("start task: the agent sent no task"))
	}
	started, err := s.driver.StartTask(ctx, taskFromWire(req.GetTask()))
	if started, err = answered("start task", started, err); err != nil {
		return nil, toStatus(err)
	}
	return &drivers.StartTaskResponse{
		// The handle carries the whole configuration back: an agent recovers nothing from a handle without it.
		Handle: &drivers.TaskHandle{
			Version: handleVersion, Config: req.GetTask(), State: drivers.TaskState_RUNNING, DriverState: started.DriverState,
		},
		NetworkOverride: driverNetworkToWire(started.Network),
	}, nil
}

func (s *driverServer) RecoverTask(ctx context.Context, req *drivers.RecoverTaskRequest) (*drivers.RecoverTaskResponse, error) {
	if req.GetHandle().GetConfig() == nil {
		return nil, toStatus(errors.New("recover task: the agent sent no handle with a task"))
	}
	return &drivers.RecoverTaskResponse{}, toStatus(s.driver.RecoverTask(ctx, handleFromWire(req.GetHandle())))
}

func (s *driverServer) WaitTask(ctx context.Context, req *drivers.WaitTaskRequest) (*drivers.WaitTaskResponse, error) {
	exit, err := s.driver.WaitTask(ctx, req.GetTaskId())
	if exit, err = answered("wait task", exit, err); err != nil {
		return nil, toStatus(err)
	}
	response := &drivers.WaitTaskResponse{Result: exitToWire(*exit)}
	if exit.Err != nil {
		response.Err = valid(exit.Err.Error())
	}
	return response, nil
}

func (s *driverServer) StopTask(ctx context.Context, req *drivers.StopTaskRequest) (*drivers.StopTaskResponse, error) {
	err := s.driver.StopTask(ctx, req.GetTaskId(), req.GetTimeout().AsDuration(), req.GetSignal())
	if errors.Is(err, ErrTaskNotFound) {
		// The agent would try again for minutes.
		err = nil
	}
	return &drivers.StopTaskResponse{}, toStatus(err)
}

func (s *driverServer) DestroyTask(ctx context.Context, req *drivers.DestroyTaskRequest) (*drivers.DestroyTaskResponse, error) {
	err := s.driver.DestroyTask(ctx, req.GetTaskId(), req.GetForce())
	if err != nil && !errors.Is(err, ErrTaskNotFound) {
		// The agent drops this error.
		s.logger.Error("destroy task failed", "task_id", req.GetTaskId(), "error", err)
		return nil, toStatus(err)
	}
	return &drivers.DestroyTaskResponse{}, nil
}

func (s *driverServer) InspectTask(ctx context.Context, req *drivers.InspectTaskRequest) (*drivers.InspectTaskResponse, error) {
	status, err := s.driver.InspectTask(ctx, req.GetTaskId())
	if status, err = answered("inspect task", status, err); err != nil {
		return nil, toStatus(err)
	}
	return statusToWire(status), nil
}

func (s *driverServer) TaskStats(req *drivers.TaskStatsRequest, stream grpc.ServerStreamingServer[drivers.TaskStatsResponse]) error {
	id := req.GetTaskId()
	err := s.driver.TaskStats(stream.Context(), id, req.GetCollectionInterval().AsDuration(), func(u TaskUsage) error {
		return stream.Send(usageToWire(id, u))
	})
	if stream.Context().Err() == nil {
		return toStatus(err)
	}
	return nil
}

func (s *driverServer) SignalTask(ctx context.Context, req *drivers.SignalTaskRequest) (*drivers.SignalTaskResponse, error) {
	return &drivers.SignalTaskResponse{}, toStatus(s.driver.SignalTask(ctx, req.GetTaskId(), req.GetSignal()))
}

func (s *driverServer) ExecTask(ctx context.Context, req *drivers.ExecTaskRequest) (*drivers.ExecTaskResponse, error) {
	result, err := s.driver.ExecTask(ctx, req.GetTaskId(), req.GetCommand(), req.GetTimeout().AsDuration())
	if result, err = answered("exec task", result, err); err != nil {
		return nil, toStatus(err)
	}
	return &drivers.ExecTaskResponse{Stdout: result.Stdout, Stderr: result.Stderr, Result: exitToWire(result.Exit)}, nil
}

func (s *driverServer) CreateNetwork(ctx context.Context, req *drivers.CreateNetworkRequest) (*drivers.CreateNetworkResponse, error) {
	spec, created, err := s.driver.CreateNetwork(ctx, req.GetAllocId(), req.GetHostname())
	if err != nil {
		return nil, toStatus(err)
	}
	return &drivers.CreateNetworkResponse{IsolationSpec: networkToWire(spec), Created: created}, nil
}

func (s *driverServer) DestroyNetwork(ctx context.Context, req *drivers.DestroyNetworkRequest) (*drivers.DestroyNetworkResponse, error) {
	err := s.driver.DestroyNetwork(ctx, req.GetAllocId(), networkFromWire(req.GetIsolationSpec()))
	return &drivers.DestroyNetworkResponse{}, toStatus(err)
}
