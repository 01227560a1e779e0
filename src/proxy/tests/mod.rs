//! The proxy over loopback: raw clients, raw backends that record every byte.

mod bodies;
mod connections;
mod faults;
mod frames;
mod framing;
mod gateway;
mod grpc;
mod grpc_calls;
mod http2;
mod http2_floods;
mod http2_inputs;
mod inputs;
mod listeners;
mod mirrors;
mod publishing;
mod rates;
mod refusals;
mod retries;
mod routing;
mod script;
mod sharing;
mod tunnels;
