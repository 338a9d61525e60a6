#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fragcast_port::fuzzing::websocket(data));
