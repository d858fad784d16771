// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/up"
)

// maxMessage bounds messages both ways: an uploaded object may have 64 MiB.
const maxMessage = 80 << 20

// client finds the server and calls it.
type client struct {
	env     Environment
	address string
	key     string
	data    string
	tls     bool
	ca      string
}

func (c *client) addFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&c.address, "address", "", "gRPC address of the server, host:port (LAKERUNNER_ADDRESS)")
	flags.StringVar(&c.key, "api-key", "", "API key (LAKERUNNER_API_KEY)")
	flags.StringVar(&c.data, "data", "", "data `directory` of 'lakerunner up' (LAKERUNNER_DATA, default "+up.DefaultData+")")
	flags.BoolVar(&c.tls, "tls", false, "connect with TLS, trusting the system's authorities (LAKERUNNER_TLS=true)")
	flags.StringVar(&c.ca, "ca-file", "", "connect with TLS, trusting the authorities in this PEM file (LAKERUNNER_CA_FILE)")
}

// resolve fills in what flags left open: environment first, then the data directory.
func (c *client) resolve() error {
	c.address = firstOf(c.address, c.env.Getenv("LAKERUNNER_ADDRESS"))
	c.key = firstOf(c.key, c.env.Getenv("LAKERUNNER_API_KEY"))
	c.ca = firstOf(c.ca, c.env.Getenv("LAKERUNNER_CA_FILE"))
	c.tls = c.tls || c.ca != "" || c.env.Getenv("LAKERUNNER_TLS") == "true"
	if c.address != "" && c.key != "" {
		return nil
	}
	local, found, err := up.ReadAccess(c.dataDir())
	if err != nil {
		return err
	}
	if found && (c.address == "" || c.address == local.Address) {
		c.address = firstOf(c.address, local.Address)
		c.key = firstOf(c.key, local.APIKey)
	}
	c.address = firstOf(c.address, up.DefaultGRPC)
	return nil
}

func (c *client) dataDir() string {
	return firstOf(c.data, c.env.Getenv("LAKERUNNER_DATA"), up.DefaultData)
}

// call runs f with a connection, and gives its error the server's address.
func (c *client) call(ctx context.Context, f func(ctx context.Context, conn *grpc.ClientConn) error) error {
	if err := c.resolve(); err != nil {
		return err
	}
	transport, err := c.transport()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(c.address, "grpc://"),
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return usage("address %q: %w", c.address, err)
	}
	defer func() { _ = conn.Close() }()
	if c.key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.key)
	}
	if err := f(ctx, conn); err != nil {
		if isUsage(err) {
			return err
		}
		return &serverError{address: c.address, err: err}
	}
	return nil
}

func (c *client) transport() (credentials.TransportCredentials, error) {
	switch {
	case c.ca != "":
		t, err := credentials.NewClientTLSFromFile(c.ca, "")
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		return t, nil
	case c.tls:
		return credentials.NewTLS(nil), nil
	}
	return insecure.NewCredentials(), nil
}

func (c *client) query(ctx context.Context, f func(context.Context, queryv1.QueryServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, queryv1.NewQueryServiceClient(conn))
	})
}

func (c *client) ingestor(ctx context.Context, f func(context.Context, ingestorv1.IngestorServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, ingestorv1.NewIngestorServiceClient(conn))
	})
}

func (c *client) notifier(ctx context.Context, f func(context.Context, notifierv1.NotifierServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, notifierv1.NewNotifierServiceClient(conn))
	})
}

func (c *client) config(ctx context.Context, f func(context.Context, configv1.ConfigServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, configv1.NewConfigServiceClient(conn))
	})
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
