// A device plugin for tests. Its devices are the lines of a file, "id health [NUMA node]",
// read again whenever it changes. A container gets all that a plugin can give: a variable,
// an annotation, a mount, a device node and a CDI name.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const pause = 50 * time.Millisecond

type plugin struct {
	api.UnimplementedDevicePluginServer
	resource, file string
}

func (p *plugin) devices() []*api.Device {
	text, err := os.ReadFile(p.file)
	if err != nil {
		log.Print(err)
	}
	var devices []*api.Device
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		device := &api.Device{ID: words[0], Health: words[1]}
		if len(words) > 2 {
			node, _ := strconv.ParseInt(words[2], 10, 64)
			device.Topology = &api.TopologyInfo{Nodes: []*api.NUMANode{{ID: node}}}
		}
		devices = append(devices, device)
	}
	return devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	var sent string
	for stream.Context().Err() == nil {
		text, _ := os.ReadFile(p.file)
		if string(text) != sent || sent == "" {
			sent = string(text)
			if err := stream.Send(&api.ListAndWatchResponse{Devices: p.devices()}); err != nil {
				return err
			}
		}
		time.Sleep(pause)
	}
	return nil
}

// The last ones of the alphabet: a node without this wish takes the first.
func (p *plugin) GetPreferredAllocation(_ context.Context, r *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	answer := &api.PreferredAllocationResponse{}
	for _, c := range r.ContainerRequests {
		ids := slices.Clone(c.AvailableDeviceIDs)
		slices.Sort(ids)
		slices.Reverse(ids)
		ids = ids[:min(len(ids), int(c.AllocationSize))]
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return answer, nil
}

func (p *plugin) Allocate(_ context.Context, r *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		slices.Sort(c.DevicesIds)
		ids := strings.Join(c.DevicesIds, ",")
		log.Printf("Allocate %s", ids)
		if slices.Contains(c.DevicesIds, "refused") {
			return nil, fmt.Errorf("device %q is not to be had", "refused")
		}
		one := &api.ContainerAllocateResponse{
			Envs:        map[string]string{"EXAMPLE_DEVICES": ids},
			Annotations: map[string]string{"example.com/devices": ids},
			Mounts:      []*api.Mount{{HostPath: p.file, ContainerPath: "/example/devices", ReadOnly: true}},
			Devices:     []*api.DeviceSpec{{HostPath: "/dev/fuse", ContainerPath: "/dev/example", Permissions: "r"}},
		}
		if _, err := os.Stat("/var/run/cdi/example.com.json"); err == nil {
			one.CdiDevices = []*api.CDIDevice{{Name: "example.com/class=one"}}
		}
		answer.ContainerResponses = append(answer.ContainerResponses, one)
	}
	return answer, nil
}

func (p *plugin) PreStartContainer(_ context.Context, r *api.PreStartContainerRequest) (*api.PreStartContainerResponse, error) {
	slices.Sort(r.DevicesIds)
	log.Printf("PreStartContainer %s", strings.Join(r.DevicesIds, ","))
	return &api.PreStartContainerResponse{}, nil
}

func (p *plugin) register(endpoint string) error {
	conn, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = api.NewRegistrationClient(conn).Register(context.Background(), &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: p.resource,
	})
	return err
}

// Serves on a socket of its own until the kubelet is started anew, which removes it.
func (p *plugin) serve() error {
	endpoint := fmt.Sprintf("example-%d.sock", time.Now().UnixNano())
	socket := filepath.Join(api.DevicePluginPath, endpoint)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	defer server.Stop()
	api.RegisterDevicePluginServer(server, p)
	go server.Serve(listener)
	if err := p.register(endpoint); err != nil {
		return err
	}
	log.Printf("registered %s", p.resource)
	for {
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

func main() {
	p := &plugin{resource: os.Args[1], file: os.Args[2]}
	for {
		log.Print(p.serve())
		time.Sleep(pause)
	}
}
