// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// certify writes a certificate that is its own authority, for servers on 127.0.0.1 and for clients.
func certify(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serverCert, serverKey := certify(t, dir, "server")
	clientCert, clientKey := certify(t, dir, "client")
	source, err := config.Static("")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(t *testing.T, c TLSConfig) Addr {
		t.Helper()
		listening, done := make(chan Addr, 1), make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		options := Options{
			Source: source, OnListening: func(a Addr) { listening <- a },
			Config: Config{GRPC: ListenConfig{"127.0.0.1:0"}, HTTP: ListenConfig{"127.0.0.1:0"}, TLS: c, Shutdown: ShutdownConfig{Drain: time.Second}},
		}
		go func() { done <- Run(ctx, options) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return <-listening
	}
	call := func(t *testing.T, address string, c ClientConfig) error {
		t.Helper()
		conn, err := dialRemote(address, c, "", quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err
	}
	t.Run("both servers show the certificate", func(t *testing.T) {
		t.Parallel()
		at := serve(t, TLSConfig{CertFile: serverCert, KeyFile: serverKey})
		if err := call(t, at.GRPC, ClientConfig{CAFile: serverCert}); err != nil {
			t.Error(err)
		}
		if err := call(t, at.GRPC, ClientConfig{CAFile: clientCert}); !errors.Is(err, fault.Unavailable) {
			t.Errorf("another authority: got %v", err)
		}
		if err := call(t, at.GRPC, ClientConfig{}); !errors.Is(err, fault.Unavailable) {
			t.Errorf("no TLS: got %v", err)
		}
		settings, err := clientTLS(ClientConfig{CAFile: serverCert})
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at.HTTP+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("got %d", response.StatusCode)
		}
	})
	t.Run("clients must show theirs where that is asked for", func(t *testing.T) {
		t.Parallel()
		at := serve(t, TLSConfig{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: clientCert})
		if err := call(t, at.GRPC, ClientConfig{CAFile: serverCert, CertFile: clientCert, KeyFile: clientKey}); err != nil {
			t.Error(err)
		}
		if err := call(t, at.GRPC, ClientConfig{CAFile: serverCert}); err == nil {
			t.Error("no certificate: want an error")
		}
		if err := call(t, at.GRPC, ClientConfig{CAFile: serverCert, CertFile: serverCert, KeyFile: serverKey}); err == nil {
			t.Error("a certificate of another authority: want an error")
		}
	})
	t.Run("a renewed certificate is shown without a restart, a broken one is not", func(t *testing.T) {
		t.Parallel()
		own := t.TempDir()
		cert, key := certify(t, own, "renewed")
		pair := &keyPair{certFile: cert, keyFile: key}
		first, err := pair.certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		certify(t, own, "renewed")
		touch(t, cert, time.Now().Add(time.Minute))
		second, err := pair.certificate(nil)
		if err != nil || sameCertificate(first, second) {
			t.Errorf("the old one is shown: %v", err)
		}
		if err := os.WriteFile(cert, []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		touch(t, cert, time.Now().Add(2*time.Minute))
		if third, err := pair.certificate(nil); err != nil || !sameCertificate(second, third) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("files that are no certificates stop the start", func(t *testing.T) {
		t.Parallel()
		for _, c := range []TLSConfig{
			{CertFile: serverKey, KeyFile: serverKey},
			{CertFile: "no", KeyFile: "no"},
			{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: serverKey},
			{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: "no"},
		} {
			if _, err := serverTLS(c); !errors.Is(err, fault.Invalid) {
				t.Errorf("%+v: got %v", c, err)
			}
		}
	})
}

func touch(t *testing.T, name string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func sameCertificate(a, b *tls.Certificate) bool {
	return string(a.Certificate[0]) == string(b.Certificate[0])
}
