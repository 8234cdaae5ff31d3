//! libFuzzer's door to the target `nbd_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::nbd::nbd_client(data));
