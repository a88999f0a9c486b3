//! JSON text, URL text, protobuf bytes and Rust structs, turned into one another by walking tables: bytes in, bytes
//! out, no message tree between. Knows nothing of HTTP, routes or buses.

pub mod table;

pub use table::{EnumId, FieldId, MessageId, OneofId, Tables};
