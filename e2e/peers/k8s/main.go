// One multi-call binary for everything of Kubernetes that the test bed runs:
// the control plane, the stock kubelet (the peer), kubeadm, kubectl and etcd.
// One link instead of eight keeps a cold build under seven minutes on two cores.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func run(c *cobra.Command) func() {
	return func() { os.Exit(cli.Run(c)) }
}

func main() {
	programs := map[string]func(){
		"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand())() },
		"kube-controller-manager": func() { run(controllermanager.NewControllerManagerCommand())() },
		"kube-scheduler":          func() { run(scheduler.NewSchedulerCommand())() },
		"kube-proxy":              func() { run(kubeproxy.NewProxyCommand())() },
		"kubelet":                 func() { run(kubelet.NewKubeletCommand(context.Background()))() },
		"kubectl":                 func() { run(kubectl.NewDefaultKubectlCommand())() },
		"kubeadm": func() {
			if err := kubeadm.Run(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
		"etcd": func() { etcdmain.Main(os.Args) },
	}
	name := filepath.Base(os.Args[0])
	program, ok := programs[name]
	if !ok && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		program, ok = programs[filepath.Base(os.Args[0])]
	}
	if !ok {
		names := make([]string, 0, len(programs))
		for n := range programs {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "usage: PROGRAM [ARGS], where PROGRAM is one of %v\n", names)
		os.Exit(64)
	}
	program()
}
