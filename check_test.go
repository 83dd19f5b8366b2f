package main

import (
	"bufio"
	"errors"
	"net"
	"testing"

	"github.com/razor-steering/razor/upstreams"
)

// TestCheckLiveRefused: a Redis that does not let razor in is a fault of the
// configuration, one that is busy is not.
func TestCheckLiveRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reply string
		key   string // of the defect; none when empty
	}{
		{"-NOAUTH Authentication required.", "redis.password"},
		{"-WRONGPASS invalid username-password pair or user is disabled.", "redis.password"},
		{"-NOPERM this user has no permissions to run the 'scan' command", "redis.user"},
		{"-LOADING Redis is loading the dataset in memory", ""},
		{"-ERR what", ""},
	} {
		t.Run(tt.reply, func(t *testing.T) {
			t.Parallel()
			cfg := upstreams.Config{Address: sayingServer(t, tt.reply+"\r\n")}
			defects, err := upstreams.CheckLive(t.Context(), cfg, nil)
			if err == nil || len(defects) != 0 {
				t.Fatalf("defects %v, error %v", defects, err)
			}
			d, _ := errors.AsType[upstreams.Defect](upstreams.SettingDefect(err))
			if d.Key != tt.key {
				t.Errorf("got %v", err)
			}
		})
	}
}

// sayingServer answers every line that it gets with reply, and returns its
// address.
func sayingServer(t *testing.T, reply string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text()[0] == '*' { // once a command
						_, _ = conn.Write([]byte(reply))
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}
