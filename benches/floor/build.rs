//! Generates prost structs and pbjson's serde for the bench schema.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/bench.proto");
    let set = protox::compile(["proto/bench.proto"], ["proto"])?;
    prost_build::Config::new()
        .compile_well_known_types()
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        .compile_fds(set.clone())?;
    pbjson_build::Builder::new().btree_map(["."]).register_descriptors(&set.encode_to_vec())?.build(&[".bench.v1"])?;
    Ok(())
}
