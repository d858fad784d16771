// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"fmt"
	"maps"
	"time"

	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Limits bound what one organization may use. Zero means no limit, except for the two ends of the acceptance window.
type Limits struct {
	// MaxQueryLines is the most log lines one query returns; a query that asks for more is refused.
	MaxQueryLines int
	// MaxQuerySeries is the most series one metric query returns.
	MaxQuerySeries int
	// MaxQuerySamples is the most samples that the evaluation of one PromQL query holds at a time, as Prometheus counts them.
	MaxQuerySamples int
	// MaxQueryBytes is the most segment bytes one query may read, after pruning.
	MaxQueryBytes int64
	// QueryTimeout is the longest that one query may run.
	QueryTimeout time.Duration
	// AcceptPast and AcceptFuture span the acceptance window around now: rows whose time lies outside it are rejected, and kept. It begins in 1970 at
	// the earliest, and ends a year ahead at the latest.
	AcceptPast, AcceptFuture time.Duration
	// MaxLineBytes is the longest log line; a longer one is rejected.
	MaxLineBytes int
	// MaxAttributes is the most attributes of one row (resource, scope and its own together).
	MaxAttributes int
	// MaxStreams is the most streams that one object may bring.
	MaxStreams int
	// MaxSeries is the most metric series that one object may bring.
	MaxSeries int
}

// DefaultLimits are in force where the configuration says nothing.
func DefaultLimits() Limits {
	return Limits{
		MaxQueryLines:   5000,
		MaxQuerySeries:  5000,
		MaxQuerySamples: 50_000_000,
		MaxQueryBytes:   1 << 40,
		QueryTimeout:    5 * time.Minute,
		AcceptPast:      5 * 365 * 24 * time.Hour,
		AcceptFuture:    24 * time.Hour,
		MaxLineBytes:    1 << 20,
		MaxAttributes:   1024,
		MaxStreams:      100_000,
		MaxSeries:       2_000_000,
	}
}

// limitsForm is Limits as written: a field left out is the outer layer's.
type limitsForm struct {
	MaxQueryLines   *int           `yaml:"max_query_lines,omitempty"`
	MaxQuerySeries  *int           `yaml:"max_query_series,omitempty"`
	MaxQuerySamples *int           `yaml:"max_query_samples,omitempty"`
	MaxQueryBytes   *int64         `yaml:"max_query_bytes,omitempty"`
	QueryTimeout    *time.Duration `yaml:"query_timeout,omitempty"`
	AcceptPast      *time.Duration `yaml:"accept_past,omitempty"`
	AcceptFuture    *time.Duration `yaml:"accept_future,omitempty"`
	MaxLineBytes    *int           `yaml:"max_line_bytes,omitempty"`
	MaxAttributes   *int           `yaml:"max_attributes,omitempty"`
	MaxStreams      *int           `yaml:"max_streams,omitempty"`
	MaxSeries       *int           `yaml:"max_object_series,omitempty"`
}

// over returns the limits with those that were written in place of the outer ones.
func (f limitsForm) over(outer Limits) Limits {
	replace(&outer.MaxQueryLines, f.MaxQueryLines)
	replace(&outer.MaxQuerySeries, f.MaxQuerySeries)
	replace(&outer.MaxQuerySamples, f.MaxQuerySamples)
	replace(&outer.MaxQueryBytes, f.MaxQueryBytes)
	replace(&outer.QueryTimeout, f.QueryTimeout)
	replace(&outer.AcceptPast, f.AcceptPast)
	replace(&outer.AcceptFuture, f.AcceptFuture)
	replace(&outer.MaxLineBytes, f.MaxLineBytes)
	replace(&outer.MaxAttributes, f.MaxAttributes)
	replace(&outer.MaxStreams, f.MaxStreams)
	replace(&outer.MaxSeries, f.MaxSeries)
	return outer
}

// writtenLimits is the inverse of over.
func writtenLimits(l *Limits) limitsForm {
	return limitsForm{
		MaxQueryLines: &l.MaxQueryLines, MaxQuerySeries: &l.MaxQuerySeries, MaxQuerySamples: &l.MaxQuerySamples,
		MaxQueryBytes: &l.MaxQueryBytes, QueryTimeout: &l.QueryTimeout, AcceptPast: &l.AcceptPast, AcceptFuture: &l.AcceptFuture,
		MaxLineBytes: &l.MaxLineBytes, MaxAttributes: &l.MaxAttributes, MaxStreams: &l.MaxStreams, MaxSeries: &l.MaxSeries,
	}
}

// maxAcceptFuture is the longest accept_future: the index takes no windows further ahead.
const maxAcceptFuture = 365 * 24 * time.Hour

// problem says what is wrong with a limit, or "".
func (f limitsForm) problem() string {
	l := f.over(Limits{})
	for name, value := range map[string]int64{
		"max_query_lines": int64(l.MaxQueryLines), "max_query_series": int64(l.MaxQuerySeries), "max_query_bytes": l.MaxQueryBytes,
		"query_timeout": int64(l.QueryTimeout), "accept_past": int64(l.AcceptPast), "accept_future": int64(l.AcceptFuture),
		"max_line_bytes": int64(l.MaxLineBytes), "max_attributes": int64(l.MaxAttributes), "max_streams": int64(l.MaxStreams),
		"max_query_samples": int64(l.MaxQuerySamples), "max_object_series": int64(l.MaxSeries),
	} {
		if value < 0 {
			return fmt.Sprintf("limits.%s is negative; 0 means no limit", name)
		}
	}
	if l.AcceptFuture > maxAcceptFuture {
		return fmt.Sprintf("limits.accept_future is %s; want a year (365d) at most", l.AcceptFuture)
	}
	return ""
}

// Prices are what an object store charges, in US dollars; estimates and statistics use them.
type Prices struct {
	// Requests are the prices of 1000 requests of each kind.
	Requests objects.Prices
	// Transfer is the price of reading 10^9 bytes.
	Transfer float64
	// Storage is the price of keeping 10^9 bytes for a month.
	Storage float64
}

// DefaultPrices are a provider's list prices; transfer within its region is free.
func DefaultPrices(provider string) Prices {
	prices := Prices{Requests: objects.ListPrices(provider)}
	switch provider {
	case objects.ProviderAWS:
		prices.Storage = 0.023
	case objects.ProviderGCP:
		prices.Storage = 0.020
	}
	return prices
}

// pricesForm is Prices as written: a field left out is the outer layer's.
type pricesForm struct {
	Put      *float64 `yaml:"put,omitempty"`
	Get      *float64 `yaml:"get,omitempty"`
	List     *float64 `yaml:"list,omitempty"`
	Head     *float64 `yaml:"head,omitempty"`
	Delete   *float64 `yaml:"delete,omitempty"`
	Transfer *float64 `yaml:"transfer,omitempty"`
	Storage  *float64 `yaml:"storage,omitempty"`
}

func (f pricesForm) over(outer Prices) Prices {
	requests := maps.Clone(outer.Requests)
	for kind, price := range map[objects.Request]*float64{
		objects.RequestPut: f.Put, objects.RequestGet: f.Get, objects.RequestList: f.List,
		objects.RequestHead: f.Head, objects.RequestDelete: f.Delete,
	} {
		if price != nil {
			requests[kind] = *price
		}
	}
	outer.Requests = requests
	replace(&outer.Transfer, f.Transfer)
	replace(&outer.Storage, f.Storage)
	return outer
}

// negative names a price below zero, or "".
func (f pricesForm) negative() string {
	for name, price := range map[string]*float64{
		"put": f.Put, "get": f.Get, "list": f.List, "head": f.Head, "delete": f.Delete, "transfer": f.Transfer, "storage": f.Storage,
	} {
		if price != nil && *price < 0 {
			return name
		}
	}
	return ""
}

func replace[T any](value, written *T) {
	if written != nil {
		*value = *written
	}
}
