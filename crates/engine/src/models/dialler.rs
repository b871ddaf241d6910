//! Who connects to the processes of models: a small process of the engine's, since the engine itself may make no Unix
//! socket ([`crate::confine`]): the admin API trusts its user.
//!
//! It is split off before the engine confines itself, knows one folder, connects to sockets in it that are named by
//! sixteen hex digits, and hands the connections over. It reads no file and no network, and ends with the engine.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    recvmsg, send, sendmsg, socket_with, socketpair,
};
use tokio::sync::{Mutex, Notify};
use vedette_quiet::Quiet;
use vedette_upstream::{DialSocket, DiallingSocket};

use crate::confine;
use crate::sys;

/// How long its answer may take; connecting itself never waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Digits of the name of a socket.
const DIGITS: usize = 16;
const ENDING: &str = ".sock";
/// A number that tells its answer from others, and a name.
const QUESTION: usize = 8 + DIGITS;
/// The number, and why there is no connection: 0 where there is one.
const ANSWER: usize = 8 + 4;
/// What it is called among processes.
const NAME: &str = "vedette: connects to models";

/// The engine's end.
pub struct Dialler {
    channel: Arc<Mutex<Channel>>,
    gone: Notify,
}

struct Channel {
    socket: OwnedFd,
    asked: u64,
}

impl Dialler {
    /// Splits off the process that connects to sockets in `folder`. To be called while this process has one thread.
    ///
    /// # Errors
    /// When the kernel gives no process or socket.
    pub fn start(folder: &Path) -> io::Result<Arc<Self>> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let folder = folder.to_owned();
        sys::split_off(&other, |socket| become_dialler(socket, &folder))?;
        Self::asking(socket)
    }

    fn asking(socket: OwnedFd) -> io::Result<Arc<Self>> {
        for which in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, which, Some(PATIENCE))?;
        }
        let channel = Channel { socket, asked: 0 };
        Ok(Arc::new(Self {
            channel: Arc::new(Mutex::new(channel)),
            gone: Notify::new(),
        }))
    }

    /// Returns when that process was found to have ended: an engine that is confined cannot make another.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl DialSocket for Dialler {
    fn dial<'a>(&'a self, path: &'a Path) -> DiallingSocket<'a> {
        Box::pin(async move {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| name.strip_suffix(ENDING));
            let digits = name.and_then(|name| <[u8; DIGITS]>::try_from(name.as_bytes()).ok());
            let digits = digits.ok_or(io::ErrorKind::InvalidInput)?;
            // Held until the answer: one thread at most waits for it, of all workers.
            let mut channel = Arc::clone(&self.channel).lock_owned().await;
            let asking = tokio::task::spawn_blocking(move || channel.ask(&digits));
            let asked = asking.await.map_err(io::Error::other)?;
            if asked.as_ref().is_err_and(is_its_end) {
                self.gone.notify_one();
            }
            let socket = asked?;
            Quiet::new(UnixStream::from(socket))
        })
    }
}

impl Channel {
    fn ask(&mut self, digits: &[u8; DIGITS]) -> io::Result<OwnedFd> {
        self.asked += 1;
        let number = self.asked.to_ne_bytes();
        let question = [&number[..], digits].concat();
        send(&self.socket, &question, SendFlags::NOSIGNAL)?;
        loop {
            let (answer, socket) = receive(&self.socket)?;
            let (told, errno) = answer.split_at(number.len());
            if told != number {
                continue; // to a question that nobody waits for any more
            }
            let errno = <[u8; 4]>::try_from(errno).map_or(0, i32::from_ne_bytes);
            return match (socket, errno) {
                (Some(socket), 0) => Ok(socket),
                (_, 0) => Err(io::ErrorKind::InvalidData.into()),
                (_, errno) => Err(io::Error::from_raw_os_error(errno)),
            };
        }
    }
}

/// Whether nobody is at the other end any more; a model's own process that is away is told otherwise.
fn is_its_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn receive(socket: &OwnedFd) -> io::Result<([u8; ANSWER], Option<OwnedFd>)> {
    let mut bytes = [0; ANSWER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let got = loop {
        match recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let sent = sockets.next();
    match got.bytes {
        ANSWER => Ok((bytes, sent)),
        0 => Err(io::ErrorKind::BrokenPipe.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The life of the process. A signal of the engine's is not for it: it is there until the engine is not.
fn become_dialler(socket: &OwnedFd, folder: &Path) {
    sys::ignore_signals();
    if let Err(error) = rename() {
        // By its arguments the supervisor would take it for an engine.
        return sys::say(&format_args!("models cannot be connected to: {error}"));
    }
    sys::forbid_dumps();
    confine::confine_to_unix_sockets();
    serve(socket, folder);
}

/// Answers until nobody can ask any more.
fn serve(socket: &OwnedFd, folder: &Path) {
    let mut question = [0; QUESTION];
    loop {
        match recv(socket, &mut question, RecvFlags::empty()) {
            Ok((_, QUESTION)) => {}
            Ok((_, 0)) => return,
            Ok(_) | Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let (number, digits) = question.split_at(8);
        let dialled = name(digits)
            .ok_or(Errno::INVAL)
            .and_then(|name| dial(folder, &name));
        if answer(socket, number, &dialled).is_err() {
            return;
        }
    }
}

/// The name of a socket; of anything else none.
fn name(digits: &[u8]) -> Option<PathBuf> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = std::str::from_utf8(digits).ok()?;
    let is_name = digits.len() == DIGITS && digits.as_bytes().iter().all(is_hex);
    is_name.then(|| format!("{digits}{ENDING}").into())
}

/// A connection to the socket of that name. Does not wait: with a full queue there is none.
fn dial(folder: &Path, name: &Path) -> Result<OwnedFd, Errno> {
    // The path of a socket is short, and that of a folder need not be.
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(folder);
    let folder = folder.map_err(|it| Errno::from_io_error(&it).unwrap_or(Errno::IO))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn answer(socket: &OwnedFd, number: &[u8], dialled: &Result<OwnedFd, Errno>) -> Result<(), Errno> {
    let errno = dialled.as_ref().err().map_or(0, |it| it.raw_os_error());
    let told = [number, &errno.to_ne_bytes()].concat();
    let descriptors: Vec<_> = dialled.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts = [IoSlice::new(&told)];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Gives this process another command line: where the arguments lie, `proc_pid_stat(5)` says (fields 48 and 49).
fn rename() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(45);
    let mut place = || fields.next()?.parse::<u64>().ok();
    let (from, to) = place().zip(place()).ok_or(io::ErrorKind::InvalidData)?;
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or_default();
    let mut arguments = NAME.as_bytes().to_vec();
    arguments.resize(length, 0);
    let mut memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(from))?;
    memory.write_all(&arguments)
}

#[cfg(test)]
#[path = "dialler_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
