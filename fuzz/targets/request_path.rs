#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hls::http::fuzzing::path(bytes);
    edge::fuzzing::path(bytes);
});
