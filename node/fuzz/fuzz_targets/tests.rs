#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fragcast::fuzzing::tests_file(data));
