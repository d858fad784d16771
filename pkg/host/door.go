// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	organizationHeader = "x-scope-orgid"
	internalHeader     = "lakerunner-internal-token"
)

// door lets requests in, over gRPC and HTTP alike.
type door struct {
	source config.Source
	token  [sha256.Size]byte // hash of the internal token
}

func newDoor(source config.Source, internalToken string) *door {
	return &door{source: source, token: sha256.Sum256([]byte(internalToken))}
}

// claims are what a request shows.
type claims struct {
	authorization string
	organization  string // named by X-Scope-OrgID
	internal      string
}

func claimsOfHTTP(header http.Header) claims {
	return claims{authorization: header.Get("Authorization"), organization: header.Get("X-Scope-OrgID")}
}

func claimsOfRPC(md metadata.MD) claims {
	first := func(key string) string {
		if values := md.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return claims{authorization: first("authorization"), organization: first(organizationHeader), internal: first(internalHeader)}
}

// admit returns who asks, if he may pass a door of that scope.
func (d *door) admit(scope config.Scope, c claims) (config.Identity, error) {
	switch scope {
	case config.ScopeOpen:
		return config.Identity{}, nil
	case "":
		return config.Identity{}, fault.New(fault.Denied, "nobody may call this")
	case config.ScopeInternal:
		return d.admitInternal(c)
	}
	identity, err := d.identify(c)
	if err != nil {
		return config.Identity{}, err
	}
	if !identity.Has(scope) {
		return config.Identity{}, fault.New(fault.Denied, "API key %q has not the scope %q", identity.KeyID, scope)
	}
	return identity, nil
}

func (d *door) admitInternal(c claims) (config.Identity, error) {
	if c.internal == "" {
		return config.Identity{}, fault.New(fault.Unauthenticated, "only other services may call this, with the internal token")
	}
	shown := sha256.Sum256([]byte(c.internal))
	if subtle.ConstantTimeCompare(shown[:], d.token[:]) != 1 {
		return config.Identity{}, fault.New(fault.Unauthenticated, "wrong internal token: set LAKERUNNER_INTERNAL_TOKEN to the same in every process")
	}
	return config.Identity{KeyID: "internal", Scopes: []config.Scope{config.ScopeInternal}}, nil
}

// identify finds whose key a request shows, and for which organization he acts.
func (d *door) identify(c claims) (config.Identity, error) {
	snapshot := d.source.Current()
	if c.authorization == "" {
		if identity, ok := snapshot.Trusted(c.organization); ok && c.organization != "" {
			return identity, nil
		}
		return config.Identity{}, fault.New(fault.Unauthenticated, "no API key: send it as Authorization: Bearer <key>, or as the password of Basic authentication")
	}
	secret, err := secretOf(c.authorization)
	if err != nil {
		return config.Identity{}, err
	}
	identity, ok := snapshot.Authenticate(secret)
	if !ok {
		return config.Identity{}, fault.New(fault.Unauthenticated, "wrong API key")
	}
	return actingFor(snapshot, identity, lake.Organization(c.organization))
}

// actingFor honours the organization that a request names: any for an admin key, its own for another.
func actingFor(snapshot *config.Snapshot, identity config.Identity, named lake.Organization) (config.Identity, error) {
	if named == "" || named == identity.Organization {
		return identity, nil
	}
	if !identity.Has(config.ScopeAdmin) {
		return config.Identity{}, fault.New(fault.Denied, "API key %q is not for the organization that X-Scope-OrgID names; leave the header out", identity.KeyID)
	}
	if _, ok := snapshot.Organization(named); !ok {
		return config.Identity{}, fault.New(fault.NotFound, "organization %q, which X-Scope-OrgID names, is not configured", named)
	}
	identity.Organization = named
	return identity, nil
}

// secretOf reads the key from an Authorization header: a bearer token, or the password of Basic authentication, as Grafana sends it.
func secretOf(authorization string) (string, error) {
	scheme, rest, _ := strings.Cut(authorization, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(scheme) {
	case "bearer":
		return rest, nil
	case "basic":
		decoded, err := base64.StdEncoding.DecodeString(rest)
		_, password, ok := strings.Cut(string(decoded), ":")
		if err == nil && ok {
			return password, nil
		}
	}
	return "", fault.New(fault.Unauthenticated, "the Authorization header is neither Bearer <key> nor Basic with the key as password")
}
