//! The system calls that a process keeps which only computes and serves sockets that it has.
//!
//! A list of what is allowed, since what runs there (a model in a runtime of a million lines) is hostile until shown
//! otherwise. Whatever is not on it fails with ENOSYS, as on a kernel without it: libraries then take their older way,
//! which is on the list. So do `clone3` and `openat2`, whose flags lie in memory, where no filter can look.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Memory, time, threads; reading files and the descriptors that are there.
const ALLOWED: &[c_long] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    libc::SYS_get_mempolicy,
    // files and descriptors
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // the sockets that are there
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // threads and signals of this process
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // time and what else says something of the machine
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// Those of the older interface, which other processors never had.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

type Filtered<T> = Result<T, BackendError>;

/// Leaves this thread and all that it starts these calls and no others.
pub fn allow() -> Result<(), seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let plain = ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = plain.collect();
    rules.insert(libc::SYS_clone, vec![of_this_process()?]);
    rules.insert(libc::SYS_socketpair, vec![stream_pair()?]);
    rules.insert(libc::SYS_ioctl, requests()?);
    rules.insert(libc::SYS_prlimit64, vec![asks_only()?]);
    rules.insert(libc::SYS_prctl, names()?);
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, missing, SeccompAction::Allow, arch)?;
    let program = BpfProgram::try_from(filter)?;
    seccompiler::apply_filter(&program)
}

fn equal(argument: u8, length: SeccompCmpArgLen, value: u64) -> Filtered<SeccompCondition> {
    SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value)
}

/// `clone` for a thread; never for a process.
fn of_this_process() -> Filtered<SeccompRule> {
    let thread = u64::from((libc::CLONE_THREAD | libc::CLONE_VM).unsigned_abs());
    let is_thread = SeccompCmpOp::MaskedEq(thread);
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_thread, thread)?;
    SeccompRule::new(vec![condition])
}

/// A pair of streams, with which the runtime of requests wakes itself for a signal.
fn stream_pair() -> Filtered<SeccompRule> {
    const TYPE: u64 = 0xf;
    let unix = equal(
        0,
        SeccompCmpArgLen::Dword,
        u64::from(libc::AF_UNIX.unsigned_abs()),
    )?;
    let stream = u64::from(libc::SOCK_STREAM.unsigned_abs());
    let masked = SeccompCmpOp::MaskedEq(TYPE);
    let stream = SeccompCondition::new(1, SeccompCmpArgLen::Dword, masked, stream)?;
    SeccompRule::new(vec![unix, stream])
}

/// How much there is to read, not to wait for it, and whether it is a terminal.
fn requests() -> Filtered<Vec<SeccompRule>> {
    let requests = [libc::FIONREAD, libc::FIONBIO, libc::TCGETS];
    requests
        .into_iter()
        .map(|it| SeccompRule::new(vec![equal(1, SeccompCmpArgLen::Dword, it)?]))
        .collect()
}

/// Limits of this process, asked and not set.
fn asks_only() -> Filtered<SeccompRule> {
    let own = equal(0, SeccompCmpArgLen::Dword, 0)?;
    let nothing_new = equal(2, SeccompCmpArgLen::Qword, 0)?;
    SeccompRule::new(vec![own, nothing_new])
}

/// Names of threads and of memory.
fn names() -> Filtered<Vec<SeccompRule>> {
    const SET_VMA: libc::c_int = 0x5356_4d41; // linux/prctl.h
    let options = [libc::PR_SET_NAME, libc::PR_GET_NAME, SET_VMA];
    options
        .into_iter()
        .map(|it| {
            let option = u64::from(it.unsigned_abs());
            SeccompRule::new(vec![equal(0, SeccompCmpArgLen::Dword, option)?])
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::process::Command;

    /// The filter covers a thread and what it starts, so a thread of its own is given up to it.
    #[test]
    fn a_process_that_is_alone_makes_threads_and_no_socket_program_or_file() {
        let confined = std::thread::spawn(|| {
            let folder = std::env::temp_dir();
            allow().unwrap();
            let denied = |result: std::io::Result<()>, what: &str| {
                let kind = result.map_err(|error| error.kind());
                assert_eq!(kind, Err(ErrorKind::Unsupported), "{what}");
            };
            denied(UnixDatagram::unbound().map(drop), "a Unix socket");
            denied(UnixStream::connect("/nowhere").map(drop), "a Unix stream");
            denied(UnixDatagram::pair().map(drop), "a pair of datagrams");
            denied(UnixListener::bind("/nowhere").map(drop), "a Unix listener");
            denied(TcpStream::connect("127.0.0.1:1").map(drop), "a connection");
            denied(UdpSocket::bind("127.0.0.1:0").map(drop), "a look-up");
            denied(Command::new("true").spawn().map(drop), "a program");
            denied(std::fs::create_dir(folder.join("new")), "a folder");
            denied(std::fs::remove_file(folder.join("none")), "a removal");
            denied(std::fs::rename("/nowhere", "/there"), "a rename");
            assert!(std::thread::spawn(|| 1).join().is_ok(), "a thread");
            assert!(
                UnixStream::pair().is_ok(),
                "the runtime wakes itself with one"
            );
        });
        confined.join().unwrap();
    }

    #[test]
    fn a_process_that_is_alone_reads_what_is_listed_and_nothing_else() {
        let own = std::env::current_exe().unwrap();
        let listed = "/proc/cpuinfo".into();
        let files = crate::Files {
            read: vec![listed],
            write: vec![],
        };
        let confined = std::thread::spawn(move || {
            crate::confine_alone(&files).unwrap();
            assert!(File::open("/proc/cpuinfo").is_ok());
            for closed in [own.as_path(), "/etc/passwd".as_ref(), "/".as_ref()] {
                let kind = File::open(closed).map_err(|error| error.kind());
                assert_eq!(kind.err(), Some(ErrorKind::PermissionDenied), "{closed:?}");
            }
            let written = File::options().append(true).open("/proc/cpuinfo");
            assert!(written.is_err(), "what may be read may not be written");
        });
        confined.join().unwrap();
    }
}
