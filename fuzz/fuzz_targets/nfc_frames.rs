//! libFuzzer's door to the target `nfc_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::nfc_wire::nfc_frames(data));
