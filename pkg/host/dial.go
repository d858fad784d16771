// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"fmt"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// InProcess is a listener without a network: services of one process call one another through it, and the REST gateway calls them.
// Connections may be made before the process serves; their calls wait for it.
type InProcess struct {
	listener *bufconn.Listener
	token    string
}

// NewInProcess returns one. The token is the process's internal token; empty: a random one.
func NewInProcess(token string) *InProcess {
	if token == "" {
		token = config.NewSecret()
	}
	return &InProcess{listener: bufconn.Listen(1 << 20), token: token}
}

// Dial connects to the services of this process, as another service does: with the internal token, errors with their kinds.
func (p *InProcess) Dial(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return p.dial(append(callOptions(p.token), options...)...)
}

func (p *InProcess) dial(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append([]grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///in-process", options...)
	if err != nil {
		return nil, fmt.Errorf("dial in process: %w", err)
	}
	return conn, nil
}

// callOptions are how one service calls another.
func callOptions(token string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(fault.UnaryClient, func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(withToken(ctx, token), method, request, reply, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(fault.StreamClient, func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(withToken(ctx, token), desc, conn, method, options...)
		}),
	}
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, internalHeader, token)
}

// dialRemote connects to a service of another process. A target of several addresses (dns:///name:port) is called in turn.
func dialRemote(target string, c ClientConfig, token string, t *Telemetry) (*grpc.ClientConn, error) {
	security, err := clientSecurity(c)
	if err != nil {
		return nil, err
	}
	options := append(callOptions(token),
		grpc.WithTransportCredentials(security),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.rpcOptions()...)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "dial %s: %w", target, err)
	}
	return conn, nil
}

func clientSecurity(c ClientConfig) (credentials.TransportCredentials, error) {
	if !c.TLS && c.CAFile == "" && c.CertFile == "" {
		return insecure.NewCredentials(), nil
	}
	settings, err := clientTLS(c)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(settings), nil
}
