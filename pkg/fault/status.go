// SPDX-License-Identifier: AGPL-3.0-only

package fault

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Domain is the ErrorInfo domain of our errors.
const Domain = "lakerunner"

// mapping is one kind's place in gRPC and in HTTP. The HTTP status is the one that grpc-gateway gives the code, so that an error
// in the middle of a stream looks like one before it.
type mapping struct {
	kind Kind
	code codes.Code
	http int
}

// mappings, in the order in which a code finds its kind: MissingSegment and Internal have codes that gRPC gives for other reasons too.
func mappings() []mapping {
	return []mapping{
		{Invalid, codes.InvalidArgument, http.StatusBadRequest},
		{Unsupported, codes.Unimplemented, http.StatusNotImplemented},
		{NotFound, codes.NotFound, http.StatusNotFound},
		{Conflict, codes.Aborted, http.StatusConflict},
		{Unauthenticated, codes.Unauthenticated, http.StatusUnauthorized},
		{Denied, codes.PermissionDenied, http.StatusForbidden},
		{Exhausted, codes.ResourceExhausted, http.StatusTooManyRequests},
		{Unavailable, codes.Unavailable, http.StatusServiceUnavailable},
		{Timeout, codes.DeadlineExceeded, http.StatusGatewayTimeout},
		{Canceled, codes.Canceled, 499},
		{MissingSegment, codes.DataLoss, http.StatusInternalServerError},
		{Internal, codes.Internal, http.StatusInternalServerError},
	}
}

func mappingOf(kind Kind) mapping {
	all := mappings()
	for _, m := range all {
		if m.kind == kind {
			return m
		}
	}
	return all[len(all)-1]
}

// HTTPStatus is the HTTP status code of a kind.
func HTTPStatus(kind Kind) int { return mappingOf(kind).http }

// Code is the gRPC code of a kind.
func Code(kind Kind) codes.Code { return mappingOf(kind).code }

// Status is the gRPC status of an error. An error that is a status already, and has no kind, keeps it.
func Status(err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	var f *fault
	var made interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &f) && errors.As(err, &made) {
		return made.GRPCStatus()
	}
	kind := KindOf(err)
	// A status message must be UTF-8; an error that quotes input may not be.
	s := status.New(Code(kind), strings.ToValidUTF8(err.Error(), "�"))
	detailed, detailErr := s.WithDetails(&errdetails.ErrorInfo{Reason: strings.ToUpper(string(kind)), Domain: Domain})
	if detailErr != nil {
		return s
	}
	return detailed
}

// FromStatus is the error of a gRPC status, as a caller in another process sees it: with its kind, and nil for OK.
func FromStatus(s *status.Status) error {
	if s.Code() == codes.OK {
		return nil
	}
	return &fault{kind: kindOfStatus(s), err: &remote{s}}
}

// FromRPC gives an error that a gRPC call returned its kind. Other errors stay as they are.
func FromRPC(err error) error {
	var f *fault
	if err == nil || errors.As(err, &f) {
		return err
	}
	if s, ok := status.FromError(err); ok {
		return FromStatus(s)
	}
	return err
}

func kindOfStatus(s *status.Status) Kind {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return Kind(strings.ToLower(info.GetReason()))
		}
	}
	for _, m := range mappings() {
		if m.code == s.Code() {
			return m.kind
		}
	}
	switch s.Code() {
	case codes.FailedPrecondition, codes.OutOfRange:
		return Invalid
	case codes.AlreadyExists:
		return Conflict
	}
	return Internal
}

// remote is an error of another process.
type remote struct{ status *status.Status }

func (r *remote) Error() string { return r.status.Message() }

// GRPCStatus lets packages of gRPC see the status.
func (r *remote) GRPCStatus() *status.Status { return r.status }

// Is makes a call that ended with the caller's own context look like that.
func (r *remote) Is(target error) bool {
	switch r.status.Code() {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	return false
}
