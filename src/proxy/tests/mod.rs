//! The proxy over loopback: raw clients, raw backends that record every byte. `over_tls` runs many of these tests once more with TLS between
//! client and gateway, `to_tls` with TLS between gateway and backends.

mod authority;
mod bodies;
mod connections;
mod faults;
mod frames;
mod framing;
mod gateway;
mod grpc;
mod grpc_calls;
mod http2;
mod http2_backends;
mod http2_floods;
mod http2_inputs;
mod http2_uploads;
mod inputs;
mod listeners;
mod mirrors;
mod over_tls;
mod publishing;
mod rates;
mod refusals;
mod retries;
mod routing;
mod script;
mod secure;
mod sharing;
mod tls;
mod tls_backends;
mod tls_client_certificates;
mod tls_clients;
mod tls_front;
mod tls_resumption;
mod to_tls;
mod traces;
mod tunnels;
