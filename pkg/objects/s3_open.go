// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

const (
	googleEndpoint = "https://storage.googleapis.com"
	googleRegion   = "auto"
	defaultRegion  = "us-east-1"
)

// openS3 makes the client. Retries are left to WithRetry, which knows the kinds of error and rewinds bodies.
func openS3(ctx context.Context, l Location) (Bucket, error) {
	google := l.Provider == ProviderGCP
	if google && l.Endpoint == "" {
		l.Endpoint = googleEndpoint
	}
	if google && l.Region == "" {
		l.Region = googleRegion
	}
	if err := l.checkS3(); err != nil {
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("open bucket %s: %w", l.Name, err))
	}
	cfg, err := loadAWS(ctx, l)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("open bucket %s: %w", l.Name, err))
	}
	if l.Prices == nil {
		l.Prices = ListPrices(l.Provider)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { l.tune(o, google) })
	return &s3Bucket{name: l.Name, client: client, price: l.Prices, google: google}, nil
}

func (l Location) checkS3() error {
	if (l.AccessKey == "") != (l.SecretKey == "") {
		return fmt.Errorf("access key and secret key go together: one of them is empty")
	}
	if l.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(l.Endpoint)
	if err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("endpoint %q: want http://host or https://host", l.Endpoint)
	}
	return nil
}

// loadAWS resolves region and credentials.
func loadAWS(ctx context.Context, l Location) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(asStored)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
	}
	if l.Region != "" {
		options = append(options, config.WithRegion(l.Region))
	}
	if l.AccessKey != "" {
		options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(l.AccessKey, l.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	if l.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), l.RoleARN))
	}
	return cfg, nil
}

// asStored keeps Go's transport from asking for gzip and then undoing a Content-Encoding that belongs to the object. The pool is
// wide because workers fetch many ranges of many segments from one host.
func asStored(t *http.Transport) {
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 128
	t.IdleConnTimeout = 60 * time.Second
	t.ResponseHeaderTimeout = time.Minute
}

func (l Location) tune(o *s3.Options, google bool) {
	o.UsePathStyle = l.PathStyle || plainHost(l.Endpoint)
	// Many S3-compatible servers know none of the checksums that newer SDKs send unasked.
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	o.DisableLogOutputChecksumValidationSkipped = true
	o.APIOptions = append(o.APIOptions, countRequests)
	if l.Endpoint != "" {
		o.BaseEndpoint = aws.String(l.Endpoint)
	}
	if l.encrypted() {
		// TLS guards the payload already; hashing it would read every body twice.
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	}
	if google {
		o.APIOptions = append(o.APIOptions, hideAcceptEncoding)
	}
}

func (l Location) encrypted() bool {
	u, err := url.Parse(l.Endpoint)
	return err == nil && u.Scheme != "http"
}

// plainHost reports whether no bucket can be put in front of the endpoint's host name.
func plainHost(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || endpoint == "" {
		return false
	}
	return u.Hostname() == "localhost" || net.ParseIP(u.Hostname()) != nil
}

// countRequests tells the context's Tally of each request sent.
func countRequests(stack *middleware.Stack) error {
	counter := middleware.FinalizeMiddlewareFunc("CountRequests", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		count(ctx, requestOf(middleware.GetOperationName(ctx)))
		return next.HandleFinalize(ctx, in)
	})
	return stack.Finalize.Add(counter, middleware.After)
}

func requestOf(operation string) Request {
	switch operation {
	case "GetObject":
		return RequestGet
	case "HeadObject", "GetBucketVersioning":
		return RequestHead
	case "ListObjectsV2":
		return RequestList
	case "DeleteObject", "DeleteObjects", "AbortMultipartUpload":
		return RequestDelete
	}
	return RequestPut
}

// hideAcceptEncoding asks GCS for gzip, without which it decompresses objects stored with that Content-Encoding; it rewrites the
// header on the way, so the header must not be signed.
func hideAcceptEncoding(stack *middleware.Stack) error {
	const header = "Accept-Encoding"
	hide := middleware.FinalizeMiddlewareFunc("HideAcceptEncoding", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok {
			request.Header.Del(header)
		}
		return next.HandleFinalize(ctx, in)
	})
	ask := middleware.FinalizeMiddlewareFunc("AskForGzip", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok {
			request.Header.Set(header, "gzip")
		}
		return next.HandleFinalize(ctx, in)
	})
	if err := stack.Finalize.Insert(hide, "Signing", middleware.Before); err != nil {
		return err
	}
	return stack.Finalize.Insert(ask, "Signing", middleware.After)
}
