// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"

	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
)

// announce tells the notifier of an object by gRPC; it returns whether it was known.
func (l *lake) announce(organization string, o *lakev1.Object) bool {
	l.t.Helper()
	answer, err := l.notifier.NotifyObjects(l.as(organization), &notifierv1.NotifyObjectsRequest{Objects: []*lakev1.Object{o}})
	if err != nil {
		l.t.Fatal(err)
	}
	return answer.GetResults()[0].GetDuplicate()
}

// ingestNow asks for a stored object at once.
func (l *lake) ingestNow(organization, key string) lakev1.ReceiptState {
	l.t.Helper()
	answer, err := l.ingestor.IngestObject(l.as(organization), &ingestorv1.IngestObjectRequest{Object: &lakev1.Object{Bucket: l.bucket.Name(), Key: key}})
	if err != nil {
		l.t.Fatal(err)
	}
	return answer.GetReceipt().GetState()
}

// replay ingests the object of a receipt once more.
func (l *lake) replay(organization, receipt string) {
	l.t.Helper()
	answer, err := l.ingestor.ReplayObjects(l.as(organization), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{receipt}})
	if err != nil {
		l.t.Fatal(err)
	}
	if answer.GetObjects() != 1 {
		l.t.Fatalf("%d objects are replayed, want 1", answer.GetObjects())
	}
}

// applyConfig applies a document with the rights of ctx.
func applyConfig(ctx context.Context, l *lake, document string) error {
	_, err := l.config.ApplyConfig(ctx, &configv1.ApplyConfigRequest{Document: document, ValidateOnly: true})
	return err
}
