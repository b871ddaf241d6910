//! What the engine may touch: its folder to read, its spool to write, and the network only outwards,
//! over TCP and UDP, for services behind the node, calls of functions and the look-ups they need.
//!
//! seccomp for what Landlock does not cover: sockets of any other family. Above all Unix sockets,
//! since the admin API trusts this user, and connecting to one by its path is no file access. No
//! socket listens; those it serves were made before it started. A look-up binds a UDP port, so seccomp
//! lets `bind` through; Landlock refuses it for TCP.
//!
//! Landlock, because the keys of control belong to the same user: file modes cannot keep this
//! process from them, the kernel can. Called on the main thread before any other thread exists,
//! since a restriction covers the thread that asks for it and those it starts.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// How far the kernel went along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// All of it is enforced.
    Enforced,
    /// An older kernel enforces files, or files and network.
    Partial,
    /// This kernel has none of it, or has it switched off.
    Unavailable,
}

impl Confinement {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Partial => "partial",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Confines this thread and all that it starts.
pub fn confine(engine_dir: &Path, spool_dir: &Path) -> Confinement {
    let read = AccessFs::from_read(ABI_USED);
    let spool =
        read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    // The page-map scan of the instance pool opens /proc/self/pagemap.
    let own = [
        (engine_dir, read),
        (spool_dir, spool),
        (Path::new("/proc/self"), read),
    ];
    told(restrict(&own))
}

/// Confines a process whose one work is to connect to Unix sockets, which no rule of Landlock covers: no file, no
/// other socket.
pub fn confine_to_unix_sockets() {
    told(restrict(&[]));
    refuse(not_unix_streams());
}

fn told(restricted: Result<RulesetStatus, RulesetError>) -> Confinement {
    match restricted {
        Ok(RulesetStatus::FullyEnforced) => Confinement::Enforced,
        Ok(RulesetStatus::PartiallyEnforced) => Confinement::Partial,
        Ok(RulesetStatus::NotEnforced) => Confinement::Unavailable,
        Err(error) => {
            crate::sys::say(&format_args!("not confined: {error}"));
            Confinement::Unavailable
        }
    }
}

/// The newest version of Landlock whose rules are asked for.
const ABI_USED: ABI = ABI::V6;

fn restrict(own: &[(&Path, BitFlags<AccessFs>)]) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI_USED;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(abi))?
        .create()?;
    for (path, access) in own {
        // A path that is not there needs no rule; without one it stays closed.
        if let Ok(path) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(path, *access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// System calls that make or reach something new: programs, other processes' memory, listeners.
const REFUSED: [libc::c_long; 10] = [
    libc::SYS_listen,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_mount,
    libc::SYS_bpf,
];

/// Refuses, for this thread and all that it starts, [`REFUSED`] and sockets but those of TCP and
/// UDP over IP. They fail with EPERM.
pub fn refuse_system_calls() -> Confinement {
    refuse(other_sockets())
}

/// The same, with sockets that are refused.
fn refuse(sockets: Rules) -> Confinement {
    let applied = TargetArch::try_from(std::env::consts::ARCH).and_then(|arch| {
        let mut rules: BTreeMap<_, _> = REFUSED.map(|call| (call, Vec::new())).into();
        rules.insert(libc::SYS_socket, sockets?);
        rules.insert(libc::SYS_socketpair, datagram_pairs()?);
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPERM.unsigned_abs()),
            arch,
        )?;
        BpfProgram::try_from(filter)
    });
    let applied = applied
        .map_err(seccompiler::Error::from)
        .and_then(|program| seccompiler::apply_filter(&program));
    match applied {
        Ok(()) => Confinement::Enforced,
        Err(error) => {
            crate::sys::say(&format_args!("system calls are not filtered: {error}"));
            Confinement::Unavailable
        }
    }
}

type Rules = Result<Vec<SeccompRule>, seccompiler::BackendError>;

/// The bits of a socket's type that are not flags.
const TYPE: u64 = 0xf;

/// Any socket but a stream or datagram one, of TCP or UDP, of IPv4 or IPv6.
fn other_sockets() -> Rules {
    let mut rules = vec![
        none_of(0, &[libc::AF_INET, libc::AF_INET6])?,
        none_of(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])?,
    ];
    let kinds = (0..=TYPE).filter(|kind| !is_kind(*kind, &[libc::SOCK_STREAM, libc::SOCK_DGRAM]));
    for kind in kinds {
        rules.push(of_kind(kind)?);
    }
    Ok(rules)
}

/// Any socket but a stream of Unix.
fn not_unix_streams() -> Rules {
    let mut rules = vec![none_of(0, &[libc::AF_UNIX])?];
    for kind in (0..=TYPE).filter(|kind| !is_kind(*kind, &[libc::SOCK_STREAM])) {
        rules.push(of_kind(kind)?);
    }
    Ok(rules)
}

/// Any pair but one of streams, which the runtime wakes itself with. A datagram socket of a pair
/// can be connected to another path.
fn datagram_pairs() -> Rules {
    (0..=TYPE)
        .filter(|kind| !is_kind(*kind, &[libc::SOCK_STREAM]))
        .map(of_kind)
        .collect()
}

fn is_kind(kind: u64, of: &[libc::c_int]) -> bool {
    of.iter().any(|it| kind == u64::from(it.unsigned_abs()))
}

fn of_kind(kind: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let masked = SeccompCmpOp::MaskedEq(TYPE);
    let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, masked, kind)?;
    SeccompRule::new(vec![condition])
}

/// A rule for every call whose argument is none of `values`.
fn none_of(argument: u8, values: &[libc::c_int]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = values.iter().map(|value| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::process::Command;

    /// The filter covers a thread and what it starts, so a thread of its own is given up to it.
    #[test]
    fn only_ip_sockets_that_do_not_listen_are_left() {
        let confined = std::thread::spawn(|| {
            assert_eq!(refuse_system_calls(), Confinement::Enforced);
            let denied = |result: std::io::Result<()>, what: &str| {
                let kind = result.map_err(|error| error.kind());
                assert_eq!(kind, Err(ErrorKind::PermissionDenied), "{what}");
            };
            denied(UnixStream::connect("/nowhere").map(drop), "a Unix stream");
            denied(UnixDatagram::unbound().map(drop), "a Unix datagram");
            denied(UnixDatagram::pair().map(drop), "a pair of datagram sockets");
            denied(UnixListener::bind("/nowhere").map(drop), "a Unix listener");
            denied(TcpListener::bind("127.0.0.1:0").map(drop), "listening");
            denied(Command::new("true").spawn().map(drop), "a program");
            assert!(
                UnixStream::pair().is_ok(),
                "the runtime wakes itself with one"
            );
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok(), "look-ups need one");
            let closed = TcpStream::connect("127.0.0.1:1").map_err(|error| error.kind());
            assert_eq!(closed.err(), Some(ErrorKind::ConnectionRefused));
        });
        confined.join().unwrap();
    }
}
