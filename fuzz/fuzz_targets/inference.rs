#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sextant::fuzz::inference(data));
