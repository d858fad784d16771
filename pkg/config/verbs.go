// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/config/internal/db"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Key describes an API key.
type Key struct {
	ID           string
	Organization lake.Organization
	Scopes       []Scope
	Description  string
	CreatedAt    time.Time // zero: not of configdb
}

// Document returns the configuration in force as YAML: all layers together, secrets redacted, API keys left out.
func (l *Live) Document() (string, error) { return describe(l.Current()) }

// Apply makes configdb equal to a YAML document of organizations, storage profiles and settings, in one transaction, and returns a
// line for each change. API keys are left alone. A document that would not be valid together with the other layers changes nothing;
// neither does a dry run.
func (l *Live) Apply(ctx context.Context, document string, dryRun bool) ([]string, error) {
	if err := l.needsDB(); err != nil {
		return nil, err
	}
	f, err := parseForm("document", []byte(document), nil)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if len(f.APIKeys) > 0 {
		return nil, fault.New(fault.Invalid, "%v", f.APIKeys[0].Pos.Problem("id", "API keys are no part of an applied document; create them one by one"))
	}
	if err := l.keepSecrets(&f); err != nil {
		return nil, err
	}
	changes, err := l.apply(ctx, f, dryRun)
	if err != nil || dryRun || len(changes) == 0 {
		return changes, err
	}
	l.hurry(ctx)
	return changes, nil
}

// keepSecrets puts the secrets in force where the document has them redacted.
func (l *Live) keepSecrets(f *form) error {
	inForce, _ := merged(l.Current().layers)
	for i := range f.StorageProfiles {
		profile := &f.StorageProfiles[i]
		if profile.SecretKey != Redacted {
			continue
		}
		at := slices.IndexFunc(inForce.StorageProfiles, func(p profileForm) bool { return p.Name == profile.Name && p.SecretKey != "" })
		if at < 0 {
			return fault.New(fault.Invalid, "%v", profile.Pos.Problem("secret_key", "storage profile %q has no secret key in force that %s could stand for; write the key", profile.Name, Redacted))
		}
		profile.SecretKey = inForce.StorageProfiles[at].SecretKey
	}
	return nil
}

// errDryRun rolls a transaction back whose changes were only to be named.
var errDryRun = errors.New("dry run")

func (l *Live) apply(ctx context.Context, f form, dryRun bool) (lines []string, err error) {
	wanted, err := itemsOf(f)
	if err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, l.db.pool, func(tx pgx.Tx) error {
		queries := l.db.queries.WithTx(tx)
		// The bump locks out other changes until this one is done.
		if _, err := queries.Bump(ctx); err != nil {
			return fmt.Errorf("change configdb: %w", err)
		}
		stored, err := readLayer(ctx, queries)
		if err != nil {
			return err
		}
		if err := l.fitsWith(f, stored); err != nil {
			return err
		}
		before, err := itemsOf(stored.form)
		if err != nil {
			return err
		}
		changes := difference(before, wanted)
		for _, c := range changes {
			lines = append(lines, c.line)
		}
		if dryRun || len(changes) == 0 {
			return errDryRun
		}
		return write(ctx, queries, changes)
	})
	if errors.Is(err, errDryRun) {
		return lines, nil
	}
	if err != nil {
		return nil, dbError(err)
	}
	return lines, nil
}

// fitsWith checks the document together with the files, the environment and the keys that are stored.
func (l *Live) fitsWith(f form, stored layer) error {
	contents, _, err := l.read()
	if err != nil {
		return err
	}
	layers, err := l.fileLayers(contents)
	if err != nil {
		return err
	}
	f.APIKeys = stored.form.APIKeys
	_, err = l.build(append(layers, layer{name: dbName, form: f}))
	return err
}

func write(ctx context.Context, queries *db.Queries, changes []change) error {
	for _, c := range changes {
		var err error
		if c.remove != nil {
			err = queries.DeleteItem(ctx, db.DeleteItemParams{Kind: c.remove.kind, Name: c.remove.name})
		} else {
			err = queries.PutItem(ctx, db.PutItemParams{Kind: c.put.kind, Name: c.put.name, Position: int32(c.position), Body: c.put.body})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.line, err)
		}
	}
	return nil
}

// CreateAPIKey makes a key and returns its secret, which is kept nowhere.
func (l *Live) CreateAPIKey(ctx context.Context, organization lake.Organization, scopes []Scope, description string) (Key, string, error) {
	if err := l.needsDB(); err != nil {
		return Key{}, "", err
	}
	secret := NewSecret()
	hash := Hash(secret)
	f := keyForm{ID: newKeyID(), Organization: string(organization), SHA256: hex.EncodeToString(hash[:]), Description: description}
	for _, scope := range scopes {
		f.Scopes = append(f.Scopes, string(scope))
	}
	if problems := f.problems(map[string]bool{}); len(problems) > 0 {
		return Key{}, "", fault.New(fault.Invalid, "%s", problems[0].Text)
	}
	if _, ok := l.Current().Organization(organization); !ok && organization != "" {
		return Key{}, "", fault.New(fault.NotFound, "organization %q is not configured", organization)
	}
	key := Key{ID: f.ID, Organization: organization, Scopes: slices.Clone(scopes), Description: description}
	err := l.changeKeys(ctx, func(queries *db.Queries) error {
		created, err := queries.InsertKey(ctx, db.InsertKeyParams{ID: f.ID, Organization: f.Organization, Scopes: f.Scopes, Hash: hash[:], Description: description})
		key.CreatedAt = created.Time
		return err
	})
	if err != nil {
		return Key{}, "", fmt.Errorf("create API key: %w", err)
	}
	return key, secret, nil
}

func newKeyID() string {
	var random [8]byte
	_, _ = rand.Read(random[:])
	return "key-" + hex.EncodeToString(random[:])
}

// APIKeys lists the keys in force, of files and the environment too. An empty organization asks for all.
func (l *Live) APIKeys(organization lake.Organization) []Key {
	var keys []Key
	for _, layer := range l.Current().layers {
		for i := range layer.form.APIKeys {
			f := &layer.form.APIKeys[i]
			if organization != "" && f.Organization != string(organization) {
				continue
			}
			// The forms of a snapshot are valid.
			scopes, _ := f.scopes()
			key := Key{ID: f.ID, Organization: lake.Organization(f.Organization), Scopes: scopes, Description: f.Description, CreatedAt: f.createdAt}
			keys = put(keys, key, func(k Key) string { return k.ID })
		}
	}
	return keys
}

// DeleteAPIKey revokes a key of configdb.
func (l *Live) DeleteAPIKey(ctx context.Context, id string) error {
	if err := l.needsDB(); err != nil {
		return err
	}
	err := l.changeKeys(ctx, func(queries *db.Queries) error {
		deleted, err := queries.DeleteKey(ctx, id)
		if err == nil && deleted == 0 {
			return l.noSuchKey(id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete API key: %w", err)
	}
	return nil
}

func (l *Live) noSuchKey(id string) error {
	for _, layer := range l.Current().layers {
		for _, key := range layer.form.APIKeys {
			if key.ID == id && layer.name != dbName {
				return fault.New(fault.Invalid, "API key %q is of %s; remove it there", id, layer.name)
			}
		}
	}
	return fault.New(fault.NotFound, "there is no API key %q", id)
}

func (l *Live) changeKeys(ctx context.Context, change func(*db.Queries) error) error {
	err := pgx.BeginFunc(ctx, l.db.pool, func(tx pgx.Tx) error {
		queries := l.db.queries.WithTx(tx)
		if _, err := queries.Bump(ctx); err != nil {
			return err
		}
		return change(queries)
	})
	if err != nil {
		return dbError(err)
	}
	l.hurry(ctx)
	return nil
}

// hurry takes a change that was just made. It stands whether or not this works: what follows configdb takes it a little later.
func (l *Live) hurry(ctx context.Context) {
	if err := l.reload(ctx); err != nil {
		l.options.Log.Warn("a change of configdb is not taken yet", "error", err)
	}
}

func (l *Live) needsDB() error {
	if l.db == nil {
		return fault.New(fault.Unsupported, "there is no configdb to change: set CONFIGDB_URL, or edit the configuration file")
	}
	return nil
}
