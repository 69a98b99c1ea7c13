//! Memory of the process, of which the runtime takes most by the C library's allocator.
#![expect(unsafe_code, reason = "the C library's own functions; they take numbers and no pointers")]

pub(crate) mod peak;
pub(crate) mod room;

/// glibc's own first value. It raises it to the size of each block that is freed, up to 32 MB, and from then on takes such blocks
/// from the pools of threads, which come and go with versions: after 25 rollouts two versions held half as much again, and
/// [`give_back`] could not free it. Set by hand it stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 128 * 1024;

/// From now on large blocks are mapped each by itself, and are the system's again when they are freed. Before threads are started.
pub fn map_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number; false, which changes nothing, if it cannot be.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives memory that is free back to the system. After a version is unloaded the allocator holds much of what was its own, for a next
/// one that may never come.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that the allocator has handed out, modulo 4 GiB. None where it does not say.
fn allocated_bytes() -> Option<u32> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // `mallinfo2`, which does not wrap, is missing before glibc 2.33.
        // SAFETY: may be called at any time from any thread.
        let info = unsafe { libc::mallinfo() };
        Some(info.uordblks.wrapping_add(info.hblkhd).cast_unsigned())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
