// A DRA driver for tests, over the library that real drivers are made with. `dradriver NAME NODE
// DIR`: publishes the devices named in DIR/devices, one a line, with a CDI device for each that
// sets a variable. Calls are written to DIR/log; a word in DIR/refuse is the error of every call.
// A second word of a device's line is its health. With a file DIR/old it speaks the older versions
// alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

type driver struct {
	name, node, dir string
	log             *log.Logger
}

type device struct{ name, health string }

func (d *driver) devices() []device {
	text, err := os.ReadFile(filepath.Join(d.dir, "devices"))
	if err != nil {
		log.Fatal(err)
	}
	var all []device
	for line := range strings.Lines(string(text)) {
		words := append(strings.Fields(line), "Healthy")
		if len(words) > 1 {
			all = append(all, device{words[0], words[1]})
		}
	}
	return all
}

func (d *driver) refusal() error {
	if text, err := os.ReadFile(filepath.Join(d.dir, "refuse")); err == nil {
		return errors.New(strings.TrimSpace(string(text)))
	}
	return nil
}

func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		d.log.Printf("prepare %s", claim.Name)
		result := kubeletplugin.PrepareResult{Err: d.refusal()}
		for _, r := range claim.Status.Allocation.Devices.Results {
			if r.Driver == d.name && result.Err == nil {
				result.Devices = append(result.Devices, kubeletplugin.Device{
					Requests: []string{r.Request}, PoolName: r.Pool, DeviceName: r.Device,
					CDIDeviceIDs: []string{d.cdi(r.Device)},
				})
			}
		}
		results[claim.UID] = result
	}
	return results, nil
}

func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		d.log.Printf("unprepare %s", claim.Name)
		results[claim.UID] = d.refusal()
	}
	return results, nil
}

func (d *driver) HandleError(_ context.Context, err error, msg string) {
	d.log.Printf("error %s: %v", msg, err)
}

func (d *driver) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	for ctx.Err() == nil {
		var report kubeletplugin.DeviceHealthReport
		for _, device := range d.devices() {
			report.Devices = append(report.Devices, kubeletplugin.DeviceHealth{
				PoolName: d.node, DeviceName: device.name, Health: kubeletplugin.HealthStatus(device.health),
				LastUpdated: time.Now(), Message: "it is " + device.health,
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case reports <- report:
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

func (d *driver) cdi(device string) string { return d.name + "/device=" + device }

// Each device sets a variable of its own, so that a container tells which it has.
func (d *driver) writeCDI() error {
	var devices []string
	for _, device := range d.devices() {
		devices = append(devices, fmt.Sprintf(
			`{"name": %q, "containerEdits": {"env": ["DRA_%s=yes"]}}`, device.name, strings.ToUpper(device.name)))
	}
	text := fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "%s/device", "devices": [%s]}`,
		d.name, strings.Join(devices, ", "))
	if err := os.MkdirAll("/run/cdi", 0o755); err != nil {
		return err
	}
	return os.WriteFile("/run/cdi/"+d.name+".json", []byte(text), 0o644)
}

func (d *driver) resources() resourceslice.DriverResources {
	var slice resourceslice.Slice
	for _, device := range d.devices() {
		slice.Devices = append(slice.Devices, resourceapi.Device{Name: device.name})
	}
	pool := resourceslice.Pool{Slices: []resourceslice.Slice{slice}}
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{d.node: pool}}
}

func run(d *driver) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(d.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := d.writeCDI(); err != nil {
		return err
	}
	data := filepath.Join(kubeletplugin.KubeletPluginsDir, d.name)
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	_, err = os.Stat(filepath.Join(d.dir, "old"))
	newest := err != nil
	helper, err := kubeletplugin.Start(ctx, d, kubeletplugin.KubeClient(client),
		kubeletplugin.NodeName(d.node), kubeletplugin.DriverName(d.name),
		kubeletplugin.NodeV1(newest), kubeletplugin.HealthV1(newest))
	if err != nil {
		return err
	}
	if err := helper.PublishResources(ctx, d.resources()); err != nil {
		return err
	}
	registered := false
	for ctx.Err() == nil {
		if status := helper.RegistrationStatus(); status != nil && status.PluginRegistered && !registered {
			registered = true
			d.log.Print("registered")
		}
		time.Sleep(50 * time.Millisecond)
	}
	helper.Stop()
	return nil
}

func main() {
	d := &driver{name: os.Args[1], node: os.Args[2], dir: os.Args[3]}
	file, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	d.log = log.New(file, "", 0)
	if err := run(d); err != nil {
		log.Fatal(err)
	}
}
