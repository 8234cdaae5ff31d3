//! libFuzzer's door to the target `abi_calls`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::abi_calls::abi_calls(data));
