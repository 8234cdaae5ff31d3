//! libFuzzer's door to the target `sparse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::sparse::sparse(data));
