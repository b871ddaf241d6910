//! What needs the compiler to take our word: waiting for a descriptor, and `recv` into memory that nobody has written yet,
//! since clearing the buffer before each read would cost more than most reads.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// Waits for bytes.
pub(crate) fn await_bytes(stream: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: the stream owns its descriptor, which is open and the same until it is dropped; nobody has it elsewhere.
    Ok(unsafe { AsyncFd::register_with_interest(stream, Interest::READABLE) }?)
}

/// Waits for room.
pub(crate) fn await_room(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns the descriptor, which is open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) }?)
}

/// Reads what is there, as far as it fits; how much that was. 0: the other side has said its last.
pub(crate) fn receive(stream: &UnixStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing of it is said to be initialised here, and it is only written to.
    let spare = unsafe { buffer.unfilled_mut() };
    // SAFETY: the kernel writes at most `spare.len()` bytes at that place, which is borrowed until it has.
    let read = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            spare.as_mut_ptr().cast(),
            spare.len(),
            0,
        )
    };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote so many.
    unsafe { buffer.assume_init(read) };
    buffer.advance(read);
    Ok(read)
}
