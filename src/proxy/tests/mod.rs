//! The proxy over loopback: raw clients, raw backends that record every byte.

mod bodies;
mod connections;
mod faults;
mod gateway;
mod grpc;
mod inputs;
mod publishing;
mod routing;
