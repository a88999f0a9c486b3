//! Generated code for the bench schema: what the table-driven transcoder is measured against.

/// prost structs and pbjson's serde of `bench.v1`.
#[allow(clippy::all, missing_docs)]
pub mod bench {
    include!(concat!(env!("OUT_DIR"), "/bench.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/bench.v1.serde.rs"));
}

/// The schema's source, for those who load it at run time.
pub const PROTO: &str = include_str!("../proto/bench.proto");

pub mod samples;
