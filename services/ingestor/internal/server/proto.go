// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

func objectOf(o *lakev1.Object) lake.Object {
	object := lake.Object{Bucket: o.GetBucket(), Key: o.GetKey(), Tag: o.GetTag(), Size: o.GetSize()}
	if o.GetLastModified() != nil {
		object.LastModified = o.GetLastModified().AsTime()
	}
	return object
}

func receiptIDs(texts []string) ([]lake.ReceiptID, error) {
	if len(texts) > 1000 {
		return nil, fault.New(fault.Invalid, "receipt_ids: at most 1000")
	}
	ids := make([]lake.ReceiptID, 0, len(texts))
	for _, text := range texts {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id <= 0 {
			return nil, fault.New(fault.Invalid, "receipt id %q: want a positive number", text)
		}
		ids = append(ids, lake.ReceiptID(id))
	}
	return ids, nil
}

func previewProto(p pipeline.Preview) *ingestorv1.PreviewObjectResponse {
	response := &ingestorv1.PreviewObjectResponse{
		Format: p.Format, Signal: lakeproto.SignalProto(p.Signal), RowsIn: p.In, RowsOut: p.Out, Rejected: p.Rejected, Problem: p.Problem,
	}
	for _, a := range p.Attributes {
		response.Attributes = append(response.Attributes, &ingestorv1.Attribute{Scope: a.Scope, Name: a.Name, Type: kindName(a.Kind), Rows: a.Rows})
	}
	for _, r := range p.Rows {
		response.FirstRows = append(response.FirstRows, &ingestorv1.PreviewRow{
			Time: timestamppb.New(r.Time), TimeSource: sourceName(r.TimeSource), Labels: labelMap(r.Labels), Metadata: labelMap(r.Metadata),
			Body: r.Body, Template: r.Template,
		})
	}
	for _, r := range p.Rejects {
		response.FirstRejects = append(response.FirstRejects, &ingestorv1.RejectedRow{Reason: r.Reason, Row: r.Row})
	}
	return response
}

func labelMap(labels []columns.Label) map[string]string {
	m := make(map[string]string, len(labels))
	for _, l := range labels {
		m[l.Name] = l.Value
	}
	return m
}

func kindName(k columns.ValueKind) string {
	switch k {
	case columns.KindInt:
		return "int"
	case columns.KindDouble:
		return "double"
	case columns.KindBool:
		return "bool"
	case columns.KindBytes:
		return "bytes"
	case columns.KindArray:
		return "array"
	case columns.KindMap:
		return "map"
	}
	return "string"
}

func sourceName(s columns.TimeSource) string {
	switch s {
	case columns.TimeObserved:
		return "observed"
	case columns.TimeObject:
		return "object"
	}
	return "event"
}
