//! JSON text, URL text, protobuf bytes and Rust structs, turned into one another by walking tables: bytes in, bytes
//! out, no message tree between. Knows nothing of HTTP, routes or buses.

pub mod table;

mod canonical;
mod check;
mod claims;
mod compare;
mod error;
mod field_path;
mod json_to_wire;
mod name_index;
mod print;
mod raw;
mod ready;
mod rust_names;
mod rust_to_wire;
mod scalar;
mod scan;
mod shape_check;
mod spec;
mod text_to_wire;
mod time;
pub mod wire;
mod wire_to_json;
mod wire_to_rust;

pub use canonical::canonical;
pub use check::check;
pub use claims::{Claim, Claims, unclaimed};
pub use compare::{DIFFERENCES_MAX, Sameness, differences};
pub use error::{ErrorKind, TranscodeError};
pub use field_path::{FieldPath, FieldPathError};
pub use json_to_wire::{BodyPlan, JsonIn, Lifted, MaskPaths, Root, Unknown, json_to_wire};
pub use print::json_string;
pub use rust_to_wire::{RustError, number_order, to_wire};
pub use scan::DEPTH_MAX;
pub use shape_check::{ShapeProblem, shape_check};
pub use table::{EnumId, FieldId, MessageId, OneofId, Tables};
pub use text_to_wire::{QueryBinder, QueryError, text_to_wire};
pub use time::{rfc3339, rfc3339_millis};
pub use wire_to_json::{Defaults, Enums, JsonOut, Names, Scratch, field_to_json, wire_to_json};
pub use wire_to_rust::from_wire;
