//! The proxy over loopback: raw clients, raw backends that record every byte.

mod bodies;
mod connections;
mod faults;
mod framing;
mod gateway;
mod grpc;
mod http2;
mod inputs;
mod mirrors;
mod publishing;
mod refusals;
mod retries;
mod routing;
mod script;
mod sharing;
mod tunnels;
