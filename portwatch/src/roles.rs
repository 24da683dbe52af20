//! Which processes may claim to act on behalf of others, and which proof they need. A process
//! chooses its own name. That it is systemd, or a container's proxy, counts only if the kernel
//! or root vouches for it, or, among the processes of one user, that user ([`Voucher`]).

use crate::{
    engines,
    evidence::{Process, Voucher},
    supervisors::{Home, pm2},
};

/// What a process is for others, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// systemd, of the system or of a user: it listens for `.socket` units.
    Systemd,
    /// The child that systemd forks to listen in a unit's own network namespace.
    SystemdChild,
    /// It has a port open for a container.
    ContainerProxy,
    /// It has a port open for a Service.
    KubeProxy,
    /// It has a port open for one of the programs that it runs.
    AppDaemon(&'static AppDaemon),
}

/// A daemon that itself listens for the programs that it runs.
#[derive(Debug)]
pub struct AppDaemon {
    /// The word that it uses for these programs.
    pub apps: &'static str,
    /// The command that lists them: the command's program, and the arguments after it.
    pub list: (&'static str, &'static str),
    /// The options that name its configuration, if its command accepts the first of them too.
    pub config: &'static [&'static str],
    /// The variable by which its command finds it, and how to read the value from its
    /// arguments.
    pub home: Option<Home>,
    /// What to do after that.
    pub then: &'static str,
    /// Whether each user has one, so that the command must run as its user.
    pub per_user: bool,
}

impl PartialEq for AppDaemon {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for AppDaemon {}

/// The proof that a claim needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is pid 1, or root's program that pid 1 started as a user's manager.
    Manager,
    /// It is a child of pid 1 that runs as root.
    ChildOfFirst,
    /// It runs as root, or it is root's program with that name, or its own user's program.
    Program,
    /// It runs as root, or as the user whose processes it keeps running. The claim counts only
    /// for that user's processes.
    Owner,
}

/// A name that claims a role.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The process's name, of which the kernel keeps 15 characters; `*` at its end matches any
    /// text.
    pub comm: &'static str,
    /// The role that it claims.
    pub role: Role,
    /// The proof that it needs.
    pub proof: Proof,
    /// The programs that have this name legitimately.
    pub programs: &'static [&'static str],
}

/// All claims except those of containers' proxies, which are in [`engines`]. Programs that keep
/// others running are in [`crate::supervisors`]: they are believed for processes of their own
/// user, or if root runs them.
const CLAIMS: [Claim; 8] = [
    Claim { comm: "systemd", role: Role::Systemd, proof: Proof::Manager, programs: &["systemd"] },
    Claim {
        comm: "(sd-listen)",
        role: Role::SystemdChild,
        proof: Proof::ChildOfFirst,
        programs: &["systemd"],
    },
    Claim {
        comm: "kube-proxy",
        role: Role::KubeProxy,
        proof: Proof::Program,
        programs: &["kube-proxy", "hyperkube"],
    },
    daemon("PM2 v*", Proof::Owner, &[], &PM2),
    daemon("supervisord", Proof::Owner, &[], &SUPERVISORD),
    daemon("circusd", Proof::Owner, &[], &CIRCUS),
    daemon("xinetd", Proof::Program, &["xinetd"], &XINETD),
    daemon("inetd", Proof::Program, &["inetd", "inetutils-inetd", "busybox"], &INETD),
];

const fn daemon(
    comm: &'static str,
    proof: Proof,
    programs: &'static [&'static str],
    daemon: &'static AppDaemon,
) -> Claim {
    Claim { comm, role: Role::AppDaemon(daemon), proof, programs }
}

/// In cluster mode pm2's daemon listens for its apps (Node's `cluster`).
const PM2: AppDaemon = AppDaemon {
    apps: "apps",
    list: ("pm2", "list"),
    config: &[],
    home: Some(("PM2_HOME", pm2::home)),
    then: "stop the app that has the port: pm2 stop NAME",
    per_user: true,
};

/// supervisord has the sockets of its `[fcgi-program:x]` sections open.
const SUPERVISORD: AppDaemon = AppDaemon {
    apps: "programs",
    list: ("supervisorctl", "status"),
    config: &["-c", "--configuration"],
    home: None,
    then: "stop the program that has the socket (an [fcgi-program] or [inet_http_server] section)",
    per_user: false,
};

/// circus has the sockets of its `[socket:x]` sections open.
const CIRCUS: AppDaemon = AppDaemon {
    apps: "watchers",
    list: ("circusctl", "listsockets"),
    config: &[],
    home: None,
    then: "remove the [socket] section that has the port, and stop its watcher: circusctl stop NAME",
    per_user: false,
};

const XINETD: AppDaemon = AppDaemon {
    apps: "services",
    list: ("grep", "-rnE '^service|port|disable' /etc/xinetd.conf /etc/xinetd.d"),
    config: &[],
    home: None,
    then: "set disable = yes for the service that has the port, and reload xinetd",
    per_user: false,
};

const INETD: AppDaemon = AppDaemon {
    apps: "services",
    list: ("grep", "-v '^#' /etc/inetd.conf"),
    config: &[],
    home: None,
    then: "comment out the service that has the port, and reload inetd",
    per_user: false,
};

/// Returns the claim that a name makes.
pub fn claim(name: &str) -> Option<Claim> {
    let is = |claim: &&Claim| match claim.comm.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => claim.comm == name,
    };
    let own = CLAIMS.iter().find(is).copied();
    own.or_else(|| {
        let (_, proxy) = engines::proxies(name).next()?;
        let (comm, programs) = (proxy.comm, proxy.programs);
        let proof = if proxy.rootless { Proof::Owner } else { Proof::Program };
        Some(Claim { comm, role: Role::ContainerProxy, proof, programs })
    })
}

/// Returns the claim of a process, by its name, otherwise by the program in its first argument.
pub fn claim_of(process: &Process) -> Option<Claim> {
    let by_comm = process.comm.as_deref().and_then(claim);
    let claim = by_comm.or_else(|| {
        let first = process.cmdline.first()?;
        claim(first.rsplit('/').next().unwrap_or(first))
    })?;
    let argument = engines::proxies(claim.comm).next().and_then(|(_, proxy)| proxy.argument);
    let has = |wanted| process.cmdline.iter().any(|argument| argument == wanted);
    argument.is_none_or(has).then_some(claim)
}

/// Returns whether the claim of a process counts for `asking`. Events of older versions have no
/// `vouched_by`, and their claims are accepted as they were then.
pub fn is_believed(process: &Process, asking: &Process) -> bool {
    let of_its_own = || claim_of(process).is_some_and(|claim| claim.proof == Proof::Owner);
    match process.vouched_by {
        None | Some(Voucher::Root) => true,
        Some(Voucher::User) => of_its_own() || (process.uid.is_some() && process.uid == asking.uid),
        Some(Voucher::Nobody) => false,
    }
}

/// Returns the role of a process by its name, if that counts for `asking`. A process inside a
/// container is nobody's proxy, whatever its name is. kube-proxy runs in a pod of the cluster's
/// own namespace.
pub fn of(process: &Process, asking: &Process) -> Option<Role> {
    let role = claim_of(process)?.role;
    let in_its_place = match role {
        Role::Systemd | Role::SystemdChild => true,
        Role::ContainerProxy | Role::AppDaemon(_) => process.container.is_none(),
        Role::KubeProxy => {
            let pod = process.workload.as_ref().and_then(|workload| workload.pod.as_ref());
            process.vouched_by.is_none()
                || process.container.is_none()
                || pod.is_some_and(|pod| pod.namespace == "kube-system")
        }
    };
    (in_its_place && is_believed(process, asking)).then_some(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Engine, Pod, Workload};

    fn named(comm: &str, vouched_by: Option<Voucher>, uid: u32) -> Process {
        let cmdline = [comm, "forkproxy"].map(str::to_owned).into_iter().collect();
        let comm = Some(comm.to_owned());
        Process { comm, cmdline, uid: Some(uid), vouched_by, ..Process::default() }
    }

    #[test]
    fn a_name_alone_is_no_proof() {
        let asking = |uid| named("java", None, uid);
        let proxies = engines::all().flat_map(|engine| engine.spec().proxies);
        let names = CLAIMS.iter().map(|claim| claim.comm);
        for claim in names.chain(proxies.map(|proxy| proxy.comm)).map(|name| claim(name).unwrap()) {
            let role = |by, uid| of(&named(claim.comm, by, 1000), &asking(uid));
            assert_eq!(role(Some(Voucher::Nobody), 1000), None, "{}", claim.comm);
            let of_another = (claim.proof == Proof::Owner).then_some(claim.role);
            assert_eq!(role(Some(Voucher::User), 1001), of_another, "{}", claim.comm);
            assert_eq!(role(Some(Voucher::User), 1000), Some(claim.role), "{}", claim.comm);
            assert_eq!(role(Some(Voucher::Root), 1001), Some(claim.role), "{}", claim.comm);
            assert_eq!(role(None, 1001), Some(claim.role), "an event of before");
        }
        assert_eq!(of(&asking(0), &asking(0)), None);
    }

    #[test]
    fn kube_proxy_in_a_pod_must_be_the_clusters_own() {
        let in_pod = |namespace: Option<&str>| {
            let pod = namespace.map(|namespace| Pod {
                namespace: namespace.to_owned(),
                name: "kube-proxy-x".to_owned(),
            });
            let workload = Workload {
                engine: Engine::Containerd,
                id: None,
                name: None,
                image: None,
                pod,
                published: None,
            };
            let proxy = Process {
                container: Some("9f81".to_owned()),
                workload: Some(workload),
                ..named("kube-proxy", Some(Voucher::Root), 0)
            };
            of(&proxy, &Process::default())
        };
        assert_eq!(in_pod(Some("kube-system")), Some(Role::KubeProxy));
        assert_eq!(in_pod(Some("shop")), None);
        assert_eq!(in_pod(None), None);
    }
}
