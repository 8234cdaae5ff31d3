//! libFuzzer's door to the target `nfc_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::nfc::nfc_client(data));
