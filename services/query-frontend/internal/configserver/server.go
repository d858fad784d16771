// SPDX-License-Identifier: AGPL-3.0-only

// Package configserver serves ConfigService: it translates between its contract and pkg/config, which does the work.
//
// Every call needs the admin scope. The process's doors check it; it is checked here again, because what is behind this one is
// everybody's keys.
package configserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
)

// Configuration is what the server needs; *config.Live is one.
type Configuration interface {
	Apply(ctx context.Context, document string, dryRun bool) ([]string, error)
	Document() (string, error)
	CreateAPIKey(ctx context.Context, organization lake.Organization, scopes []config.Scope, description string) (config.Key, string, error)
	APIKeys(organization lake.Organization) []config.Key
	DeleteAPIKey(ctx context.Context, id string) error
}

// Server implements ConfigService.
type Server struct {
	configv1.UnimplementedConfigServiceServer
	configuration Configuration
}

// New returns the server of a configuration. Nil: every call says that there is none to manage.
func New(configuration Configuration) *Server { return &Server{configuration: configuration} }

// Register registers it.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	configv1.RegisterConfigServiceServer(registrar, s)
}

// Scope is what each of its methods needs.
func (s *Server) Scope() config.Scope { return config.ScopeAdmin }

// ApplyConfig makes the stored configuration equal to a document.
func (s *Server) ApplyConfig(ctx context.Context, request *configv1.ApplyConfigRequest) (*configv1.ApplyConfigResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	changes, err := s.configuration.Apply(ctx, request.GetDocument(), request.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	return &configv1.ApplyConfigResponse{Changes: changes}, nil
}

// GetConfig returns the configuration in force.
func (s *Server) GetConfig(ctx context.Context, _ *configv1.GetConfigRequest) (*configv1.GetConfigResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	document, err := s.configuration.Document()
	if err != nil {
		return nil, err
	}
	return &configv1.GetConfigResponse{Document: document}, nil
}

// CreateAPIKey makes a key.
func (s *Server) CreateAPIKey(ctx context.Context, request *configv1.CreateAPIKeyRequest) (*configv1.CreateAPIKeyResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	scopes, err := scopesOf(request.GetScopes())
	if err != nil {
		return nil, err
	}
	key, secret, err := s.configuration.CreateAPIKey(ctx, lake.Organization(request.GetOrganization()), scopes, request.GetDescription())
	if err != nil {
		return nil, err
	}
	return &configv1.CreateAPIKeyResponse{Key: message(key), Secret: secret}, nil
}

// ListAPIKeys lists keys.
func (s *Server) ListAPIKeys(ctx context.Context, request *configv1.ListAPIKeysRequest) (*configv1.ListAPIKeysResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	response := &configv1.ListAPIKeysResponse{}
	for _, key := range s.configuration.APIKeys(lake.Organization(request.GetOrganization())) {
		response.Keys = append(response.Keys, message(key))
	}
	return response, nil
}

// DeleteAPIKey revokes a key.
func (s *Server) DeleteAPIKey(ctx context.Context, request *configv1.DeleteAPIKeyRequest) (*configv1.DeleteAPIKeyResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	if request.GetKeyId() == "" {
		return nil, fault.New(fault.Invalid, "key_id is empty: name the key to delete")
	}
	if err := s.configuration.DeleteAPIKey(ctx, request.GetKeyId()); err != nil {
		return nil, err
	}
	return &configv1.DeleteAPIKeyResponse{}, nil
}

func (s *Server) admit(ctx context.Context) error {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return fault.New(fault.Unauthenticated, "no API key")
	}
	if !identity.Has(config.ScopeAdmin) {
		return fault.New(fault.Denied, "API key %q has not the scope %q", identity.KeyID, config.ScopeAdmin)
	}
	if s.configuration == nil {
		return fault.New(fault.Unsupported, "this process has no configuration that can be managed")
	}
	return nil
}

func scopesOf(scopes []configv1.Scope) ([]config.Scope, error) {
	out := make([]config.Scope, 0, len(scopes))
	for _, scope := range scopes {
		switch scope {
		case configv1.Scope_SCOPE_QUERY:
			out = append(out, config.ScopeQuery)
		case configv1.Scope_SCOPE_INGEST:
			out = append(out, config.ScopeIngest)
		case configv1.Scope_SCOPE_ADMIN:
			out = append(out, config.ScopeAdmin)
		default:
			return nil, fault.New(fault.Invalid, "unknown scope %s: want SCOPE_QUERY, SCOPE_INGEST or SCOPE_ADMIN", scope)
		}
	}
	return out, nil
}

func message(key config.Key) *configv1.APIKey {
	out := &configv1.APIKey{KeyId: key.ID, Organization: string(key.Organization), Description: key.Description}
	if !key.CreatedAt.IsZero() {
		out.CreatedAt = timestamppb.New(key.CreatedAt)
	}
	for _, scope := range key.Scopes {
		switch scope {
		case config.ScopeQuery:
			out.Scopes = append(out.Scopes, configv1.Scope_SCOPE_QUERY)
		case config.ScopeIngest:
			out.Scopes = append(out.Scopes, configv1.Scope_SCOPE_INGEST)
		case config.ScopeAdmin:
			out.Scopes = append(out.Scopes, configv1.Scope_SCOPE_ADMIN)
		}
	}
	return out
}
