// What the DRA specs of Kubernetes' e2e.test ask of `/hostpathplugin` in their driver's pods (its
// own module is not on the module proxy): `--endpoint=SOCKET --proxy-endpoint=tcp://:PORT` listens
// on both and joins who comes to the socket with who waits at the port: the driver inside e2e.test.
package main

import (
	"flag"
	"io"
	"log"
	"net"
	"os"
	"strings"
)

func listen(endpoint string) net.Listener {
	network, address, found := strings.Cut(endpoint, "://")
	if !found {
		network, address = "unix", endpoint
	}
	if network == "unix" {
		// Left by one that was killed.
		if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
			log.Fatal(err)
		}
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

// The end of one direction ends both.
func pass(from, to net.Conn) {
	defer to.Close()
	n, err := io.Copy(to, from)
	log.Printf("passed %d bytes: %v", n, err)
}

func main() {
	endpoint := flag.String("endpoint", "", "the socket")
	proxy := flag.String("proxy-endpoint", "", "where the driver connects to")
	flag.Int("v", 0, "read and of no effect")
	flag.Parse()
	clients, drivers := listen(*endpoint), listen(*proxy)
	for {
		client, err := clients.Accept()
		if err != nil {
			log.Fatal(err)
		}
		driver, err := drivers.Accept()
		if err != nil {
			log.Fatal(err)
		}
		log.Printf("joined a client of %s", *endpoint)
		go pass(client, driver)
		go pass(driver, client)
	}
}
