//! libFuzzer's door to the target `sesparse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::extents::sesparse(data));
