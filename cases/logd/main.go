//go:build linux

// Command logd is a logging daemon for one spec: it takes sources as LinuxKit's
// memlogd does, one datagram each with a name and a descriptor, and appends
// what it reads from each as "NAME: line" to a file.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"syscall"
)

func main() {
	socket, file := os.Args[1], os.Args[2]
	out, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	for {
		name, fd, err := receive(conn)
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			f := os.NewFile(uintptr(fd), name)
			defer f.Close()
			for s := bufio.NewScanner(f); s.Scan(); {
				mu.Lock()
				_, err := fmt.Fprintf(out, "%s: %s\n", name, s.Text())
				mu.Unlock()
				if err != nil {
					log.Print(err)
				}
			}
		}()
	}
}

func receive(conn *net.UnixConn) (name string, fd int, err error) {
	b, oob := make([]byte, 512), make([]byte, 512)
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return "", 0, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return "", 0, fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return "", 0, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	return string(b[:n]), fds[0], nil
}
