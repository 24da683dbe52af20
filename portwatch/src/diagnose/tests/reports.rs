//! Kinds of failed binds as people report them, from evidence made here: what tests/live/reports.rs
//! cannot make with the helper program.

use super::{
    responsibility::{beside, ends, first, nginx},
    *,
};
use crate::evidence::{Ephemeral, Origin, PortChoice, Usage, Voucher};

/// A daemon is asked where it is, which its own command line says.
#[test]
fn a_daemon_is_asked_where_it_is() {
    for (line, command) in [
        (
            "/usr/bin/python3|/usr/bin/supervisord|-n|-c|/srv/a b/s.conf",
            "runuser -u deploy -- supervisorctl -c '/srv/a b/s.conf' status",
        ),
        (
            "/usr/bin/python3|/usr/bin/supervisord|--configuration=s.conf",
            "runuser -u deploy -- supervisorctl -c /srv/app/s.conf status",
        ),
        (
            "PM2 v6.0.8: God Daemon (/srv/app/pm2)",
            "runuser -u deploy -- env PM2_HOME=/srv/app/pm2 pm2 list",
        ),
    ] {
        let mut holder = nginx(700, "/system.slice/x.service", Some("x.service"));
        holder.comm = Some(
            if line.starts_with("PM2") { "PM2 v6.0.8: God" } else { "supervisord" }.to_owned(),
        );
        holder.cmdline = line.split('|').map(str::to_owned).collect();
        (holder.uid, holder.user) = (Some(1004), Some("deploy".to_owned()));
        (holder.vouched_by, holder.cwd) = (Some(Voucher::User), Some("/srv/app".to_owned()));
        let evidence = beside(holder);
        assert_eq!(class(&evidence), HolderClass::AppDaemon, "{line}");
        assert_eq!(first(&evidence).0, command);
    }
}

/// haproxy's `-sf`: ending the one before would interrupt what is being handed over.
#[test]
fn who_takes_over_is_not_told_to_end_the_one_before() {
    let mut evidence = beside(nginx(31550, "/", None));
    evidence.process.cmdline =
        ["nginx", "-f", "a.cfg", "-sf", "31550"].map(str::to_owned).to_vec().into();
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::No);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OldInstance);
    assert!(diagnosis.moves[0].why.contains("take over from nginx[31550] (-sf)"));
    assert_eq!(ends(&evidence), [""; 0]);
    // A port that somebody else has is no part of the hand-over.
    evidence.sockets[0].holders = vec![Process {
        comm: Some("nc".to_owned()),
        exe: Some("/usr/bin/nc".to_owned()),
        cmdline: ["nc", "-l", "8080"].map(str::to_owned).to_vec().into(),
        ..nginx(4711, "/", None)
    }];
    assert_eq!(class(&evidence), HolderClass::OtherService);
    assert!(first(&evidence).1.starts_with("move nginx.service or nc[4711] to another port"));
    assert_eq!(ends(&evidence), ["kill 4711"]);
}

/// epmd: the second start ends without an error, and both services use the first.
#[test]
fn a_helper_that_two_services_start_is_shared() {
    let epmd = |pid, unit: &str| Process {
        comm: Some("epmd".to_owned()),
        exe: Some("/usr/bin/epmd".to_owned()),
        cmdline: ["/usr/bin/epmd", "-daemon"].map(str::to_owned).to_vec().into(),
        ..nginx(pid, &format!("/system.slice/{unit}"), Some(unit))
    };
    let mut evidence = beside(epmd(31550, "rabbitmq-server.service"));
    let unit = Some("ejabberd.service".to_owned());
    evidence.process = Process { unit, ..epmd(52110, "ejabberd.service") };
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.holder.as_ref().unwrap().class, HolderClass::OtherService);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::No);
    assert!(diagnosis.moves[0].why.starts_with("end nothing if one epmd is enough for both"));
    assert_eq!(ends(&evidence), [""; 0]);
}

/// `ssh -R` and X11: the session's own sshd has the port. An editor or a browser has ports too.
#[test]
fn what_somebody_works_with_is_looked_at_first() {
    let session = "/user.slice/user-1000.slice/session-7.scope";
    let app = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-code-31337.scope";
    for (comm, exe, cgroup, what) in [
        ("sshd", "/usr/sbin/sshd", session, "an ssh connection"),
        ("mosh-server", "/usr/bin/mosh-server", session, "a mosh connection"),
        ("node", "/home/anna/.vscode-server/bin/3f9a/node", session, "an editor's remote server"),
        ("code", "/usr/share/code/code", app, "the application code itself"),
    ] {
        let unit = cgroup.rsplit('/').next();
        let mut holder = Process {
            comm: Some(comm.to_owned()),
            exe: Some(exe.to_owned()),
            cmdline: vec![exe.to_owned()].into(),
            ..nginx(31550, cgroup, unit)
        };
        holder.session = (cgroup == session).then(|| "7".to_owned());
        holder.unit_owner = (cgroup == app).then_some(1000);
        let evidence = beside(holder);
        let diagnosis = diagnose(&evidence);
        let judgement = diagnosis.judgement.unwrap();
        assert_ne!(judgement.safe_to_stop, SafeToStop::Likely, "{comm}");
        assert!(judgement.contra.iter().any(|it| it.contains(what)), "{comm}: {judgement:?}");
        let mut commands = diagnosis.moves.iter().filter(|step| step.command.is_some());
        let first = commands.next().unwrap();
        assert!(first.risk == Risk::None && first.why.contains(what), "{comm}: {first:?}");
    }
}

/// Two people's sessions, and a program that may take the next port (mosh).
#[test]
fn another_persons_session_is_not_ended() {
    let of = |pid, session: &str, user: &str| Process {
        session: Some(session.to_owned()),
        session_user: Some(user.to_owned()),
        ..nginx(pid, &format!("/user.slice/user-1.slice/session-{session}.scope"), None)
    };
    let mut evidence = beside(of(31550, "7", "anna"));
    evidence.process = of(52110, "8", "boris");
    evidence.process.cmdline = ["server", "--ports=8000-8100"].map(str::to_owned).to_vec().into();
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::Squatter);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::Check);
    assert!(diagnosis.moves[0].why.starts_with("end nothing if it takes another port"));
    let look = &diagnosis.moves[1];
    assert!(look.risk == Risk::None && look.why.contains("another user, anna"), "{look:?}");
    let mosh = |process: Process| Process {
        comm: Some("mosh-server".to_owned()),
        exe: Some("/usr/bin/mosh-server".to_owned()),
        cmdline: ["mosh-server", "new", "-p", "8000:8100"].map(str::to_owned).to_vec().into(),
        ..process
    };
    let mut evidence = beside(mosh(of(31550, "7", "anna")));
    (evidence.sockets[0].state, evidence.failure.protocol) = (State::Unconn, Protocol::Udp);
    evidence.process = mosh(of(52110, "8", "boris"));
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.cause, Cause::Udp);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::Squatter);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::Check);
    let why = &diagnosis.moves[0].why;
    assert!(why.starts_with("end nothing if it takes another port") && why.contains("8000:8100"));
    let look = &diagnosis.moves[1];
    assert!(look.risk == Risk::None && look.why.contains("a mosh connection"), "{look:?}");
}

/// A socket of a namespace without a name, whose failing process has exited.
#[test]
fn a_namespace_is_entered_by_who_lives_there() {
    let mut evidence = beside(Process { netns: Some(1), ..nginx(31550, "/", None) });
    evidence.sockets[0].remote = Some("10.0.9.1:5432".parse().unwrap());
    evidence.sockets[0].state = State::Established;
    evidence.ephemeral =
        Some(Ephemeral { low: 8_000, high: 9_000, reserved: String::new(), usage: None });
    evidence.netns = Netns { inode: Some(2), host: Some(false), ..Netns::default() };
    assert!(first(&evidence).0.starts_with("nsenter -t 52110 -n sysctl"), "of before");
    evidence.netns.pid = Some(4711);
    assert!(first(&evidence).0.starts_with("nsenter -t 4711 -n sysctl"));
}

/// The range from which the kernel chooses.
fn range(low: u16, high: u16, usage: Option<Usage>) -> Option<Ephemeral> {
    Some(Ephemeral { low, high, reserved: String::new(), usage })
}

/// A connection of another program from 127.0.0.1:`port` to 127.0.0.1:2049 against a bind of
/// that port.
fn connection(port: u16, protocol: Protocol) -> Evidence {
    let mut evidence = beside(nginx(31550, "/", None));
    let client = Process { comm: Some("mount.nfs".to_owned()), ..nginx(31550, "/", None) };
    let exe = Some("/usr/sbin/mount.nfs".to_owned());
    let cmdline = vec!["mount.nfs".to_owned()].into();
    let client = Process { exe, cmdline, ..client };
    let mut row = socket(State::Established, &format!("127.0.0.1:{port}"), vec![client]);
    row.remote = Some("127.0.0.1:2049".parse().unwrap());
    evidence.sockets = vec![row];
    evidence.failure.port = port;
    evidence.failure.protocol = protocol;
    evidence.failure.reuseaddr = Some(false);
    evidence.ephemeral = range(32_768, 60_999, None);
    evidence
}

/// bindresvport(3): the range from which the kernel chooses has nothing to do with it.
#[test]
fn a_client_that_chose_its_port() {
    let mut evidence = connection(789, Protocol::Tcp);
    evidence.sockets[0].origin = Some(crate::evidence::Origin::Outgoing);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.cause, Cause::ClientPort);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OtherService);
    let why = &diagnosis.moves[0].why;
    for part in ["bindresvport", "list 789 in /etc/bindresvport.blacklist", "sunrpc.min_resvport"] {
        assert!(why.contains(part), "no {part}: {why}");
    }
    assert!(diagnosis.notes[0].contains("which the program chose itself"));
    let all = serde_json::to_string(&diagnosis.moves).unwrap();
    assert!(!all.contains("ip_local_reserved_ports") && !all.contains("ip_local_port_range"));
    assert_eq!(ends(&evidence), ["kill 31550"]);
}

/// Both ends are outside of the range, and nobody saw the connection begin.
#[test]
fn a_connection_of_unknown_direction() {
    let diagnosis = diagnose(&connection(789, Protocol::Tcp));
    assert_eq!(diagnosis.cause, Cause::ConnectionsRemain);
    assert_eq!(diagnosis.confidence, Confidence::Undetermined);
    let note = diagnosis.notes.iter().find(|note| note.contains("which side opened")).unwrap();
    assert!(note.contains("If this side did") && note.contains("If the other side did"));
    assert!(!diagnosis.summary.contains("accepted"), "{}", diagnosis.summary);
    assert!(diagnosis.moves.iter().any(|step| step.why.starts_with("if that program is a client")));
}

/// Nobody configured anything: the kernel gave the port to a client.
#[test]
fn a_client_of_udp() {
    let diagnosis = diagnose(&connection(51_820, Protocol::Udp));
    assert_eq!(diagnosis.cause, Cause::ClientPort);
    let all = serde_json::to_string(&diagnosis).unwrap();
    let has = |word: &str| all.contains(word);
    assert!(!has("configured") && !has("configuration"), "{all}");
    assert!(diagnosis.notes[0].contains("it is the source port of a client"));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OtherService);
    let reserve = "sysctl -w net.ipv4.ip_local_reserved_ports=51820";
    assert_eq!(diagnosis.moves[0].command.as_deref(), Some(reserve));
}

/// A client that binds a port of the kernel's range by its number gets it again whatever is
/// reserved.
#[test]
fn a_client_that_asks_for_a_port_of_the_range() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut evidence = connection(51_820, protocol);
        evidence.sockets[0].origin = Some(Origin::Outgoing);
        evidence.sockets[0].port_chosen_by = Some(PortChoice::Program);
        let diagnosis = diagnose(&evidence);
        assert_eq!(diagnosis.cause, Cause::ClientPort);
        assert!(diagnosis.moves[0].why.starts_with("have the client use another source port"));
        assert!(diagnosis.notes[0].ends_with("which the program chose itself"));
        let all = serde_json::to_string(&diagnosis.moves).unwrap();
        assert!(!all.contains("ip_local_port_range"), "{all}");
    }
}

/// IP_BIND_ADDRESS_NO_PORT helps TCP only.
#[test]
fn a_full_range_of_udp() {
    for (protocol, helps) in [(Protocol::Tcp, true), (Protocol::Udp, false)] {
        let mut evidence = connection(0, protocol);
        evidence.sockets.clear();
        evidence.ephemeral = range(
            41_000,
            41_019,
            Some(Usage { ports: 20, states: Default::default(), most_by: None }),
        );
        let diagnosis = diagnose(&evidence);
        assert_eq!(diagnosis.cause, Cause::PortExhausted);
        let all = serde_json::to_string(&diagnosis.moves).unwrap();
        assert_eq!(all.contains("IP_BIND_ADDRESS_NO_PORT"), helps, "{protocol:?}");
    }
}

/// A JVM that is started to stop another one wants its JMX port too.
#[test]
fn a_port_beside_the_service() {
    let unit = "/system.slice/tomcat9.service";
    let mut evidence = listener(java(31550, "2.4.2", unit, "2026-06-08T13:00:00Z"));
    evidence.process = java(52110, "2.4.2", unit, "2026-06-08T14:02:10Z");
    for option in [
        "-Dcom.sun.management.jmxremote.port=8080",
        "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=*:8080",
    ] {
        let line = ["java", option, "-jar", "/opt/app/app-2.4.2.jar", "stop"];
        evidence.process.cmdline = line.map(str::to_owned).to_vec().into();
        let diagnosis = diagnose(&evidence);
        assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OldInstance);
        let begins = format!("take {} out of the failing command", moves::quote(option));
        assert!(diagnosis.moves[0].why.starts_with(&begins), "{:?}", diagnosis.moves);
        assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::No);
        assert_eq!(ends(&evidence), [""; 0]);
    }
}

/// Its engine lists no container for it.
#[test]
fn a_proxy_that_was_left_over() {
    let mut proxy = nginx(31550, "/system.slice/docker.service", Some("docker.service"));
    proxy.comm = Some("docker-proxy".to_owned());
    proxy.exe = Some("/usr/bin/docker-proxy".to_owned());
    proxy.cmdline = vec!["/usr/bin/docker-proxy".to_owned()].into();
    (proxy.vouched_by, proxy.left_over) = (Some(Voucher::Root), true);
    let evidence = beside(proxy);
    assert_eq!(class(&evidence), HolderClass::ContainerProxy);
    assert_eq!(first(&evidence).0, "kill 31550");
}

/// A process of `/srv` that runs `file`, in no unit.
fn at_srv(pid: u32, file: &str, line: &str) -> Process {
    let cmdline: Vec<_> = line.split('|').map(str::to_owned).collect();
    Process {
        comm: Some(file.rsplit('/').next().unwrap().to_owned()),
        exe: Some(file.to_owned()),
        cwd: Some("/srv".to_owned()),
        cmdline: cmdline.into(),
        ..nginx(pid, "/", None)
    }
}

/// What an interpreter runs decides, also behind an option that takes a value.
#[test]
fn two_scripts_of_one_interpreter() {
    for (file, one, other) in [
        ("/usr/bin/node", "node|-r|dotenv/config|billing.js", "node|-r|dotenv/config|shop.js"),
        (
            "/usr/lib/jvm/bin/java",
            "java|-cp|a.jar|com.acme.Billing",
            "java|-cp|a.jar|com.acme.Shop",
        ),
        ("/usr/bin/php", "php|-S|[::]:8080|-t|billing", "php|-S|[::]:8080|-t|shop"),
        ("/usr/bin/perl", "perl|-I|lib|billing.pl", "perl|-I|lib|shop.pl"),
    ] {
        let mut evidence = beside(at_srv(31550, file, one));
        evidence.process = at_srv(52110, file, other);
        let name = file.rsplit('/').next().unwrap();
        assert_eq!(class(&evidence), HolderClass::OtherService, "{one}");
        assert_eq!(diagnose(&evidence).judgement.unwrap().safe_to_stop, SafeToStop::No, "{one}");
        let move_one = format!("move {name}[52110] or {name}[31550] to another port");
        assert!(first(&evidence).1.starts_with(&move_one), "{:?}", first(&evidence));
        evidence.process = at_srv(52110, file, one);
        assert_eq!(class(&evidence), HolderClass::OldInstance, "{one}");
        assert_eq!(first(&evidence).0, "kill 31550");
    }
}

/// gunicorn has overwritten its arguments.
#[test]
fn a_title_hides_the_arguments() {
    let title = "gunicorn: master [shop:app]";
    let holder = Process {
        comm: Some("gunicorn".to_owned()),
        ..at_srv(31550, "/usr/bin/python3.11", title)
    };
    for line in [title, "python3|/v/bin/gunicorn|shop:app"] {
        let mut evidence = beside(holder.clone());
        evidence.process = at_srv(52110, "/usr/bin/python3.11", line);
        assert_eq!(class(&evidence), HolderClass::OldInstance, "{line}");
        assert_eq!(first(&evidence).0, "kill 31550", "{line}");
        evidence.process.cwd = Some("/opt/blog".to_owned());
        assert_eq!(class(&evidence), HolderClass::OtherService, "{line}");
        assert!(first(&evidence).1.starts_with("move "), "{line}");
    }
}

/// The wildcard and one address, in either order: the configuration names one too many.
#[test]
fn one_program_that_binds_a_port_twice() {
    for (protocol, state) in [(Protocol::Tcp, State::Listen), (Protocol::Udp, State::Unconn)] {
        for (held, wanted) in [("0.0.0.0:8080", "127.0.0.1"), ("127.0.0.1:8080", "0.0.0.0")] {
            let mut evidence = beside(nginx(52110, "/system.slice/nginx.service", None));
            evidence.sockets[0].local = held.parse().unwrap();
            evidence.sockets[0].state = state;
            evidence.failure.address = wanted.parse().unwrap();
            evidence.failure.protocol = protocol;
            assert_eq!(class(&evidence), HolderClass::Itself, "{held}");
            assert!(first(&evidence).1.starts_with("remove one of the two addresses"), "{held}");
            assert_eq!(ends(&evidence), [""; 0], "{held}");
        }
    }
}
