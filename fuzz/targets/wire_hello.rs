#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    relay::wire::fuzzing::hello(bytes);
});
