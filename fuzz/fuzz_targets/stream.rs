//! libFuzzer's door to the target `stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::extents::stream(data));
