// vcsim CERTIFICATE KEY [-esx]: govmomi's simulator on a free port of this machine, with this certificate.
//
// Prints its URL when it is ready, the user is "user" and the password "pass". Ends when its standard input does.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	check(err)
	model := simulator.VPX()
	if len(os.Args) > 3 && os.Args[3] == "-esx" {
		model = simulator.ESX()
	}
	check(model.Create())
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword("user", "pass")}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	addNfc()
	server := model.Service.NewServer()
	fmt.Printf("https://%s/sdk\n", server.URL.Host)
	_, _ = io.Copy(io.Discard, os.Stdin)
	server.Close()
	model.Remove()
}
