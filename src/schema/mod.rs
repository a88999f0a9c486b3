//! Schemas at run time: .proto sources and descriptor sets in, the transcoder's tables and method rows out.
//!
//! The only room that names prost-reflect and protox.

mod compile;

pub use compile::compile;
