//! What the engine may touch: its folder to read, its spool to write, no network of its own making.
//!
//! seccomp for what Landlock does not cover: connecting to a Unix socket by its path (the admin API
//! trusts this user) and UDP. The sockets it serves were made before it started.
//!
//! Landlock, because the keys of control belong to the same user: file modes cannot keep this
//! process from them, the kernel can. Called on the main thread before any other thread exists,
//! since a restriction covers the thread that asks for it and those it starts.

use std::path::Path;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
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
    match restrict(engine_dir, spool_dir) {
        Ok(RulesetStatus::FullyEnforced) => Confinement::Enforced,
        Ok(RulesetStatus::PartiallyEnforced) => Confinement::Partial,
        Ok(RulesetStatus::NotEnforced) => Confinement::Unavailable,
        Err(error) => {
            crate::sys::say(&format_args!("not confined: {error}"));
            Confinement::Unavailable
        }
    }
}

fn restrict(engine_dir: &Path, spool_dir: &Path) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let spool =
        read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    // The page-map scan of the instance pool opens /proc/self/pagemap.
    let allowed = [
        (engine_dir, read),
        (spool_dir, spool),
        (Path::new("/proc/self"), read),
    ];
    for (path, access) in allowed {
        // A path that is not there needs no rule; without one it stays closed.
        if let Ok(path) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(path, access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Refuses, for this thread and all that it starts, system calls that make or reach anything new:
/// sockets, connections, programs, other processes' memory. They fail with EPERM.
pub fn refuse_system_calls() -> Confinement {
    const REFUSED: [libc::c_long; 13] = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
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
    let applied = TargetArch::try_from(std::env::consts::ARCH).and_then(|arch| {
        let filter = SeccompFilter::new(
            REFUSED.map(|call| (call, Vec::new())).into(),
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
