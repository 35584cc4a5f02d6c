#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::s3::check(data));
