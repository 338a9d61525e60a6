#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fragcast::lab::fuzzing::registry(data));
