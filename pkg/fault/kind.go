// SPDX-License-Identifier: AGPL-3.0-only

package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies an error. A Kind is itself an error, so errors.Is(err, fault.NotFound) asks for it.
type Kind string

// The kinds.
const (
	Invalid         Kind = "invalid"         // the request is wrong; asking again is pointless
	Unsupported     Kind = "unsupported"     // a construct that cannot be answered
	NotFound        Kind = "not_found"       // what was named does not exist
	Conflict        Kind = "conflict"        // someone else was first: a lost lease, a segment that is gone
	Unauthenticated Kind = "unauthenticated" // no or a wrong key
	Denied          Kind = "denied"          // a key without the scope, or another organization's data
	Exhausted       Kind = "exhausted"       // a limit or budget
	Unavailable     Kind = "unavailable"     // try again, or elsewhere
	Timeout         Kind = "timeout"         // a deadline
	Canceled        Kind = "canceled"        // the caller went away
	MissingSegment  Kind = "missing_segment" // the index names a file that the store does not have
	Internal        Kind = "internal"        // a bug of ours
)

// Error makes a Kind a target for errors.Is.
func (k Kind) Error() string { return string(k) }

type fault struct {
	kind Kind
	err  error
}

func (f *fault) Error() string        { return f.err.Error() }
func (f *fault) Unwrap() error        { return f.err }
func (f *fault) Is(target error) bool { return target == f.kind }

// New makes an error of a kind; format and args as for fmt.Errorf.
func New(kind Kind, format string, args ...any) error {
	return &fault{kind: kind, err: fmt.Errorf(format, args...)}
}

// Wrap gives err a kind; nil stays nil. KindOf then gives that kind, whatever kinds lie within.
func Wrap(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &fault{kind: kind, err: err}
}

// KindOf returns the outermost kind of err. A context's own errors are Canceled and Timeout; anything else without a kind is Internal.
func KindOf(err error) Kind {
	var f *fault
	switch {
	case errors.As(err, &f):
		return f.kind
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}
