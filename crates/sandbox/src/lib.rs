//! Puts the calling process into a box, before it becomes a program that nobody trusts.
//!
//! Three steps, with time between them to make sockets inside: [`isolate`] gives it a network of its own with nothing
//! but loopback, [`seal`] a view of the files that it cannot change, [`confine`] takes from it what could lead around
//! that: Unix sockets, files that nobody listed, other processes, system calls that make namespaces, drivers or
//! sockets of other kinds. What starts from it is in the same box.
//!
//! Must not: run in a process with more than one thread, since each of these calls covers the one that makes it; or
//! go on when a part could not be had.

mod alone;
mod calls;
#[allow(unsafe_code)]
mod sys;

use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use serde::Deserialize;

/// Why a box could not be made.
#[derive(Debug)]
pub struct Error {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Error {
    fn new(code: &'static str, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// What a program may touch of the file system.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Files {
    /// Files and folders that it may read and run; one that is not there is passed over.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may change as well.
    pub write: Vec<PathBuf>,
}

/// Gives this process a view of the file system of its own, in which nothing can be changed but what `write` names:
/// neither content nor modes, owners, times and attributes, which Landlock does not cover. No file makes anybody
/// another user. Called after [`isolate`], whose namespace owns the view.
///
/// # Errors
/// `namespace_refused`: the kernel (5.12 or newer) or the administrator does not let this user have one.
pub fn seal(write: &[PathBuf]) -> Result<(), Error> {
    let refused = |error: std::io::Error| Error::new("namespace_refused", error);
    sys::unshare(libc::CLONE_NEWNS).map_err(refused)?;
    sys::keep_mounts_private().map_err(refused)?;
    let there: Vec<_> = write.iter().filter(|path| path.exists()).collect();
    for path in &there {
        sys::bind_to_itself(path).map_err(refused)?;
    }
    sys::set_mounts(Path::new("/"), true, sys::READ_ONLY | sys::NO_SET_UID, 0).map_err(refused)?;
    for path in &there {
        sys::set_mounts(path, false, 0, sys::READ_ONLY).map_err(refused)?;
    }
    Ok(())
}

/// Gives this process a network namespace of its own, in a user namespace of its own where the kernel lets it (any
/// user may make one; root needs none), and sets up its loopback.
///
/// # Errors
/// `namespace_refused`: the kernel or the administrator does not let this user have one.
pub fn isolate() -> Result<(), Error> {
    let refused = |error: std::io::Error| Error::new("namespace_refused", error);
    let (user, group) = sys::ids();
    match sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) {
        Ok(()) => {
            let map = |file: &str, text: String| {
                std::fs::write(Path::new("/proc/self").join(file), text).map_err(refused)
            };
            map("setgroups", "deny".into())?;
            map("uid_map", format!("{user} {user} 1"))?;
            map("gid_map", format!("{group} {group} 1"))?;
        }
        Err(_) if user == 0 => {
            sys::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWIPC).map_err(refused)?;
        }
        Err(error) => return Err(refused(error)),
    }
    sys::loopback_up().map_err(refused)
}

/// Takes from this process, and all that it starts, whatever `files` does not name, and the system calls that lead
/// out of the box.
///
/// # Errors
/// `confinement_refused`: the kernel has no Landlock or no seccomp, or refuses.
pub fn confine(files: &Files) -> Result<(), Error> {
    confine_files(files)?;
    calls::refuse().map_err(|error| refused(&format_args!("seccomp: {error}")))
}

/// As [`confine`], for a process that goes on as it is: of the system calls it keeps those that compute, read what
/// `files` names and serve the sockets that it has. It makes no socket and no process, and changes no file.
///
/// # Errors
/// As [`confine`].
pub fn confine_alone(files: &Files) -> Result<(), Error> {
    confine_files(files)?;
    alone::allow().map_err(|error| refused(&format_args!("seccomp: {error}")))
}

fn refused(what: &dyn fmt::Display) -> Error {
    Error::new("confinement_refused", what)
}

fn confine_files(files: &Files) -> Result<(), Error> {
    sys::inherit_nothing();
    sys::end_with_parent();
    sys::forbid_privileges().map_err(|error| refused(&format_args!("privileges: {error}")))?;
    match restrict(files) {
        Ok(RulesetStatus::NotEnforced) => Err(refused(&"this kernel has no Landlock")),
        Ok(_) => Ok(()),
        Err(error) => Err(refused(&format_args!("Landlock: {error}"))),
    }
}

fn restrict(files: &Files) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let read = files.read.iter().map(|it| (it, AccessFs::from_read(abi)));
    let write = files.write.iter().map(|it| (it, AccessFs::from_all(abi)));
    for (path, access) in read.chain(write) {
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        let access = match path.is_dir() {
            true => access,
            false => access & AccessFs::from_file(abi),
        };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
