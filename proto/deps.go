package proto
import (
 _ "google.golang.org/grpc"
 _ "google.golang.org/protobuf/proto"
 _ "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
 _ "google.golang.org/genproto/googleapis/api/httpbody"
)
