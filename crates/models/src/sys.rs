//! The few system calls that have no safe wrapper here.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Bytes: the most that glibc takes for `M_MMAP_THRESHOLD`.
#[cfg(target_env = "gnu")]
const MOST_KEPT: libc::c_int = 32 << 20;

/// Takes over a descriptor that this process inherited.
///
/// # Errors
/// When it is not open.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD reads no memory; on a closed descriptor it fails with EBADF.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, was passed to this process for this purpose, and the configuration names each once (checked
    // by the caller), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// No core dump, no debugger of the same user: what callers send stays in this process.
pub fn forbid_dumps() {
    let _ = limit(libc::RLIMIT_CORE, 0);
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Lets this process have no more than this much memory of its own (`RLIMIT_DATA`: private and writable, used or not;
/// unlike `RLIMIT_AS` it does not count room that is only reserved). A lower limit that is there already stays.
///
/// # Errors
/// When it may not be set.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid place for the kernel to write to.
    unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut now) };
    limit(libc::RLIMIT_DATA, bytes.min(now.rlim_max))
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: the structure lives through the call, which only reads it.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the allocator of the runtime keep what a run frees for the next one. By itself it gives back what is at the end of
/// its heap, and large pieces at once, so that each run of a model has its pages made and cleared anew.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: sets a number of the allocator; before other threads are there.
        unsafe { libc::mallopt(parameter, MOST_KEPT) };
    }
}

/// Gives back what it has kept.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and leaves what is in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Ends this process now: nothing is run that could wait for a thread that does not end.
pub fn end(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// Maps `file` to be read.
///
/// # Errors
/// When the kernel refuses.
pub fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: blobs are written once under another name, renamed into place and never changed. One that is truncated
    // nevertheless ends this process (SIGBUS) and no other.
    unsafe { memmap2::Mmap::map(file) }
}
