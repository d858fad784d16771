// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}

// theQuery names the argument of commands that take a query.
const theQuery = "the query"

// exactArgs is cobra.ExactArgs with a message that says what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(args) > len(names) {
			hint := ""
			if slices.Contains(names, theQuery) {
				hint = " (a query needs quotes: '...')"
			}
			return usage("unexpected argument %q; see `%s --help`%s", args[len(names)], c.CommandPath(), hint)
		}
		return usage("%s is missing; see `%s --help`", names[len(args)], c.CommandPath())
	}
}

// atMostOneArg is for commands whose one argument may be left out.
func atMostOneArg(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("unexpected argument %q; see `%s --help`", args[1], c.CommandPath())
	}
	return nil
}

// onlyCommands makes a command that is nothing but a list of others show that list, and name what it does not know.
func onlyCommands(c *cobra.Command) *cobra.Command {
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		near := ""
		if names := c.SuggestionsFor(args[0]); len(names) > 0 {
			near = "; did you mean " + strings.Join(names, " or ") + "?"
		}
		return usage("unknown command %q; see `%s --help`%s", args[0], c.CommandPath(), near)
	}
	return c
}

// serverError is an error of a call, with what was asked.
type serverError struct {
	address string
	err     error
}

func (e *serverError) Error() string { return e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }

// explainError words an error for a person: what happened, and what to do about it.
func explainError(err error) string {
	var server *serverError
	if !errors.As(err, &server) {
		return err.Error()
	}
	s, ok := status.FromError(server.err)
	if !ok {
		return err.Error()
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Sprintf("no answer from %s: %s\nIs it running? Start one on this machine with `lakerunner up`, or name another with --address.", server.address, s.Message())
	case codes.Unauthenticated:
		return fmt.Sprintf("%s does not accept the API key: %s\nGive one with --api-key or LAKERUNNER_API_KEY; an administrator makes one with `lakerunner apikey create`.", server.address, s.Message())
	case codes.PermissionDenied:
		return fmt.Sprintf("the API key may not do this: %s\nA key with another scope is needed; see `lakerunner apikey create --help`.", s.Message())
	case codes.Unimplemented:
		return fmt.Sprintf("%s does not offer this: %s", server.address, s.Message())
	case codes.ResourceExhausted:
		return fmt.Sprintf("a limit was reached: %s\nA shorter range (--since) or a narrower selector needs less.", s.Message())
	}
	return s.Message()
}
