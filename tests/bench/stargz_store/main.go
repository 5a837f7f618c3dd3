// SPDX-License-Identifier: Apache-2.0

// The peer of the benchmarks of lazy formats: stargz-snapshotter's store as a program, which Debian packages
// only as a library. Mounts it, with its defaults but for what arguments turn off, until it is
// told to end.
//
//	stargz-store [-lazy] REGISTRY ROOT MOUNTPOINT
//
// -lazy: no fetching in the background. REGISTRY is spoken to over plain HTTP.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/containerd/reference"
	"github.com/containerd/containerd/remotes/docker"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/containerd/stargz-snapshotter/store"
	"github.com/hashicorp/go-retryablehttp"
)

func main() {
	lazy := flag.Bool("lazy", false, "no fetching in the background")
	flag.Parse()
	if flag.NArg() != 3 {
		log.Fatal("usage: stargz-store [-lazy] REGISTRY ROOT MOUNTPOINT")
	}
	host, root, mountpoint := flag.Arg(0), flag.Arg(1), flag.Arg(2)
	client := retryablehttp.NewClient()
	client.Logger = nil
	hosts := func(reference.Spec) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{
			Client: client.StandardClient(), Host: host, Scheme: "http", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}}, nil
	}
	ctx := context.Background()
	settings := config.Config{NoBackgroundFetch: *lazy}
	layers, err := store.NewLayerManager(ctx, root, hosts, memory.NewReader, settings)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Mount(ctx, mountpoint, layers, false); err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	if err := syscall.Unmount(mountpoint, syscall.MNT_DETACH); err != nil {
		log.Fatal(err)
	}
}
