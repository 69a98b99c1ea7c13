//! The end of the process while threads that cannot be stopped are still at work.
#![expect(unsafe_code, reason = "the C library's own function; it takes a number and no pointer")]

/// Ends the process now, with this exit code. `std::process::exit` would run the destructors of ONNX Runtime's library first, while one of
/// its threads may be loading a model: such a process crashes instead of ending with its code.
pub fn at_once(code: u8) -> ! {
    // SAFETY: may be called at any time from any thread; nothing of the process is used afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}
