// An OpenTelemetry collector for tests, of OpenTelemetry's own Go code for OTLP: listens at
// ADDRESS and writes each request it is sent as a line of JSON to FILE.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

type keeper struct {
	collector.UnimplementedTraceServiceServer
	mutex sync.Mutex
	file  *os.File
}

func (k *keeper) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	line, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if _, err := k.file.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func main() {
	network, address := "tcp", os.Args[1]
	if path, found := strings.CutPrefix(address, "unix:"); found {
		network, address = "unix", path
	}
	file, err := os.Create(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, &keeper{file: file})
	log.Fatal(server.Serve(listener))
}
