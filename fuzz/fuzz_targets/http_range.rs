//! libFuzzer's door to the target `http_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::http::http_range(data));
