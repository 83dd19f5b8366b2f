package upstreams

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// pemFiles writes a self-signed certificate and its key.
func pemFiles(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, DNSNames: []string{"redis.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert = writeFile(t, dir, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = writeFile(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return cert, key
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	var c Config
	c.Defaults()
	if c.Address != "127.0.0.1:6379" {
		t.Errorf("%q", c.Address)
	}
	if d := c.Check("redis"); len(d) > 0 {
		t.Errorf("defaults: %v", d)
	}
	c = Config{Address: "[::1]:1"}
	c.Defaults()
	if c.Address != "[::1]:1" {
		t.Errorf("%q", c.Address)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t)
	otherCert, otherKey := pemFiles(t)
	rubbish := writeFile(t, t.TempDir(), "rubbish.pem", []byte("rubbish"))
	const where = `; want "127.0.0.1:6379", "[::1]:6379" or "unix:///run/redis/redis.sock"`
	const files = "; want readable PEM files: ca, and cert with its key"
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // the beginning of the only defect
	}{
		{"IPv4", Config{Address: "192.0.2.1:6379"}, ""},
		{"IPv6", Config{Address: "[2001:db8::1]:6379"}, ""},
		{"host name", Config{Address: "redis.example:65535"}, ""},
		{"socket", Config{Address: "unix:///run/redis.sock"}, ""},
		{"password alone", Config{Address: "a:1", Password: "p"}, ""},
		{"user and password", Config{Address: "a:1", User: "u", Password: "p"}, ""},
		{"TLS with the system's authorities", Config{Address: "a:1", TLS: &TLSConfig{}}, ""},
		{"TLS with files", Config{Address: "a:1", TLS: &TLSConfig{CA: otherCert, Cert: cert, Key: key}}, ""},

		{"bad no address", Config{}, `redis.address: not a host and port` + where},
		{"bad no port", Config{Address: "192.0.2.1"}, `redis.address: "192.0.2.1": not a host and port` + where},
		{"bad IPv6 without brackets", Config{Address: "2001:db8::1:6379"}, `redis.address: "2001:db8::1:6379": not a host and port` + where},
		{"bad empty host", Config{Address: ":6379"}, `redis.address: ":6379": not a host and port` + where},
		{"bad port 0", Config{Address: "a:0"}, `redis.address: "a:0": not a host and port` + where},
		{"bad port of 17 bits", Config{Address: "a:65536"}, `redis.address: "a:65536": not a host and port` + where},
		{"bad port by name", Config{Address: "a:redis"}, `redis.address: "a:redis": not a host and port` + where},
		{"bad URL", Config{Address: "redis://a:6379"}, `redis.address: "redis://a:6379": not a host and port` + where},
		{"bad relative socket", Config{Address: "unix://run/redis.sock"}, `redis.address: "unix://run/redis.sock": not an absolute path; want "unix:///run/redis/redis.sock"`},
		{"bad user without password", Config{Address: "a:1", User: "u"}, `redis.user: "u": has no password; want redis.password beside it`},
		{"bad authority missing", Config{Address: "a:1", TLS: &TLSConfig{CA: "/missing.pem"}}, "redis.tls: open /missing.pem: no such file or directory" + files},
		{"bad authority without a certificate", Config{Address: "a:1", TLS: &TLSConfig{CA: rubbish}}, "redis.tls: parse " + rubbish + ": invalid argument" + files},
		{"bad certificate without key", Config{Address: "a:1", TLS: &TLSConfig{Cert: cert}}, "redis.tls: open : no such file or directory" + files},
		{"bad key without certificate", Config{Address: "a:1", TLS: &TLSConfig{Key: key}}, "redis.tls: open : no such file or directory" + files},
		{"bad key of another certificate", Config{Address: "a:1", TLS: &TLSConfig{Cert: cert, Key: otherKey}}, "redis.tls: tls: private key does not match public key" + files},
		{"bad certificate file", Config{Address: "a:1", TLS: &TLSConfig{Cert: rubbish, Key: key}}, "redis.tls: tls: failed to find any PEM data in certificate input" + files},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, d := range tt.cfg.Check("redis") {
				got = append(got, d.String())
			}
			if text := strings.Join(got, "\n"); text != tt.want {
				t.Errorf("%s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestConfigCheckNamesAll(t *testing.T) {
	t.Parallel()
	c := Config{Address: "x", User: "u", TLS: &TLSConfig{CA: "/missing.pem"}}
	var keys []string
	for _, d := range c.Check("a.b") {
		keys = append(keys, d.Key)
	}
	if got := strings.Join(keys, " "); got != "a.b.address a.b.user a.b.tls" {
		t.Errorf("%s", got)
	}
}

func TestPasswordIsNotTold(t *testing.T) {
	t.Parallel()
	c := Config{Address: "x", User: "u", Password: "secret", TLS: &TLSConfig{CA: "/missing.pem"}}
	for _, d := range c.Check("redis") {
		if strings.Contains(d.String(), "secret") {
			t.Errorf("%s", d)
		}
	}
}

func TestTLSServerName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address, name, want string
	}{
		{"redis.example:6379", "", "redis.example"},
		{"[2001:db8::1]:6379", "", "2001:db8::1"},
		{"192.0.2.1:6379", "redis.example", "redis.example"},
		{"unix:///run/redis.sock", "redis.example", "redis.example"},
	} {
		c := Config{Address: tt.address, TLS: &TLSConfig{ServerName: tt.name}}
		got, err := c.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		if got.ServerName != tt.want || got.MinVersion == 0 || got.InsecureSkipVerify {
			t.Errorf("%s: server name %q; want %q", tt.address, got.ServerName, tt.want)
		}
	}
	if got, err := (&Config{Address: "a:1"}).tlsConfig(); got != nil || err != nil {
		t.Errorf("without TLS: %v, %v", got, err)
	}
}
