//! `bodies::wire_to_rust` under libFuzzer.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::wire_to_rust(data));
