//! The generated messages of `proto/`, nothing else. What they mean stands with those who speak them.

/// What nodes of one cluster say to each other (`proto/peer.proto`).
#[expect(missing_docs, reason = "generated; the documentation stands in the proto file")]
#[allow(clippy::all, reason = "generated")]
pub mod peer {
    tonic::include_proto!("raftgate.peer.v1");
}
