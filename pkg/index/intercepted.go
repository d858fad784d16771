// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
)

// Interceptor is asked before and after each step that touches the database: each statement, by its name, and the beginning ("Begin")
// and end ("Commit") of each transaction. An error of Before takes the step's place, one of After its answer's.
type Interceptor interface {
	Before(ctx context.Context, step string) error
	After(ctx context.Context, step string) error
}

// Intercepted returns the same index with an interceptor around its steps. It is for fault injection; hints of new tasks, which may be
// lost at any time, are not intercepted.
func (x *Index) Intercepted(i Interceptor) *Index {
	intercepted := *x
	door := interceptedPool{x.pool, i}
	intercepted.transactions, intercepted.queries = door, db.New(door)
	return &intercepted
}

// transactions begins transactions.
type transactions interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

type interceptedPool struct {
	*pgxpool.Pool
	interceptor Interceptor
}

func (p interceptedPool) Begin(ctx context.Context) (pgx.Tx, error) {
	return p.BeginTx(ctx, pgx.TxOptions{})
}

func (p interceptedPool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	if err := p.interceptor.Before(ctx, "Begin"); err != nil {
		return nil, err
	}
	tx, err := p.Pool.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := p.interceptor.After(ctx, "Begin"); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx))
		return nil, err
	}
	return interceptedTx{tx, p.interceptor}, nil
}

func (p interceptedPool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return exec(ctx, p.interceptor, p.Pool, sql, args)
}

func (p interceptedPool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return query(ctx, p.interceptor, p.Pool, sql, args)
}

func (p interceptedPool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return queryRow(ctx, p.interceptor, p.Pool, sql, args)
}

type interceptedTx struct {
	pgx.Tx
	interceptor Interceptor
}

func (t interceptedTx) Commit(ctx context.Context) error {
	if err := t.interceptor.Before(ctx, "Commit"); err != nil {
		return err
	}
	if err := t.Tx.Commit(ctx); err != nil {
		return err
	}
	return t.interceptor.After(ctx, "Commit")
}

func (t interceptedTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return exec(ctx, t.interceptor, t.Tx, sql, args)
}

func (t interceptedTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return query(ctx, t.interceptor, t.Tx, sql, args)
}

func (t interceptedTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return queryRow(ctx, t.interceptor, t.Tx, sql, args)
}

func exec(ctx context.Context, i Interceptor, to db.DBTX, sql string, args []any) (pgconn.CommandTag, error) {
	name := statementName(sql)
	if err := i.Before(ctx, name); err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := to.Exec(ctx, sql, args...)
	if err != nil {
		return tag, err
	}
	return tag, i.After(ctx, name)
}

func query(ctx context.Context, i Interceptor, to db.DBTX, sql string, args []any) (pgx.Rows, error) {
	name := statementName(sql)
	if err := i.Before(ctx, name); err != nil {
		return nil, err
	}
	rows, err := to.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	if err := i.After(ctx, name); err != nil {
		rows.Close()
		return nil, err
	}
	return rows, nil
}

func queryRow(ctx context.Context, i Interceptor, to db.DBTX, sql string, args []any) pgx.Row {
	name := statementName(sql)
	if err := i.Before(ctx, name); err != nil {
		return failedRow{err}
	}
	return interceptedRow{to.QueryRow(ctx, sql, args...), func() error { return i.After(ctx, name) }}
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

type interceptedRow struct {
	pgx.Row
	after func() error
}

func (r interceptedRow) Scan(into ...any) error {
	if err := r.Row.Scan(into...); err != nil {
		return err
	}
	return r.after()
}

// statementName is the name that the statement has in internal/db/queries.
func statementName(sql string) string {
	rest, ok := strings.CutPrefix(sql, "-- name: ")
	if !ok {
		return "Statement"
	}
	name, _, _ := strings.Cut(rest, " ")
	return name
}
