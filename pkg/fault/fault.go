// SPDX-License-Identifier: AGPL-3.0-only

// Package fault holds the kinds of error that someone acts on, and their one mapping to gRPC status and HTTP.
//
// A kind is given where the cause is known: fault.New(fault.Invalid, "..."), or fault.Wrap(fault.Unavailable, err).
// Interceptors (ServerInterceptors, ClientInterceptors) alone map kind <-> gRPC status, so that errors.Is(err, fault.NotFound)
// works on both sides of a wire. The kind travels as the reason of a google.rpc.ErrorInfo of the domain "lakerunner"; a status
// without one, of a proxy or of gRPC itself, gets the kind that its code comes closest to.
//
// It does not decide what is retried, and it does not log.
package fault
