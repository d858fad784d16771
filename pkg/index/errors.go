// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// failed says what could not be done, and gives the error its kind; nil stays nil.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: %w", what, err)
	kind := kindOf(err)
	if kind == fault.Internal {
		return wrapped
	}
	return fault.Wrap(kind, wrapped)
}

// invalidURL hides the URL, which may hold a password.
func invalidURL(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) && parse.Unwrap() != nil {
		err = parse.Unwrap()
	}
	return fault.New(fault.Invalid, "the index's database URL is not one: %w", err)
}

func kindOf(err error) fault.Kind {
	if kind := fault.KindOf(err); kind != fault.Internal {
		return kind
	}
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, context.Canceled):
		return fault.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Timeout
	case errors.Is(err, pgx.ErrNoRows):
		return fault.NotFound
	case errors.As(err, &pg):
		return kindOfCode(pg.Code)
	case unreachable(err):
		return fault.Unavailable
	}
	return fault.Internal
}

// kindOfCode maps PostgreSQL's SQLSTATE codes.
func kindOfCode(code string) fault.Kind {
	switch code {
	case "57014": // query_canceled: the statement's timeout
		return fault.Timeout
	case "42P01", "42703": // no such table or column: not migrated yet
		return fault.Unavailable
	}
	switch code[:min(2, len(code))] {
	case "08", "40", "53", "55", "57", "58": // connection, rollback, resources, object state, operator, system
		return fault.Unavailable
	case "22", "23": // data that cannot be, constraints
		return fault.Invalid
	case "28", "42": // authorization
		return fault.Denied
	}
	return fault.Internal
}

func unreachable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// collided reports whether a transaction failed only because of another one.
func collided(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// lacksPartition reports whether a row found no partition to go to.
func lacksPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && strings.Contains(pg.Message, "no partition of relation")
}

// clean makes a text fit for the database: valid UTF-8 without NUL, and not endless.
func clean(s string) string {
	const limit = 2048
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
