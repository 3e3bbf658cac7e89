#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hls::http::fuzzing::query(bytes);
});
