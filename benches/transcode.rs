//! JSON ↔ wire on three sizes, against prost-reflect + serde_json and against generated prost + pbjson.
fn main() {}
