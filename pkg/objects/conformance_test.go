// SPDX-License-Identifier: AGPL-3.0-only

package objects_test

import (
	"testing"

	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("S3 server", func(t *testing.T) {
		t.Parallel()
		objectstest.Conformance(t, server)
	})
	t.Run("S3 in memory", func(t *testing.T) {
		t.Parallel()
		objectstest.Conformance(t, memory, objectstest.BeyondMemory()...)
	})
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		objectstest.Conformance(t, directory)
	})
}

func server(t *testing.T) objects.Bucket {
	t.Helper()
	return s3test.New(t).Bucket
}

func memory(t *testing.T) objects.Bucket {
	t.Helper()
	return objectstest.Memory(t)
}

func directory(t *testing.T) objects.Bucket {
	t.Helper()
	d, err := objects.OpenDirectory("directory", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
