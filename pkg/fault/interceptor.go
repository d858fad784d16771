// SPDX-License-Identifier: AGPL-3.0-only

package fault

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
)

// UnaryServer turns a handler's error into its gRPC status.
func UnaryServer(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	response, err := handler(ctx, request)
	return response, Status(err).Err()
}

// StreamServer turns a handler's error into its gRPC status.
func StreamServer(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return Status(handler(server, stream)).Err()
}

// UnaryClient gives the error of a call its kind.
func UnaryClient(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return FromRPC(invoke(ctx, method, request, reply, conn, options...))
}

// StreamClient gives the errors of a stream their kinds. io.EOF stays what it is.
func StreamClient(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, FromRPC(err)
	}
	return &clientStream{stream}, nil
}

type clientStream struct{ grpc.ClientStream }

func (s *clientStream) RecvMsg(m any) error { return fromStream(s.ClientStream.RecvMsg(m)) }

func (s *clientStream) SendMsg(m any) error { return fromStream(s.ClientStream.SendMsg(m)) }

func (s *clientStream) CloseSend() error { return fromStream(s.ClientStream.CloseSend()) }

func fromStream(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return FromRPC(err)
}

// ServerInterceptors are the options of a server whose handlers return errors with kinds.
func ServerInterceptors() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(UnaryServer), grpc.ChainStreamInterceptor(StreamServer)}
}

// ClientInterceptors are the options of a connection whose errors get their kinds back.
func ClientInterceptors() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(UnaryClient), grpc.WithChainStreamInterceptor(StreamClient)}
}
