#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(wrong) = channel_layer::fuzzing::amqp(input) {
        panic!("{wrong}");
    }
});
