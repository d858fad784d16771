// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

//go:embed migrations/*.sql
var migrations embed.FS

// sessionSettings bound what a statement may take, so that a hanging one never keeps the others waiting for long. All statements
// are short: starting parallel workers or a compiler for them takes longer than they do, and so does planning them anew for the
// values of each call, over all partitions. A plan that serves all values must not be one that was made for empty tables: each
// statement has an index that serves it, so reading a whole table is left out.
const sessionSettings = "SET statement_timeout = '60s'; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'; " +
	"SET max_parallel_workers_per_gather = 0; SET jit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"

// maxTries is how often a transaction is tried that another one got into the way of.
const maxTries = 6

// Index is a connection to the index's database. It is safe for concurrent use.
type Index struct {
	pool    *pgxpool.Pool
	queries *db.Queries
	bell    *bell
	months  *sync.Map // of month: those whose partitions are known to exist
	observe observer
	// transactions is the pool, or what stands before it.
	transactions transactions
}

// Migrate brings the database's schema to the newest version. Processes that do so at the same time wait for each other.
func Migrate(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return invalidURL(err)
	}
	database := stdlib.OpenDB(*config)
	defer database.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, database, files,
		goose.WithSessionLocker(locker), goose.WithTableName("index_migrations"))
	if err != nil {
		return fmt.Errorf("read the index's migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return failed("migrate the index", err)
	}
	return nil
}

// Open connects to a database that Migrate has been at.
func Open(ctx context.Context, config Config) (*Index, error) {
	pool, err := openPool(ctx, config)
	if err != nil {
		return nil, err
	}
	x := &Index{pool: pool, queries: db.New(pool), bell: newBell(pool), months: new(sync.Map), observe: unobserved, transactions: pool}
	if err := x.Ping(ctx); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

func openPool(ctx context.Context, config Config) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(config.URL)
	if err != nil {
		return nil, invalidURL(err)
	}
	c.MaxConns = int32(min(config.MaxConns, 1000))
	if config.MaxConns <= 0 {
		c.MaxConns = 8
	}
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sessionSettings)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, failed("open the index", err)
	}
	return pool, nil
}

// Close gives the connections back. Calls that are under way finish first.
func (x *Index) Close() {
	x.bell.close()
	x.pool.Close()
}

// Ping asks whether the database answers and was migrated.
func (x *Index) Ping(ctx context.Context) error {
	_, err := x.queries.LatestReceiptID(ctx)
	return failed("reach the index", err)
}

// Now is the database's clock.
func (x *Index) Now(ctx context.Context) (time.Time, error) {
	now, err := x.queries.Now(ctx)
	return now.UTC(), failed("read the index's clock", err)
}

// inTx runs a transaction, again when another one got into its way.
func (x *Index) inTx(ctx context.Context, f func(q *db.Queries) error) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, x.transactions, func(tx pgx.Tx) error { return f(x.queries.WithTx(tx)) })
		if err == nil || try == maxTries || !collided(err) {
			return err
		}
		pause := time.Duration(rand.Int64N(int64(10 * time.Millisecond << try)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// newLeaseID makes a token that was never used before. Tokens sort by the time they were made.
func newLeaseID() (lake.LeaseID, error) {
	id, err := uuid.NewV7()
	return lake.LeaseID(id.String()), err
}
