//! Determines which user or program vouches for the name of a process ([`crate::roles`]).

use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::{
    enrich::host::Host,
    evidence::{Evidence, Process, Voucher},
    kernel::nsfs::Hidden,
    roles::{self, Claim, Proof},
};

/// Directories of root's programs. Other directories are not examined: a user may have mounted
/// a file system there that does not answer.
const PLACES: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/opt", "/snap", "/nix", "/gnu"];

/// Fills in `vouched_by` for every process in the evidence whose name claims a role.
pub fn vouch_all(host: &Host, evidence: &mut Evidence) {
    let Evidence { process, sockets, last_holder, previous_holder, ephemeral, .. } = evidence;
    let holders = sockets.iter_mut().flat_map(|socket| &mut socket.holders);
    let before = [last_holder, previous_holder].into_iter().flatten().map(|one| &mut one.process);
    let usage = ephemeral.as_mut().and_then(|range| range.usage.as_mut());
    let most = usage.and_then(|usage| usage.most_by.as_mut()).map(|most| &mut most.process);
    for process in std::iter::once(process).chain(holders).chain(before).chain(most) {
        process.vouched_by = roles::claim_of(process).map(|claim| voucher(host, process, &claim));
    }
}

fn voucher(host: &Host, process: &Process, claim: &Claim) -> Voucher {
    match claim.proof {
        Proof::Manager => {
            let first = process.pid == 1 && host.hidden() != Some(Hidden::PidNamespace);
            if first || (is_users_manager(process) && is_roots_program(host, process, claim)) {
                Voucher::Root
            } else {
                Voucher::Nobody
            }
        }
        Proof::ChildOfFirst => {
            let is_child = process.ppid == Some(1) && process.container.is_none();
            if is_child && is_roots(host, process) { Voucher::Root } else { Voucher::Nobody }
        }
        Proof::Program => by_program(host, process, claim),
        Proof::Owner if is_roots(host, process) => Voucher::Root,
        Proof::Owner => Voucher::User,
    }
}

fn by_program(host: &Host, process: &Process, claim: &Claim) -> Voucher {
    if is_roots(host, process) || is_roots_program(host, process, claim) {
        return Voucher::Root;
    }
    let owner = look(&host.proc_file(process.pid, "exe")).map(|file| file.stx_uid);
    if is_named(process, claim) && owner.is_some() && owner == process.uid {
        return Voucher::User;
    }
    Voucher::Nobody
}

/// Returns whether root runs the process, and not a program that any user may start as root.
fn is_roots(host: &Host, process: &Process) -> bool {
    // For a process that has exited the user is known, but not the file.
    process.uid == Some(0) && (process.exe.is_none() || is_roots_process(host, process.pid))
}

/// Returns whether root started a process that runs as root. Any user may start a program that
/// has the set-user-ID or set-group-ID bit, under any name.
pub fn is_roots_process(host: &Host, pid: u32) -> bool {
    /// S_ISUID and S_ISGID.
    const ANYBODY_STARTS_IT: u16 = 0o6000;
    look(&host.proc_file(pid, "exe"))
        .is_none_or(|file| is_roots_alone(&file) && file.stx_mode & ANYBODY_STARTS_IT == 0)
}

/// Returns whether the process is systemd as the manager of one user: pid 1 started it in a
/// unit of its own.
fn is_users_manager(process: &Process) -> bool {
    let path = process.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    let in_manager = path.unwrap_or_default().split('/').any(|part| part.starts_with("user@"));
    process.ppid == Some(1) && in_manager && process.container.is_none()
}

fn is_named(process: &Process, claim: &Claim) -> bool {
    let Some(exe) = process.exe.as_deref() else { return false };
    let file = exe.rsplit('/').next().unwrap_or(exe);
    // Nix names a wrapped program like this.
    let wrapped = file.strip_prefix('.').and_then(|file| file.strip_suffix("-wrapped"));
    claim.programs.contains(&wrapped.unwrap_or(file))
}

/// Returns whether the process runs a program that root has put, under that name, where only
/// root may write. The process's own mounts decide what the path means, so the file there must
/// be the one that the process runs: a user can mount a file over any other.
fn is_roots_program(host: &Host, process: &Process, claim: &Claim) -> bool {
    let Some(exe) = process.exe.as_deref().filter(|_| is_named(process, claim)) else {
        return false;
    };
    let Some(runs) = look(&host.proc_file(process.pid, "exe")) else { return false };
    let id = |file: &Statx| (file.stx_dev_major, file.stx_dev_minor, file.stx_ino);
    roots_file(Path::new(exe)).is_some_and(|there| id(&there) == id(&runs))
}

/// Returns the file, if nobody but root can have put it there.
fn roots_file(path: &Path) -> Option<Statx> {
    PLACES.iter().find(|place| path.starts_with(place))?;
    let mut so_far = PathBuf::new();
    let mut last = None;
    for part in path.components() {
        match part {
            Component::RootDir | Component::Normal(_) => so_far.push(part),
            _ => return None,
        }
        // Each directory is checked before anything below it, which may belong to a user.
        last = Some(look(&so_far).filter(is_roots_alone)?);
    }
    last
}

/// Returns whether the file belongs to root, and nobody else may write it.
fn is_roots_alone(file: &Statx) -> bool {
    const OTHERS_WRITE: u16 = 0o022;
    file.stx_uid == 0 && file.stx_mode & OTHERS_WRITE == 0
}

/// Returns the metadata of a file, without a request to the process or machine that serves it.
pub fn look(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::ErrorKind,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

    use tempfile::TempDir;

    use super::*;
    use crate::evidence::Cgroup;

    /// A process `comm` of user `uid` that runs the program at `exe`.
    fn vouched(comm: &str, uid: u32, exe: &Path, change: impl FnOnce(&mut Process)) -> Voucher {
        let root = TempDir::new().unwrap();
        let host = Host::fake(root.path(), Box::new(|_| Err(ErrorKind::Unsupported.into())));
        let folder = root.path().join("proc/70");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        symlink(exe, folder.join("exe")).unwrap();
        let mut process = Process {
            pid: 70,
            ppid: Some(60),
            comm: Some(comm.to_owned()),
            exe: Some(exe.display().to_string()),
            uid: Some(uid),
            ..Process::default()
        };
        change(&mut process);
        voucher(&host, &process, &roles::claim_of(&process).unwrap())
    }

    /// A program in a folder of the test's own.
    fn program(folder: &TempDir, name: &str, owner: u32, mode: u32) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        // It takes the bits away.
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_name_is_not_the_program() {
        let python = Path::new("/usr/bin/env");
        for comm in ["docker-proxy", "conmon", "kube-proxy", "systemd", "(sd-listen)"] {
            assert_eq!(vouched(comm, 1000, python, |_| ()), Voucher::Nobody, "{comm}");
        }
        // What says something about that user's own processes only.
        for comm in ["pasta", "rootlessport", "PM2 v5.3.0: God", "supervisord"] {
            assert_eq!(vouched(comm, 1000, python, |_| ()), Voucher::User, "{comm}");
        }
        for comm in ["docker-proxy", "conmon", "kube-proxy"] {
            assert_eq!(vouched(comm, 0, python, |_| ()), Voucher::Root, "{comm}: root's word");
        }
    }

    #[test]
    fn a_users_own_program_has_that_users_word_only() {
        let folder = TempDir::new().unwrap();
        let of = |name, owner, mode| program(&folder, name, owner, mode);
        let (own, roots) = (of("docker-proxy", 1000, 0o755), of("conmon", 0, 0o755));
        assert_eq!(vouched("docker-proxy", 1000, &own, |_| ()), Voucher::User);
        assert_eq!(vouched("docker-proxy", 1001, &own, |_| ()), Voucher::Nobody);
        assert_eq!(vouched("conmon", 1000, &own, |_| ()), Voucher::Nobody);
        // Root's file of that name, where everybody may have put it.
        assert_eq!(vouched("conmon", 1000, &roots, |_| ()), Voucher::Nobody);
    }

    /// Such a program runs as root for everybody who starts it by another name.
    #[test]
    fn a_program_that_anybody_may_start_as_root_has_not_roots_word() {
        let folder = TempDir::new().unwrap();
        for (mode, expected) in
            [(0o755, Voucher::Root), (0o4755, Voucher::Nobody), (0o777, Voucher::Nobody)]
        {
            let su = program(&folder, "su", 0, mode);
            let found = vouched("docker-proxy", 0, &su, |_| ());
            assert_eq!(found, expected, "{mode:o}");
        }
    }

    #[test]
    fn roots_program_of_that_name_is_it_whoever_runs_it() {
        let claim = Claim {
            comm: "docker-proxy",
            role: roles::Role::ContainerProxy,
            proof: Proof::Program,
            programs: &["env"],
        };
        let root = TempDir::new().unwrap();
        let host = Host::fake(root.path(), Box::new(|_| Err(ErrorKind::Unsupported.into())));
        let folder = root.path().join("proc/70");
        fs::create_dir_all(&folder).unwrap();
        symlink("/usr/bin/env", folder.join("exe")).unwrap();
        let process = |exe: &str| Process {
            pid: 70,
            uid: Some(1000),
            exe: Some(exe.to_owned()),
            ..Process::default()
        };
        assert_eq!(by_program(&host, &process("/usr/bin/env"), &claim), Voucher::Root);
        // Mounted over another of its name.
        let over = process("/usr/local/bin/env");
        assert_eq!(by_program(&host, &over, &claim), Voucher::Nobody);
    }

    #[test]
    fn systemd_is_the_first_process_or_a_users_manager() {
        let any = Path::new("/usr/bin/env");
        assert_eq!(vouched("systemd", 0, any, |it| it.pid = 1), Voucher::Root);
        assert_eq!(vouched("systemd", 0, any, |_| ()), Voucher::Nobody);
        let manager = |it: &mut Process| {
            let path = "/user.slice/user-1000.slice/user@1000.service/init.scope";
            it.cgroup = Some(Cgroup { id: None, path: Some(path.to_owned()) });
            it.ppid = Some(1);
        };
        // In its place, and not its program.
        assert_eq!(vouched("systemd", 1000, any, manager), Voucher::Nobody);
        let systemd = Path::new("/usr/lib/systemd/systemd");
        if systemd.exists() {
            assert_eq!(vouched("systemd", 1000, systemd, manager), Voucher::Root);
            assert_eq!(vouched("systemd", 1000, systemd, |_| ()), Voucher::Nobody);
        }
        assert_eq!(vouched("(sd-listen)", 0, any, |it| it.ppid = Some(1)), Voucher::Root);
        assert_eq!(vouched("(sd-listen)", 1000, any, |it| it.ppid = Some(1)), Voucher::Nobody);
        assert_eq!(vouched("(sd-listen)", 0, any, |_| ()), Voucher::Nobody);
    }
}
