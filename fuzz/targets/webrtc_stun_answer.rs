#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtc::fuzzing::stun_answer(bytes);
});
