// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"context"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/lakerunner/lakerunner/pkg/config/internal/db"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

//go:embed migrations/*.sql
var migrations embed.FS

// gooseTable keeps configdb's migrations apart from those of an lrdb in the same database.
const gooseTable = "config_goose_version"

// dbName is what configdb is called in errors and documents.
const dbName = "configdb"

// MigrateDB brings configdb's tables to this release. Several may try at once; all names begin with config_.
func MigrateDB(ctx context.Context, url string) error {
	parsed, err := pgx.ParseConfig(url)
	if err != nil {
		return fault.New(fault.Invalid, "CONFIGDB_URL is not a Postgres URL, such as postgres://user:password@host:5432/database: %w", err)
	}
	// A lock id of our own: lrdb's migrations may run in the same database at the same time.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(0x6c72636f6e666967))
	if err != nil {
		return fmt.Errorf("migrate configdb: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrate configdb: %w", err)
	}
	conn := stdlib.OpenDB(*parsed)
	defer func() { _ = conn.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, conn, files, goose.WithSessionLocker(locker), goose.WithTableName(gooseTable))
	if err != nil {
		return fmt.Errorf("migrate configdb: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate configdb: %w", dbError(err))
	}
	return nil
}

// DB is configdb: the layer of the configuration that is changed by calls.
type DB struct {
	pool    *pgxpool.Pool
	queries *db.Queries
}

// OpenDB connects to configdb, whose tables must be there.
func OpenDB(ctx context.Context, url string) (*DB, error) {
	parsed, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fault.New(fault.Invalid, "CONFIGDB_URL is not a Postgres URL, such as postgres://user:password@host:5432/database: %w", err)
	}
	parsed.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, parsed)
	if err != nil {
		return nil, fmt.Errorf("open configdb: %w", dbError(err))
	}
	d := &DB{pool: pool, queries: db.New(pool)}
	if _, err := d.version(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the connections.
func (d *DB) Close() { d.pool.Close() }

func (d *DB) version(ctx context.Context) (int64, error) {
	version, err := d.queries.Version(ctx)
	if err != nil {
		return 0, fmt.Errorf("read configdb: %w", dbError(err))
	}
	return version, nil
}

// layer reads all that configdb says, from one snapshot of it.
func (d *DB) layer(ctx context.Context) (layer, error) {
	var stored layer
	err := pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var err error
		stored, err = readLayer(ctx, d.queries.WithTx(tx))
		return err
	})
	return stored, dbError(err)
}

func readLayer(ctx context.Context, queries *db.Queries) (layer, error) {
	items, err := queries.Items(ctx)
	if err != nil {
		return layer{}, fmt.Errorf("read configdb: %w", dbError(err))
	}
	keys, err := queries.Keys(ctx, "")
	if err != nil {
		return layer{}, fmt.Errorf("read configdb: %w", dbError(err))
	}
	f, err := formOf(items)
	if err != nil {
		return layer{}, err
	}
	for _, key := range keys {
		f.APIKeys = append(f.APIKeys, keyForm{
			ID: key.ID, Organization: key.Organization, Scopes: key.Scopes, SHA256: hex.EncodeToString(key.Hash),
			Description: key.Description, createdAt: key.CreatedAt.Time, Pos: strictyaml.Pos{File: dbName},
		})
	}
	return layer{name: dbName, form: f}, nil
}

// dbError gives an error of Postgres its kind.
func dbError(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, fault.Unavailable):
		return err
	case errors.As(err, &pg) && pg.Code == "42P01":
		return fault.New(fault.Unavailable, "configdb has no tables yet: run `lakerunner migrate`: %w", err)
	case unreachable(err):
		return fault.New(fault.Unavailable, "configdb cannot be reached: check CONFIGDB_URL and that Postgres runs: %w", err)
	}
	return err
}

// unreachable tells the network, and a server that starts or stops (classes 08 and 57P), from an answer.
func unreachable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P")
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}
