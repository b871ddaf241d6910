//! The system calls that have no safe wrapper here.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// User and group of this process.
pub fn ids() -> (u32, u32) {
    // SAFETY: neither has arguments, neither can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Gives this process namespaces of its own.
pub fn unshare(flags: libc::c_int) -> Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::unshare(flags) })
}

/// Nothing can be changed there (`linux/mount.h`).
pub const READ_ONLY: u64 = 1;
/// Set-user-ID bits do not count there.
pub const NO_SET_UID: u64 = 2;

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::from(std::io::ErrorKind::InvalidInput))
}

/// What is mounted from here on is seen here alone.
pub fn keep_mounts_private() -> Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: the target is a C string; the other places are not read with these flags.
    done(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) })
}

/// Makes a mount of its own of a file or folder, where it is.
pub fn bind_to_itself(path: &Path) -> Result<()> {
    let path = c_path(path)?;
    let none = std::ptr::null();
    let flags = libc::MS_BIND | libc::MS_REC;
    // SAFETY: both paths are C strings that live through the call.
    done(unsafe { libc::mount(path.as_ptr(), path.as_ptr(), none, flags, none.cast()) })
}

/// Sets and clears attributes of a mount, and of all below it.
pub fn set_mounts(path: &Path, all_below: bool, set: u64, clear: u64) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const RECURSIVE: libc::c_uint = 0x8000; // AT_RECURSIVE, linux/fcntl.h
    let path = c_path(path)?;
    let attributes = Attributes {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    let flags = if all_below { RECURSIVE } else { 0 };
    // SAFETY: a C string, and a structure of the size that is told; both live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    done(i32::try_from(result).unwrap_or(-1))
}

/// The program ends with this process's parent.
pub fn end_with_parent() {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

/// Sets the loopback of this network namespace up.
pub fn loopback_up() -> Result<()> {
    // SAFETY: plain arguments; the result is checked before it is used.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    done(socket)?;
    let set = set_up(socket);
    // SAFETY: it is this function's own, and used no more.
    unsafe { libc::close(socket) };
    set
}

fn set_up(socket: libc::c_int) -> Result<()> {
    const UP: libc::c_short = 1; // IFF_UP, linux/if.h
    // SAFETY: all zeros are a value of this C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    // SAFETY: `request` lives through both calls, names an interface, and is as large as the kernel expects.
    unsafe {
        done(libc::ioctl(
            socket,
            libc::SIOCGIFFLAGS as _,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags |= UP;
        done(libc::ioctl(
            socket,
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        ))
    }
}

/// No descriptor but the first three is passed on to another program.
pub fn inherit_nothing() {
    // SAFETY: sets a flag on this process's own descriptors; an older kernel refuses, and Python has set it already
    // on those that it opened.
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
        )
    };
}

/// Neither this process nor what it becomes has capabilities, or gets any from a file or from being root.
pub fn forbid_privileges() -> Result<()> {
    const LOCKED: libc::c_int = 0b1110_1111; // all but KEEP_CAPS, each with its lock (linux/securebits.h)
    const VERSION_3: u32 = 0x2008_0522; // linux/capability.h
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let none = [0_u32; 6]; // effective, permitted and inheritable of two halves
    // SAFETY: prctl with these options takes plain numbers; `capset` reads two structures that live through it.
    unsafe {
        done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        for capability in 0..64 {
            // One that the kernel does not know ends the list; without CAP_SETPCAP there is none to lose.
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                break;
            }
        }
        let set = libc::prctl(libc::PR_SET_SECUREBITS, LOCKED, 0, 0, 0);
        if set != 0 && ids().0 == 0 {
            return Err(Error::last_os_error());
        }
        let result = libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr());
        done(i32::try_from(result).unwrap_or(-1))
    }
}

fn done(result: libc::c_int) -> Result<()> {
    match result {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}
