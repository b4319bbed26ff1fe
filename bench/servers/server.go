// The same work with Go's net. `server MODE [SIZE]` prints its port and answers
// SIGHUP as announce.ts says.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

const request = 64

func echo(conn net.Conn) {
	p := make([]byte, 64*1024)
	for {
		n, err := conn.Read(p)
		if err != nil {
			return
		}
		if _, err := conn.Write(p[:n]); err != nil {
			return
		}
	}
}

func echoWithDeadline(conn net.Conn) {
	p := make([]byte, 64*1024)
	for {
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := conn.Read(p)
		if err != nil {
			return
		}
		if _, err := conn.Write(p[:n]); err != nil {
			return
		}
	}
}

func send(conn net.Conn) {
	p := make([]byte, size())
	for {
		if _, err := conn.Write(p); err != nil {
			return
		}
	}
}

func tenWrites(conn net.Conn) {
	p := make([]byte, 64*1024)
	piece := make([]byte, request)
	for {
		n, err := conn.Read(p)
		if err != nil {
			return
		}
		for i := n / request * 10; i >= 1; i-- {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	}
}

func size() int {
	if len(os.Args) > 2 {
		if n, err := strconv.Atoi(os.Args[2]); err == nil {
			return n
		}
	}
	return 64 * 1024
}

func collectOn(hangup chan os.Signal) {
	for range hangup {
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.HeapAlloc)
	}
}

func main() {
	handler := map[string]func(net.Conn){
		"echo":       echo,
		"deadline":   echoWithDeadline,
		"copy":       func(conn net.Conn) { io.Copy(conn, conn) },
		"send":       send,
		"ten-writes": tenWrites,
	}[os.Args[1]]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	// Before the port is printed: its reader may send the signal at once.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go collectOn(hangup)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer conn.Close()
			handler(conn)
		}()
	}
}
