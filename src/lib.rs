//! raftgate: an HTTP gateway whose nodes agree among themselves, through Raft, on one versioned route table.
#![doc = ""]

pub mod admin;
pub mod config;
pub mod ctl;
pub mod model;
pub mod observe;
pub mod pb;
pub mod proxy;
pub mod raft;
pub mod server;
pub mod store;
pub mod table;
pub mod upstream;
