//! Memory of the process.

/// Gives memory that is free back to the system. After a version is unloaded the allocator holds much of what was its own, for a next
/// one that may never come.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's own function; it takes a number and no pointer")]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
