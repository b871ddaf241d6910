//! The system calls that lead out of the box.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// On `x86_64` the same call has a second number, with this bit (the x32 ABI).
const OTHER_ABI: c_long = 0x4000_0000;
/// The bits of a socket's type that are not flags.
const TYPE: u64 = 0xf;

/// Calls that no program in the box makes for a good reason: other processes' memory and descriptors, namespaces and
/// mounts, the kernel's own workings, what does all of it at once (`io_uring`).
const REFUSED: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

const ABSENT: [c_long; 2] = [libc::SYS_clone3, libc::SYS_openat2];

type Filtered<T> = Result<T, BackendError>;

/// Refuses them with EPERM, for this thread and all that it starts.
pub fn refuse() -> Result<(), seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, other_sockets()?);
    rules.insert(libc::SYS_socketpair, datagram_pairs()?);
    rules.insert(libc::SYS_clone, new_namespaces()?);
    rules.insert(libc::SYS_ioctl, terminal_input()?);
    rules.insert(libc::SYS_prlimit64, others(0)?);
    rules.insert(libc::SYS_setpriority, others(0)?);
    for (call, argument) in MODES {
        rules.insert(*call, another_user(*argument)?);
    }
    #[cfg(target_arch = "x86_64")]
    for (call, conditions) in rules.clone() {
        rules.insert(call | OTHER_ABI, conditions);
    }
    apply(rules, libc::EPERM, arch)?;
    // What they are to do is in memory, where no filter can look: without them `clone` and `openat` are used.
    let mut absent = BTreeMap::from(ABSENT.map(|call| (call, Vec::new())));
    #[cfg(target_arch = "x86_64")]
    absent.extend(ABSENT.map(|call| (call | OTHER_ABI, Vec::new())));
    apply(absent, libc::ENOSYS, arch)
}

fn apply(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    error: libc::c_int,
    arch: TargetArch,
) -> Result<(), seccompiler::Error> {
    let refusal = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch)?;
    let program = BpfProgram::try_from(filter)?;
    seccompiler::apply_filter(&program)
}

/// Calls that give a file its mode, and which argument that is.
const MODES: &[(c_long, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_fchmodat2, 2),
    (libc::SYS_openat, 3),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// A mode with a set-user-ID or set-group-ID bit: whoever runs the file outside would be this user.
fn another_user(argument: u8) -> Filtered<Vec<SeccompRule>> {
    let bits = [u64::from(libc::S_ISUID), u64::from(libc::S_ISGID)];
    bits.into_iter()
        .map(|bit| SeccompRule::new(vec![masked(argument, bit, bit)?]))
        .collect()
}

/// A call about another process than the caller (0).
fn others(argument: u8) -> Filtered<Vec<SeccompRule>> {
    Ok(vec![none_of(argument, &[0])?])
}

/// The flags of `clone` that make a namespace.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Any socket but streams and datagrams of IP, where the namespace has nothing but loopback, and the kernel's list
/// of addresses (netlink route), which the C library asks. Above all no Unix socket: they are no part of a network
/// namespace, and what listens on one may do anything.
fn other_sockets() -> Filtered<Vec<SeccompRule>> {
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let mut rules = vec![none_of(0, &families)?];
    let is_kind = |kind: &u64, of: &[libc::c_int]| of.iter().any(|it| *kind == unsigned(*it));
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in (0..=TYPE).filter(|it| !is_kind(it, &[libc::SOCK_STREAM, libc::SOCK_DGRAM])) {
            rules.push(SeccompRule::new(vec![
                is(0, family)?,
                masked(1, TYPE, kind)?,
            ])?);
        }
    }
    let other = SeccompCmpOp::Ne;
    let route = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        other,
        unsigned(libc::NETLINK_ROUTE),
    )?;
    rules.push(SeccompRule::new(vec![is(0, libc::AF_NETLINK)?, route])?);
    Ok(rules)
}

/// Any pair but one of streams or of packets in sequence: a datagram socket of a pair can be connected elsewhere.
fn datagram_pairs() -> Filtered<Vec<SeccompRule>> {
    let kept = [unsigned(libc::SOCK_STREAM), unsigned(libc::SOCK_SEQPACKET)];
    let kinds = (0..=TYPE).filter(|kind| !kept.contains(kind));
    kinds
        .map(|kind| SeccompRule::new(vec![masked(1, TYPE, kind)?]))
        .collect()
}

/// Writing into the terminal's own input, which the shell outside would read.
fn terminal_input() -> Filtered<Vec<SeccompRule>> {
    const TIOCLINUX: u64 = 0x541c;
    let requests = [libc::TIOCSTI, TIOCLINUX];
    requests
        .into_iter()
        .map(|it| {
            let equal = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, it)?;
            SeccompRule::new(vec![equal])
        })
        .collect()
}

/// `clone` with any flag that makes a namespace.
fn new_namespaces() -> Filtered<Vec<SeccompRule>> {
    let flags = NAMESPACES.iter().map(|flag| unsigned(*flag));
    flags
        .map(|flag| SeccompRule::new(vec![masked(0, flag, flag)?]))
        .collect()
}

fn unsigned(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

fn is(argument: u8, value: libc::c_int) -> Filtered<SeccompCondition> {
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        unsigned(value),
    )
}

fn masked(argument: u8, mask: u64, value: u64) -> Filtered<SeccompCondition> {
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )
}

/// A call whose argument is none of `values`.
fn none_of(argument: u8, values: &[libc::c_int]) -> Filtered<SeccompRule> {
    let conditions = values.iter().map(|value| {
        let other = SeccompCmpOp::Ne;
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, other, unsigned(*value))
    });
    SeccompRule::new(conditions.collect::<Filtered<_>>()?)
}
