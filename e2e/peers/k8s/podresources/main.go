// Asks a node who was given what, with the client of Kubernetes' own module. Prints JSON:
// `list`, `get NAMESPACE NAME`, `allocatable`, or `hurry N`: how many of N quick calls were let in.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubelet/pkg/apis/podresources/v1alpha1"
)

const socket = "unix:///var/lib/kubelet/pod-resources/kubelet.sock"

func main() {
	log.SetFlags(0)
	connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := ask(ctx, connection, os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}

func ask(ctx context.Context, connection *grpc.ClientConn, words []string) (any, error) {
	client := api.NewPodResourcesListerClient(connection)
	switch words[0] {
	case "get":
		answer, err := client.Get(ctx, &api.GetPodResourcesRequest{PodNamespace: words[1], PodName: words[2]})
		return answer, err
	case "allocatable":
		return client.GetAllocatableResources(ctx, &api.AllocatableResourcesRequest{})
	case "alpha":
		alpha := v1alpha1.NewPodResourcesListerClient(connection)
		return alpha.List(ctx, &v1alpha1.ListPodResourcesRequest{})
	case "hurry":
		return hurry(ctx, client, words[1])
	}
	return client.List(ctx, &api.ListPodResourcesRequest{})
}

func hurry(ctx context.Context, client api.PodResourcesListerClient, count string) (any, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, err
	}
	answers := map[string]int{}
	results := make(chan error)
	for range n {
		go func() {
			_, err := client.List(ctx, &api.ListPodResourcesRequest{})
			results <- err
		}()
	}
	for range n {
		switch err := <-results; status.Code(err) {
		case codes.OK:
			answers["ok"]++
		case codes.ResourceExhausted:
			answers[status.Convert(err).Message()]++
		default:
			return nil, err
		}
	}
	return answers, nil
}
