#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fragcast::fuzzing::trie_node(data));
