// SPDX-License-Identifier: AGPL-3.0-only

package host_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestEveryDoor shows the same credentials at a door of each kind: a handler of a service, a REST form, an RPC and a stream.
func TestEveryDoor(t *testing.T) {
	t.Parallel()
	p := start(t, host.Options{}, &service{name: "s"})
	conn := p.dial(t)
	const who, orgID = "Authorization", "X-Scope-OrgID"
	cases := []struct {
		name   string
		header []string
		want   string // who is let in
		refuse fault.Kind
	}{
		{"a bearer token", []string{who, "Bearer " + queryKey}, "reader@acme", ""},
		{"a bearer token in other letters", []string{who, "bearer " + queryKey}, "reader@acme", ""},
		{"a password of Basic authentication", []string{who, basic("grafana", queryKey)}, "reader@acme", ""},
		{"a password without a user", []string{who, basic("", queryKey)}, "reader@acme", ""},
		{"the own organization named", []string{who, "Bearer " + queryKey, orgID, "acme"}, "reader@acme", ""},
		{"an admin key", []string{who, "Bearer " + adminKey}, "environment@", ""},
		{"an admin key that names an organization", []string{who, "Bearer " + adminKey, orgID, "globex"}, "environment@globex", ""},
		{"a header that is trusted", []string{orgID, "behind-proxy"}, "trusted-header@behind-proxy", ""},

		{"nothing", nil, "", fault.Unauthenticated},
		{"an empty token", []string{who, "Bearer "}, "", fault.Unauthenticated},
		{"a wrong token", []string{who, "Bearer " + queryKey + "x"}, "", fault.Unauthenticated},
		{"a token without its scheme", []string{who, queryKey}, "", fault.Unauthenticated},
		{"another scheme", []string{who, "Digest " + queryKey}, "", fault.Unauthenticated},
		{"the key as user instead of password", []string{who, basic(queryKey, "")}, "", fault.Unauthenticated},
		{"Basic that is not base64", []string{who, "Basic !"}, "", fault.Unauthenticated},
		{"a header that is not trusted", []string{orgID, "acme"}, "", fault.Unauthenticated},
		{"a wrong token and a header that is trusted", []string{who, "Bearer x", orgID, "behind-proxy"}, "", fault.Unauthenticated},
		{"a key of another scope", []string{who, "Bearer " + ingestKey}, "", fault.Denied},
		{"another organization", []string{who, "Bearer " + queryKey, orgID, "globex"}, "", fault.Denied},
		{"another organization whose header is trusted", []string{who, "Bearer " + queryKey, orgID, "behind-proxy"}, "", fault.Denied},
		{"several organizations", []string{who, "Bearer " + queryKey, orgID, "acme|globex"}, "", fault.Denied},
		{"an organization that does not exist, by an admin", []string{who, "Bearer " + adminKey, orgID, "initech"}, "", fault.NotFound},
	}
	for _, c := range cases {
		t.Run(c.name+" at a service's own handler", func(t *testing.T) {
			t.Parallel()
			check(t, p.ask(t, http.MethodGet, "/own/query", "", c.header...), c.want, c.want, c.refuse)
		})
		t.Run(c.name+" at a REST form", func(t *testing.T) {
			t.Parallel()
			check(t, p.ask(t, http.MethodGet, "/api/v1/labels", "", c.header...), c.want, `"`+c.want+`"`, c.refuse)
		})
		t.Run(c.name+" at a REST form of a stream", func(t *testing.T) {
			t.Parallel()
			a := p.ask(t, http.MethodPost, "/api/v1/logs:query", `{"query":"conflict","limit":1}`, c.header...)
			check(t, a, c.want, "no such luck", c.refuse)
		})
		t.Run(c.name+" at an RPC", func(t *testing.T) {
			t.Parallel()
			ctx := metadata.AppendToOutgoingContext(t.Context(), c.header...)
			response, err := queryv1.NewQueryServiceClient(conn).ListLabels(ctx, &queryv1.ListLabelsRequest{})
			if c.refuse != "" {
				if fault.KindOf(err) != c.refuse {
					t.Errorf("want %s, got %v", c.refuse, err)
				}
				return
			}
			if err != nil || response.GetLabels()[0] != c.want {
				t.Errorf("want %s, got %v, %v", c.want, response, err)
			}
		})
		t.Run(c.name+" at a stream", func(t *testing.T) {
			t.Parallel()
			ctx := metadata.AppendToOutgoingContext(t.Context(), c.header...)
			stream, err := queryv1.NewQueryServiceClient(conn).QueryLogs(ctx, &queryv1.QueryLogsRequest{Query: "conflict"})
			if err != nil {
				t.Fatal(err)
			}
			want := c.refuse
			if want == "" {
				want = fault.Conflict
			}
			if _, err := stream.Recv(); fault.KindOf(err) != want {
				t.Errorf("want %s, got %v", want, err)
			}
		})
	}
}

func check(t *testing.T, a answer, allowed, part string, refuse fault.Kind) {
	t.Helper()
	if allowed != "" {
		if a.code != http.StatusOK || !contains(a.body, part) {
			t.Errorf("want %s, got %d %s", part, a.code, a.body)
		}
		return
	}
	if a.code != fault.HTTPStatus(refuse) || !contains(a.body, `"code":"`+string(refuse)+`"`) {
		t.Errorf("want %s, got %d %s", refuse, a.code, a.body)
	}
	if challenged := a.header.Get("WWW-Authenticate") != ""; challenged != (refuse == fault.Unauthenticated) {
		t.Errorf("WWW-Authenticate is %v", a.header.Values("WWW-Authenticate"))
	}
}

func TestDoorsOfServices(t *testing.T) {
	t.Parallel()
	inProcess := host.NewInProcess("the token of all processes")
	p := start(t, host.Options{InProcess: inProcess}, &service{name: "s"})
	list := func(t *testing.T, conn grpc.ClientConnInterface, header ...string) (string, error) {
		t.Helper()
		ctx := metadata.AppendToOutgoingContext(t.Context(), header...)
		response, err := configv1.NewConfigServiceClient(conn).ListAPIKeys(ctx, &configv1.ListAPIKeysRequest{})
		if err != nil {
			return "", err
		}
		return response.GetKeys()[0].GetKeyId(), nil
	}
	t.Run("the internal token opens them, over the network", func(t *testing.T) {
		t.Parallel()
		if got, err := list(t, p.dial(t), "lakerunner-internal-token", "the token of all processes"); err != nil || got != "internal" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a connection in process shows it", func(t *testing.T) {
		t.Parallel()
		conn, err := inProcess.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, err := list(t, conn); err != nil || got != "internal" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a wrong one, and any key, do not", func(t *testing.T) {
		t.Parallel()
		for _, header := range [][]string{
			nil,
			{"lakerunner-internal-token", "guess"},
			{"lakerunner-internal-token", ""},
			{"authorization", "Bearer " + adminKey},
			{"authorization", "Bearer the token of all processes"},
		} {
			if _, err := list(t, p.dial(t), header...); !errors.Is(err, fault.Unauthenticated) {
				t.Errorf("%v: got %v", header, err)
			}
		}
	})
	t.Run("the gateway does not pass it on", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"Lakerunner-Internal-Token", "Grpc-Metadata-Lakerunner-Internal-Token"} {
			a := p.ask(t, http.MethodGet, "/api/v1/apikeys", "", name, "the token of all processes", "Authorization", "Bearer "+adminKey)
			if a.code != http.StatusUnauthorized {
				t.Errorf("%s: got %d %s", name, a.code, a.body)
			}
		}
	})
	t.Run("the gateway takes no key or organization in other headers", func(t *testing.T) {
		t.Parallel()
		a := p.ask(t, http.MethodGet, "/api/v1/labels", "", "Grpc-Metadata-Authorization", "Bearer "+queryKey)
		if a.code != http.StatusUnauthorized {
			t.Errorf("got %d %s", a.code, a.body)
		}
		a = p.ask(t, http.MethodGet, "/api/v1/labels", "", "Grpc-Metadata-X-Scope-Orgid", "globex", "Authorization", "Bearer "+adminKey)
		if !contains(a.body, `"environment@"`) {
			t.Errorf("got %d %s", a.code, a.body)
		}
	})
	t.Run("a door that names no scope is shut for all", func(t *testing.T) {
		t.Parallel()
		if a := p.ask(t, http.MethodGet, "/own/nobody", "", "Authorization", "Bearer "+adminKey); a.code != http.StatusForbidden {
			t.Errorf("got %d %s", a.code, a.body)
		}
		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+adminKey)
		if _, err := queryv1.NewQueryServiceClient(p.dial(t)).Explain(ctx, &queryv1.ExplainRequest{}); !errors.Is(err, fault.Denied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an open door needs nothing", func(t *testing.T) {
		t.Parallel()
		if a := p.ask(t, http.MethodGet, "/own/open", ""); a.code != http.StatusOK || a.body != "@" {
			t.Errorf("got %d %s", a.code, a.body)
		}
	})
}
