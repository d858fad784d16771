// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"errors"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// kindOf classifies an error of the SDK. What has neither a code nor a status never reached the server, or never came back.
func kindOf(ctx context.Context, err error) fault.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return kindOfEnd(ctx)
	}
	status := 0
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	code := apiCode(err)
	if code == "" && status == 0 {
		return kindOfLocal(err)
	}
	return kindOfCode(code, status)
}

// kindOfEnd tells the end of the caller's context from a time-out of a connection, which claims to be the same.
func kindOfEnd(ctx context.Context) fault.Kind {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Canceled
	case ctx.Err() != nil:
		return fault.Timeout
	}
	return fault.Unavailable
}

func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// kindOfLocal classifies what went wrong before an answer: a request that could not be built or signed, or a connection.
func kindOfLocal(err error) fault.Kind {
	var invalid smithy.InvalidParamsError
	if errors.As(err, &invalid) {
		return fault.Invalid
	}
	return fault.Unavailable
}

// kindOfCode classifies by S3's error code, and where it says nothing by the HTTP status.
func kindOfCode(code string, status int) fault.Kind {
	switch code {
	case "NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NotFound":
		return fault.NotFound
	case "PreconditionFailed":
		return fault.Conflict
	case "ConditionalRequestConflict", "OperationAborted", "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "RequestTimeTooSkewed",
		"InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded":
		return fault.Unavailable
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch":
		return fault.Denied
	// InvalidObjectState: the object is in a storage class from which it must be restored first.
	case "NotImplemented", "MethodNotAllowed", "InvalidObjectState":
		return fault.Unsupported
	}
	return kindOfStatus(status)
}

func kindOfStatus(status int) fault.Kind {
	switch status {
	case http.StatusNotFound:
		return fault.NotFound
	case http.StatusPreconditionFailed:
		return fault.Conflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Denied
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return fault.Unsupported
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests, 0:
		return fault.Unavailable
	}
	if status >= http.StatusInternalServerError {
		return fault.Unavailable
	}
	return fault.Invalid
}
