//! The system calls that have no safe wrapper here.

use std::io::{Error, Result};

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
