// SPDX-License-Identifier: AGPL-3.0-only

package configserver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/configserver"
)

func setup(t *testing.T) (*configserver.Server, *config.Live) {
	t.Helper()
	url := indextest.URL(t)
	if err := config.MigrateDB(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	live, err := config.Open(t.Context(), config.Options{ConfigDBURL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(live.Close)
	return configserver.New(live), live
}

func as(ctx context.Context, scopes ...config.Scope) context.Context {
	return config.WithIdentity(ctx, config.Identity{KeyID: "k", Organization: "acme", Scopes: scopes})
}

const document = "organizations: [{id: acme}]\nstorage_profiles: [{name: main, bucket: lake, access_key: a, secret_key: hush}]\n"

func TestConfigService(t *testing.T) {
	t.Parallel()
	server, live := setup(t)
	admin := as(t.Context(), config.ScopeAdmin)
	// The order matters: each step stands on the one before.
	t.Run("ApplyConfig checks, then changes", func(t *testing.T) {
		want := &configv1.ApplyConfigResponse{Changes: []string{"add organization acme", "add storage profile main"}}
		for _, validateOnly := range []bool{true, false} {
			got, err := server.ApplyConfig(admin, &configv1.ApplyConfigRequest{Document: document, ValidateOnly: validateOnly})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if _, ok := live.Current().Profile("lake"); ok == validateOnly {
				t.Errorf("validate_only %t: there is a profile: %t", validateOnly, ok)
			}
		}
		if _, err := server.ApplyConfig(admin, &configv1.ApplyConfigRequest{Document: "organization: []"}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("GetConfig shows what is in force without secrets", func(t *testing.T) {
		got, err := server.GetConfig(admin, &configv1.GetConfigRequest{})
		if err != nil || !strings.Contains(got.GetDocument(), "id: acme") || strings.Contains(got.GetDocument(), "hush") {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("keys are created, shown once, listed and deleted", func(t *testing.T) {
		scopes := []configv1.Scope{configv1.Scope_SCOPE_QUERY, configv1.Scope_SCOPE_INGEST}
		made, err := server.CreateAPIKey(admin, &configv1.CreateAPIKeyRequest{Organization: "acme", Scopes: scopes, Description: "d"})
		if err != nil {
			t.Fatal(err)
		}
		if identity, ok := live.Current().Authenticate(made.GetSecret()); !ok || identity.KeyID != made.GetKey().GetKeyId() {
			t.Errorf("got %+v", identity)
		}
		listed, err := server.ListAPIKeys(admin, &configv1.ListAPIKeysRequest{Organization: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]*configv1.APIKey{made.GetKey()}, listed.GetKeys(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if _, err := server.DeleteAPIKey(admin, &configv1.DeleteAPIKeyRequest{KeyId: made.GetKey().GetKeyId()}); err != nil {
			t.Error(err)
		}
		if _, ok := live.Current().Authenticate(made.GetSecret()); ok {
			t.Error("the key still opens")
		}
		if _, err := server.DeleteAPIKey(admin, &configv1.DeleteAPIKeyRequest{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
		if _, err := server.CreateAPIKey(admin, &configv1.CreateAPIKeyRequest{Scopes: []configv1.Scope{0}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOnlyAdmins(t *testing.T) {
	t.Parallel()
	server, _ := setup(t)
	calls := map[string]func(context.Context) error{}
	desc := configv1.ConfigService_ServiceDesc
	for _, method := range desc.Methods {
		calls[method.MethodName] = func(ctx context.Context) error {
			_, err := method.Handler(server, ctx, func(any) error { return nil }, nil)
			return err
		}
	}
	if len(calls) == 0 || len(desc.Streams) != 0 {
		t.Fatal("the contract changed; test its streams too")
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := call(t.Context()); !errors.Is(err, fault.Unauthenticated) {
				t.Errorf("nobody: got %v", err)
			}
			if err := call(as(t.Context(), config.ScopeQuery, config.ScopeIngest, config.ScopeInternal)); !errors.Is(err, fault.Denied) {
				t.Errorf("other scopes: got %v", err)
			}
		})
	}
}

func TestWithoutConfiguration(t *testing.T) {
	t.Parallel()
	server := configserver.New(nil)
	server.Register(grpc.NewServer())
	if server.Scope() != config.ScopeAdmin {
		t.Errorf("got %s", server.Scope())
	}
	if _, err := server.GetConfig(as(t.Context(), config.ScopeAdmin), &configv1.GetConfigRequest{}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v", err)
	}
}
