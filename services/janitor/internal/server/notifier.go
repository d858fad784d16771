// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/janitor/internal/reconcile"
)

// notifier tells the notifier of objects by gRPC.
type notifier struct {
	client notifierv1.NotifierServiceClient
}

var _ reconcile.Notifier = notifier{}

// NewNotifier returns a notifier that is reached over a connection.
func NewNotifier(conn grpc.ClientConnInterface) reconcile.Notifier {
	return notifier{client: notifierv1.NewNotifierServiceClient(conn)}
}

// Notify returns when all of the objects have receipts.
func (n notifier) Notify(ctx context.Context, objects []lake.Object) error {
	for len(objects) > 0 {
		some := min(len(objects), reconcile.Handed)
		request := &notifierv1.NotifyObjectsRequest{}
		for _, o := range objects[:some] {
			request.Objects = append(request.Objects, lakeproto.ObjectProto(o))
		}
		if _, err := n.client.NotifyObjects(ctx, request); err != nil {
			return err
		}
		objects = objects[some:]
	}
	return nil
}
