// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"context"
	"fmt"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Scope is a right. The zero value is no right: a door that names it stays shut.
type Scope string

// The scopes.
const (
	// ScopeQuery asks queries.
	ScopeQuery Scope = "query"
	// ScopeIngest notifies, ingests, previews and replays.
	ScopeIngest Scope = "ingest"
	// ScopeAdmin is everything but ScopeInternal, for every organization.
	ScopeAdmin Scope = "admin"
	// ScopeInternal is one service calling another. No API key has it.
	ScopeInternal Scope = "internal"
	// ScopeOpen marks a door that needs no key.
	ScopeOpen Scope = "open"
)

// ParseScope reads the name of a scope that a key can have: query, ingest or admin.
func ParseScope(name string) (Scope, error) {
	switch scope := Scope(name); scope {
	case ScopeQuery, ScopeIngest, ScopeAdmin:
		return scope, nil
	}
	return "", fmt.Errorf("unknown scope %q: want query, ingest or admin", name)
}

// Identity is who asks: a key, the organization it acts for, and what it may do.
type Identity struct {
	KeyID string
	// Organization is whose data the request may touch. Empty: an admin key that named none.
	Organization lake.Organization
	Scopes       []Scope
}

// Has reports whether the identity may pass a door of that scope. Admin may pass those of query and ingest.
func (i Identity) Has(scope Scope) bool {
	switch scope {
	case ScopeOpen:
		return true
	case ScopeInternal, "":
		return scope != "" && slices.Contains(i.Scopes, scope)
	}
	return slices.Contains(i.Scopes, scope) || slices.Contains(i.Scopes, ScopeAdmin)
}

type identityKey struct{}

// WithIdentity puts who asks into a context.
func WithIdentity(ctx context.Context, identity Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, identity)
}

// IdentityFrom returns who asks; false: nobody was authenticated.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	identity, ok := ctx.Value(identityKey{}).(Identity)
	return identity, ok
}
