// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// The providers that Open knows.
const (
	ProviderAWS  = "aws"  // Amazon S3, and with an Endpoint everything that speaks its protocol; "" and "s3" mean it too
	ProviderGCP  = "gcp"  // Google Cloud Storage by its S3 interoperability endpoint: AccessKey and SecretKey are HMAC keys
	ProviderFile = "file" // a directory
)

// Location says where a bucket is and how to be let in. It is what a storage profile holds of its bucket.
type Location struct {
	Provider string
	Name     string // the bucket's name
	// Endpoint is the URL of an S3-compatible server. Empty: the provider's own.
	Endpoint string
	Region   string // empty: as the environment says, else us-east-1
	// AccessKey and SecretKey; both empty: the SDK's default chain (environment, profile, web identity, instance role).
	AccessKey string
	SecretKey string
	// RoleARN, if not empty, is assumed with the credentials above.
	RoleARN string
	// PathStyle puts the bucket into the path instead of the host's name. It is implied where the endpoint is an address or localhost.
	PathStyle bool
	Directory string // of ProviderFile
	// Prices of requests; zero: the provider's list price.
	Prices Prices
}

// Open returns the bucket at a location, bare: see Standard for the wrappers. It asks nobody, so that a store which is away does
// not hinder a start; that the bucket exists is seen by the first request.
func Open(ctx context.Context, l Location) (Bucket, error) {
	if l.Name == "" {
		return nil, fault.New(fault.Invalid, "open bucket: it has no name")
	}
	switch l.Provider {
	case "", "s3", ProviderAWS, ProviderGCP:
		return openS3(ctx, l)
	case ProviderFile:
		return OpenDirectory(l.Name, l.Directory)
	}
	return nil, fault.New(fault.Invalid, "open bucket %s: unknown provider %q: want %s, %s or %s", l.Name, l.Provider, ProviderAWS, ProviderGCP, ProviderFile)
}
