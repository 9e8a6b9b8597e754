// A CSI driver for tests. A volume is a folder, a file behind a loop device, or, with the attribute
// "disk", a file system on such a device, below its own folder; an inline volume is a tmpfs. Every
// request is a line of its log. What it can and how it behaves stands in a JSON file beside them,
// read at each call.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type behaviour struct {
	// Names of csi.NodeServiceCapability_RPC_Type.
	Capabilities []string
	// Methods that fail.
	Refuse []string
	// Bytes that a volume holds, by its word.
	Size int64
}

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	name, dir string
}

func (d *driver) behaviour() (b behaviour) {
	text, err := os.ReadFile(filepath.Join(d.dir, "behaviour.json"))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		log.Print(err)
	}
	return b
}

// Writes down every request, and refuses those that it is told to.
func (d *driver) log(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := filepath.Base(info.FullMethod)
	text, _ := json.Marshal(r)
	log.Printf("%s %s", method, text)
	for _, refused := range d.behaviour().Refuse {
		if refused == method {
			return nil, status.Errorf(codes.Internal, "%s is refused today", method)
		}
	}
	answer, err := handle(ctx, r)
	if err != nil {
		log.Printf("%s failed: %v", method, err)
	}
	return answer, err
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	host, err := os.Hostname()
	return &csi.NodeGetInfoResponse{
		NodeId:             "id-of-" + host,
		MaxVolumesPerNode:  7,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{d.name + "/zone": "here"}},
	}, err
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, name := range d.behaviour().Capabilities {
		rpc := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_Type(csi.NodeServiceCapability_RPC_Type_value[name])}
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}})
	}
	return answer, nil
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", status.Errorf(codes.Internal, "%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func mounted(path string) bool {
	return exec.Command("mountpoint", "-q", path).Run() == nil
}

func unmount(path string) error {
	for mounted(path) {
		if _, err := run("umount", path); err != nil {
			return err
		}
	}
	return nil
}

// The volume's own folder; it outlives every pod.
func (d *driver) folder(id string) (string, error) {
	path := filepath.Join(d.dir, "volumes", id)
	return path, os.MkdirAll(path, 0o755)
}

// The loop device over the volume's file, attached if it isn't.
func (d *driver) device(id string) (string, error) {
	path := filepath.Join(d.dir, id+".img")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := file.Truncate(8 << 20); err != nil {
		return "", err
	}
	if all, err := run("losetup", "-n", "-O", "NAME", "-j", path); err != nil || all != "" {
		return strings.SplitN(all, "\n", 2)[0], err
	}
	return run("losetup", "-f", "--show", path)
}

func bind(source, target string, readonly bool, flags []string) error {
	if mounted(target) {
		return nil
	}
	if _, err := run("mount", "--bind", source, target); err != nil {
		return err
	}
	flags = withoutLabel(flags)
	if readonly {
		flags = append(flags, "ro")
	}
	if len(flags) == 0 {
		return nil
	}
	_, err := run("mount", "-o", "remount,bind,"+strings.Join(flags, ","), target)
	return err
}

// The volume's own file system, mounted with these flags; it outlives every pod.
func (d *driver) mountDisk(id, target string, flags []string) error {
	if mounted(target) {
		return nil
	}
	device, err := d.device(id)
	if err != nil {
		return err
	}
	if _, err := run("blkid", device); err != nil {
		if _, err := run("mkfs.ext4", "-q", device); err != nil {
			return err
		}
	}
	args := []string{"-t", "ext4", device, target}
	if len(flags) > 0 {
		args = append([]string{"-o", strings.Join(flags, ",")}, args...)
	}
	_, err = run("mount", args...)
	return err
}

// A label is the file system's: who binds it can't choose another.
func withoutLabel(flags []string) (left []string) {
	for _, flag := range flags {
		if !strings.HasPrefix(flag, "context=") {
			left = append(left, flag)
		}
	}
	return left
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	answer := &csi.NodeStageVolumeResponse{}
	if r.VolumeCapability.GetBlock() != nil {
		_, err := d.device(r.VolumeId)
		return answer, err
	}
	flags := r.VolumeCapability.GetMount().GetMountFlags()
	if _, disk := r.VolumeContext["disk"]; disk {
		return answer, d.mountDisk(r.VolumeId, r.StagingTargetPath, flags)
	}
	source, err := d.folder(r.VolumeId)
	if err != nil {
		return nil, err
	}
	return answer, bind(source, r.StagingTargetPath, false, flags)
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := unmount(r.StagingTargetPath); err != nil {
		return nil, err
	}
	path := filepath.Join(d.dir, r.VolumeId+".img")
	if _, err := os.Stat(path); err == nil {
		device, err := d.device(r.VolumeId)
		if err == nil {
			_, err = run("losetup", "-d", device)
		}
		if err != nil {
			return nil, err
		}
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	answer := &csi.NodePublishVolumeResponse{}
	if r.VolumeCapability.GetBlock() != nil {
		device, err := d.device(r.VolumeId)
		if err != nil {
			return nil, err
		}
		file, err := os.OpenFile(r.TargetPath, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		file.Close()
		if all, _ := run("findmnt", "-no", "TARGET", r.TargetPath); all != "" {
			return answer, nil
		}
		return answer, bind(device, r.TargetPath, false, nil)
	}
	if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
		return nil, err
	}
	if r.VolumeContext["csi.storage.k8s.io/ephemeral"] == "true" {
		if mounted(r.TargetPath) {
			return answer, nil
		}
		_, err := run("mount", "-t", "tmpfs", "inline", r.TargetPath)
		return answer, err
	}
	source := r.StagingTargetPath
	if source == "" {
		var err error
		if source, err = d.folder(r.VolumeId); err != nil {
			return nil, err
		}
	}
	return answer, bind(source, r.TargetPath, r.Readonly, r.VolumeCapability.GetMount().GetMountFlags())
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(r.TargetPath); err != nil {
		return nil, err
	}
	// A file that is mounted on is no mount point for mountpoint(1).
	if all, _ := run("findmnt", "-no", "TARGET", r.TargetPath); all != "" {
		if _, err := run("umount", r.TargetPath); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	return &csi.NodeExpandVolumeResponse{CapacityBytes: r.CapacityRange.GetRequiredBytes()}, nil
}

func (d *driver) NodeGetVolumeStats(context.Context, *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	size := d.behaviour().Size
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: size, Used: 1, Available: size - 1},
		{Unit: csi.VolumeUsage_INODES, Total: 10, Used: 3, Available: 7},
	}}, nil
}

type registrar struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r *registrar) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered %v %s", s.PluginRegistered, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func serve(socket string, server *grpc.Server) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return server.Serve(listener)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: csi-driver NAME FOLDER")
		os.Exit(64)
	}
	d := &driver{name: os.Args[1], dir: os.Args[2]}
	endpoint := filepath.Join("/var/lib/kubelet/plugins", d.name, "csi.sock")
	server := grpc.NewServer(grpc.UnaryInterceptor(d.log))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterNodeServer(server, d)
	go func() { log.Fatal(serve(endpoint, server)) }()
	for {
		if _, err := os.Stat(endpoint); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	reg := grpc.NewServer()
	registration.RegisterRegistrationServer(reg, &registrar{name: d.name, endpoint: endpoint})
	log.Fatal(serve(filepath.Join("/var/lib/kubelet/plugins_registry", d.name+"-reg.sock"), reg))
}
