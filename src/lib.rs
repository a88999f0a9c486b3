//! Tidegate: REST/JSON and Server-Sent Events in front of NATS, from one routes file and any protobuf descriptors.

pub mod fault;
pub mod schema;
pub mod transcode;
