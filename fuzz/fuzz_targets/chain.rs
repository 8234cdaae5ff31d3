//! libFuzzer's door to the target `chain`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::chain::chain(data));
