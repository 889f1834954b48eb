package plugin

import (
	"context"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/base"
)

// baseServer answers the base service for a driver.
type baseServer struct {
	base.UnimplementedBasePluginServer
	driver Driver
}

func (s *baseServer) PluginInfo(context.Context, *base.PluginInfoRequest) (*base.PluginInfoResponse, error) {
	info := s.driver.Info()
	return &base.PluginInfoResponse{
		Type:              base.PluginType_DRIVER,
		PluginApiVersions: []string{APIVersion},
		PluginVersion:     info.Version,
		Name:              info.Name,
	}, nil
}

func (s *baseServer) ConfigSchema(context.Context, *base.ConfigSchemaRequest) (*base.ConfigSchemaResponse, error) {
	return &base.ConfigSchemaResponse{Spec: s.driver.ConfigSchema()}, nil
}

func (s *baseServer) SetConfig(ctx context.Context, req *base.SetConfigRequest) (*base.SetConfigResponse, error) {
	err := s.driver.SetConfig(ctx, req.GetMsgpackConfig(), clientFromWire(req.GetNomadConfig()))
	return &base.SetConfigResponse{}, toStatus(err)
}
