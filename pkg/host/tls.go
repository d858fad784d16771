// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// serverTLS returns nil when no certificate is configured.
func serverTLS(c TLSConfig, protocols ...string) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	pair := &keyPair{certFile: c.CertFile, keyFile: c.KeyFile}
	if _, err := pair.certificate(nil); err != nil {
		return nil, fault.New(fault.Invalid, "tls: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.certificate, NextProtos: protocols}
	if c.ClientCAFile != "" {
		pool, err := readPool(c.ClientCAFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, "tls: client_ca_file: %w", err)
		}
		out.ClientCAs, out.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return out, nil
}

func clientTLS(c ClientConfig) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pool, err := readPool(c.CAFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, "client: ca_file: %w", err)
		}
		out.RootCAs = pool
	}
	if c.CertFile != "" {
		pair := &keyPair{certFile: c.CertFile, keyFile: c.KeyFile}
		if _, err := pair.certificate(nil); err != nil {
			return nil, fault.New(fault.Invalid, "client: %w", err)
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.certificate(nil) }
	}
	return out, nil
}

func readPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// keyPair is a certificate and its key, read again when the file was written: certificates are renewed under a running process.
type keyPair struct {
	certFile, keyFile string

	mu      sync.Mutex
	written time.Time
	pair    *tls.Certificate
}

func (k *keyPair) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.certFile)
	if err != nil {
		return k.former(err)
	}
	if k.pair != nil && info.ModTime().Equal(k.written) {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return k.former(err)
	}
	k.pair, k.written = &pair, info.ModTime()
	return k.pair, nil
}

// former returns the pair that was read last: while files are replaced they may be away, or not fit.
func (k *keyPair) former(err error) (*tls.Certificate, error) {
	if k.pair != nil {
		return k.pair, nil
	}
	return nil, err
}
