//! libFuzzer's door to the target `descriptor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::text::descriptor(data));
