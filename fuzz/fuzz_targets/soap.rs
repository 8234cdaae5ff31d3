//! libFuzzer's door to the target `soap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::soap::soap(data));
