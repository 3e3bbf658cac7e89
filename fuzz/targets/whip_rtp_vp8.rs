#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ingest::whip::fuzzing::rtp_vp8(bytes);
});
