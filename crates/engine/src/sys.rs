//! The few system calls that have no safe wrapper here. One of two files with `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sixty-four random bits from the kernel.
pub fn random_u64() -> u64 {
    let mut bytes = [0u8; 8];
    // aws-lc's generator; it cannot fail on Linux once seeded, and zero is only a worse seed.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Takes over a file descriptor that this process inherited.
///
/// # Errors
/// When the descriptor is not open.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD reads no memory; on a closed descriptor it fails with EBADF.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, was passed to this process for this purpose, and the
    // configuration names it once (checked by the caller), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Splits off a process that does `work` with one descriptor and the three standard ones, and ends. It is killed when
/// this thread ends.
///
/// # Errors
/// When the kernel gives no process; or this one has other threads, whose locks the new one would find locked for good.
pub fn split_off(kept: &OwnedFd, work: impl FnOnce(&OwnedFd)) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there are other threads"));
    }
    let parent = std::process::id();
    // SAFETY: this process has one thread, so the new one may do all that this one may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: both have integers for arguments and touch no memory of ours.
            let has_parent = unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                u32::try_from(libc::getppid()) == Ok(parent)
            };
            if has_parent {
                close_all_but(kept.as_raw_fd());
                let _ = catch_unwind(AssertUnwindSafe(|| work(kept)));
            }
            // SAFETY: ends the process without a look at what it has of its parent's.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// Closes what a process has of its parent's. Whoever owns one of them here never runs again.
fn close_all_but(kept: RawFd) {
    let Ok(kept) = libc::c_uint::try_from(kept) else {
        return;
    };
    let ranges = [
        (3, kept.saturating_sub(1)),
        (kept.saturating_add(1).max(3), libc::c_uint::MAX),
    ];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: it has integers for arguments; the caller says that nothing uses the descriptors any more.
        unsafe { libc::close_range(first, last, 0) };
    }
}

/// Leaves it to others to end this process: those who ask it to by a signal that can be ignored are not heard.
pub fn ignore_signals() {
    let signals = [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
    ];
    for signal in signals {
        // SAFETY: no handler is installed, so none can run at a bad moment.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// No core dump, no debugger of the same user: keys and tokens stay in this process.
pub fn forbid_dumps() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read their arguments; `none` lives through the call.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Raises the limit on open files to what this process may have.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the kernel to write to and read from.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Makes the table of file descriptors large while this process has one thread.
///
/// Later, growing it waits for an RCU grace period: 10 to 14 ms (measured), on the worker that
/// happens to open the 64th, 128th, 256th… file or connection.
pub fn grow_descriptor_table() {
    const PLACES: libc::c_int = 16 * 1024;
    // SAFETY: duplicates descriptor 2, which is this process's own, and closes the duplicate. With
    // a lower limit on open files it fails and nothing is changed.
    unsafe {
        let high = libc::fcntl(2, libc::F_DUPFD_CLOEXEC, PLACES);
        if high >= 0 {
            libc::close(high);
        }
    }
}

/// Says something to whoever reads this process's log. Unlike `eprintln`, it does not panic when
/// the log cannot be written, as on a full disk.
pub fn say(what: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "engine: {what}");
}

/// Has the allocator give memory that is not used back to the system now, and not when it next has
/// a reason to look: an idle engine may have none for hours.
pub fn give_back_memory() {
    // SAFETY: it only looks at the heap of this thread and at memory that nobody uses.
    unsafe { libmimalloc_sys::mi_collect(true) };
    // SAFETY: `forget_pages` is a function of that type and keeps none of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(forget_pages), std::ptr::null_mut()) };
}

/// Has this process forget the pages of a library's code and constants, most of which a load alone has used.
/// The kernel has them still and maps each again that is used.
unsafe extern "C" fn forget_pages(
    library: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr hands out a description that is valid while it calls.
    let library = unsafe { &*library };
    if library.dlpi_name.is_null() || library.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the name is a C string for as long.
    let name = unsafe { std::ffi::CStr::from_ptr(library.dlpi_name) };
    if !name.to_bytes().starts_with(b"/") {
        return 0; // the kernel's own, or the program, whose code is small
    }
    // SAFETY: as many headers as it says lie there.
    let headers =
        unsafe { std::slice::from_raw_parts(library.dlpi_phdr, library.dlpi_phnum.into()) };
    let is_clean =
        |it: &&libc::Elf64_Phdr| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0;
    for segment in headers.iter().filter(is_clean) {
        let page = 4095;
        let from = (library.dlpi_addr + segment.p_vaddr) & !page;
        let to = (library.dlpi_addr + segment.p_vaddr + segment.p_memsz + page) & !page;
        let (Ok(from), Ok(length)) = (usize::try_from(from), usize::try_from(to - from)) else {
            continue;
        };
        let place = std::ptr::without_provenance_mut::<libc::c_void>(from);
        // SAFETY: whole pages of a segment that nobody may write to, of a file: they are as the file has them, before
        // and after.
        unsafe { libc::madvise(place, length, libc::MADV_DONTNEED) };
    }
    0
}

/// Processor time that all threads of this process have used.
pub fn processor_time() -> std::time::Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the kernel to write to; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The user id of this process.
pub fn own_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Reserves `size` bytes on disk for `file`, so that writing to its mapping cannot run out of disk.
///
/// # Errors
/// `ENOSPC` when the disk is full.
pub fn reserve(file: &std::fs::File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: fallocate reads no memory of ours and the descriptor is open for as long as `file`.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Maps `file` to be read.
///
/// # Errors
/// When the kernel refuses.
pub fn map_file(file: &std::fs::File) -> io::Result<memmap2::Mmap> {
    // SAFETY: blobs are written once under another name, renamed into place and never changed; this
    // process can only read that folder. One that is removed stays mapped.
    unsafe { memmap2::Mmap::map(file) }
}
