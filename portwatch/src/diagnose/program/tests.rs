use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    diagnose::{HolderClass, diagnose},
    evidence::{Engine, Evidence, Socket, State, Supervisor, SupervisorKind, Workload},
};

fn process(exe: &str, cmdline: &[&str]) -> Process {
    Process {
        exe: Some(exe.to_owned()),
        cmdline: cmdline.iter().map(|&argument| argument.to_owned()).collect(),
        ..Process::default()
    }
}

/// A process whose arguments stand between bars, in a directory; empty for an unknown one.
fn within(cwd: &str, line: &str) -> Process {
    let cmdline: Vec<&str> = line.split('|').collect();
    let exe = match base(cmdline[0]) {
        name if interpreters::of(name).is_some() => format!("/usr/bin/{name}"),
        _ => "/usr/bin/python3.11".to_owned(),
    };
    Process { cwd: Some(cwd.to_owned()).filter(|cwd| !cwd.is_empty()), ..process(&exe, &cmdline) }
}

#[test]
fn releases_of_one_jar_are_one_program() {
    let old = process("/usr/bin/java", &["java", "-jar", "/opt/app/app-2.4.0.jar"]);
    let new = process("/usr/bin/java", &["java", "-jar", "/opt/app/app-2.4.2.jar"]);
    let other = process("/usr/bin/java", &["java", "-jar", "/opt/shop/shop-1.0.jar"]);
    assert_eq!(same(&old, &new), Some(true));
    assert_eq!(same(&old, &other), Some(false));
    assert!(same_command(&old, &new));
    assert_eq!(versions(&old, &new), Some(("app-2.4.0.jar", "app-2.4.2.jar")));
    assert_eq!(versions(&old, &other), None);
}

#[test]
fn a_version_in_a_folder_is_told_with_it_and_a_port_is_none() {
    let old = process("/srv/app-1.2/server (deleted)", &["server", "--port=80"]);
    let new = process("/srv/app-1.3/server", &["server", "--port=81"]);
    assert_eq!(versions(&old, &new), Some(("/srv/app-1.2/server", "/srv/app-1.3/server")));
    let address = process("/bin/server", &["server", "8080"]);
    assert_eq!(versions(&address, &process("/bin/server", &["server", "8081"])), None);
    let on = |address| process("/bin/server", &["server", address]);
    assert_eq!(versions(&on("127.0.0.1:80"), &on("127.0.0.2:80")), None);
    let [old, new] = ["/srv/shop-1.2", "/srv/shop-1.3"].map(|cwd| within(cwd, "node|server.js"));
    assert_eq!(versions(&old, &new), Some(("shop-1.2", "shop-1.3")));
    let [old, new] = ["python3.11", "python3.12"].map(|name| within("", &format!("{name}|a.py")));
    assert_eq!(versions(&old, &new), None, "the interpreter is another, and the script is not");
    let by_date = ["/srv/20240601/server", "/srv/20240702/server"];
    let [old, new] = by_date.map(|exe| process(exe, &["server"]));
    assert_eq!(versions(&old, &new), Some((by_date[0], by_date[1])));
}

#[test]
fn a_replaced_binary_is_the_same_program() {
    let old = process("/srv/app-1.2/server (deleted)", &["server"]);
    let new = process("/srv/app-1.3/server", &["server", "-v"]);
    assert_eq!(same(&old, &new), Some(true));
    assert!(!same_command(&old, &new));
}

/// The pairs in one directory, in two, and in unknown ones.
#[test]
fn interpreters_are_told_apart_by_what_they_run() {
    let (yes, no) = (Some(true), Some(false));
    for (a, b, here, apart, unknown) in [
        ("python3|-u|/srv/a.py", "python3.12|/srv/a.py|--port|80", yes, yes, yes),
        ("python3|/srv/a.py", "python3|/srv/c.py", no, no, no),
        ("python3|/srv/a/app.py", "python3|/srv/b/app.py", no, no, no),
        ("python3|app.py", "python3|app.py|--port|80", yes, no, None),
        ("python3|./app.py", "python3|app.py", yes, no, None),
        ("python3|app.py", "python3|worker.py", no, no, no),
        ("python3|/srv/shop/app.py", "python3|app.py", yes, None, None),
        ("python3|-m|shop", "python3|-m|shop|-v", yes, no, None),
        ("python3|-m|shop", "python3|-m|blog", no, no, no),
        ("python3|-m|http.server|80", "python3|-m|http.server|81", yes, no, None),
        ("python3|-c|a", "python3|-c|b", no, no, no),
        ("python3|-c|a", "python3|-c|a|x", yes, yes, yes),
        ("python3|/v/bin/gunicorn|app:app", "python3|-m|gunicorn|-w|4|app:app", yes, no, None),
        ("python3|/v/bin/gunicorn|app:app", "python3|/v/bin/gunicorn|other:app", no, no, no),
        ("python3|/v/bin/gunicorn|app:app", "python3|/v/bin/uvicorn|app:app", no, no, no),
        ("python3|manage.py|runserver", "python3|manage.py|runserver|81", yes, no, None),
        ("node|server.js", "nodejs|--inspect|server.js", yes, no, None),
        ("node|--import|tsx|server.ts", "node|--import|tsx|worker.ts", no, no, no),
        ("node|/usr/bin/npm|start", "node|/usr/bin/npm|run|dev", no, no, no),
        ("node|/opt/a-1.2/server.js", "node|/opt/a-1.3/server.js", yes, yes, yes),
        ("java|-Xmx1g|-jar|/opt/a-2.4.0.jar", "java|-jar|/opt/a-2.4.1.jar", yes, yes, yes),
        ("java|-jar|/opt/a/a-2.4.0.jar", "java|-jar|/srv/a-2.4.1.jar", yes, yes, yes),
        ("java|-jar|/opt/a/app.jar", "java|-jar|/opt/b/app.jar", no, no, no),
        ("java|-cp|a.jar|com.shop.Main", "java|-cp|b.jar|com.shop.Main|x", yes, yes, yes),
        ("java|-cp|a.jar|com.shop.Main", "java|-cp|a.jar|com.shop.Other", no, no, no),
        ("java|-cp|/srv/a/lib/*|Main", "java|-cp|/srv/b/lib/*|Main", None, None, None),
        ("java|-cp|/a-1.0/lib:x|Main", "java|-cp|/a-1.1/lib|Main|x", yes, yes, yes),
        ("java|--class-path=/srv/a|Main", "java|-cp|/srv/b|Main", None, None, None),
        ("fish|/srv/a/run.fish", "fish|/srv/b/run.fish", no, no, no),
        ("java|-Dcatalina.base=/srv/a|-cp|t|B", "java|-Dcatalina.base=/srv/b|-cp|t|B", no, no, no),
        ("ruby|/usr/bin/puma|-p|80", "ruby|/usr/bin/puma|-C|puma.rb", yes, no, None),
        ("perl|-w|a.pl", "perl|-I|lib|a.pl", yes, no, None),
        ("php|-S|:80|-t|public", "php|-S|:81|-t|public", yes, no, None),
        ("php|-S|:80", "php|-S|:81", yes, no, None),
        ("php|artisan|serve", "php|artisan|serve|--port=80", yes, no, None),
        ("sh|run.sh", "bash|-e|run.sh", yes, no, None),
        ("sh|-c|exec ./a", "sh|-c|exec ./b", no, no, no),
        ("deno|run|-A|https://x.test/a.ts", "deno|run|https://x.test/a.ts", yes, yes, yes),
        ("node|server.js", "python3|server.js", no, no, no),
        ("java|@args|80", "java|@args|81", yes, no, None),
        ("python3", "python3|-i", yes, no, None),
    ] {
        let in_two = (within("/srv/shop", a), within("/srv/blog", b));
        let in_one = (within("/srv/shop", a), within("/srv/shop", b));
        let unplaced = (within("", a), within("", b));
        for ((a, b), expected) in [(in_one, here), (in_two, apart), (unplaced, unknown)] {
            assert_eq!(same(&a, &b), expected, "{:?} {:?} {:?}", a.cwd, a.cmdline, b.cmdline);
            assert_eq!(same(&b, &a), expected, "{:?} {:?}", b.cmdline, a.cmdline);
        }
    }
}

/// Of an interpreter that is not in the table, the kernel says what it runs: by the name.
#[test]
fn a_script_of_any_interpreter_is_known_by_the_name_of_the_process() {
    let runs = |comm: &str, line: &str| {
        let cmdline: Vec<&str> = line.split('|').collect();
        Process { comm: Some(comm.to_owned()), ..process("/usr/bin/janet-1.2", &cmdline) }
    };
    let api = runs("api", "/usr/bin/janet|/srv/a/api");
    assert_eq!(same(&api, &runs("api", "/usr/bin/janet|-s|/srv/a/api|-v")), Some(true));
    assert_eq!(same(&api, &runs("api", "/usr/bin/janet|/srv/b/api")), Some(false));
    assert_eq!(same(&api, &runs("web", "/usr/bin/janet|/srv/a/web")), Some(false));
    assert_ne!(identity(&api), identity(&runs("web", "/usr/bin/janet|/srv/a/web")));
    let [old, new] = ["1.2", "1.3"].map(|release| {
        runs("a-server-of-the", &format!("janet|/srv/shop-{release}/a-server-of-the-shop"))
    });
    assert_eq!(same(&old, &new), Some(true));
    // Started as an argument, it looks like any program with a file to read.
    let by_hand = runs("janet", "janet|/srv/a/api");
    assert_eq!(same(&api, &by_hand), None);
    assert_eq!(same(&by_hand, &runs("janet", "janet|/srv/a/api|-v")), Some(true));
    // A name that the process gave itself is none of a file.
    let named = |line| same(&runs("worker", line), &runs("worker", line));
    assert_eq!(named("janet|worker"), Some(true));
}

#[test]
fn a_place_is_no_proof_where_daemons_go_or_a_release_is() {
    let runs = |cwd| within(cwd, "node|server.js");
    assert_eq!(same(&runs("/"), &runs("/srv/shop")), None);
    assert_eq!(same(&runs("/srv/shop/releases/1"), &runs("/srv/shop/releases/2")), Some(true));
    assert_eq!(same(&runs("/srv/shop/3f9ac21 (deleted)"), &runs("/srv/shop/91bb2c0")), Some(true));
}

/// The one that failed is gone before its directory is known.
#[test]
fn one_command_given_twice_is_one_program() {
    let runs = |uid, unit: Option<&str>| Process {
        uid,
        unit: unit.map(str::to_owned),
        ..within("", "node|server.js|80")
    };
    assert_eq!(same(&runs(Some(7), None), &runs(Some(7), Some("a.service"))), Some(true));
    let (a, b) = (Some("a.service"), Some("b.service"));
    assert_eq!(same(&runs(Some(7), a), &runs(Some(7), b)), None);
    assert_eq!(same(&runs(None, None), &runs(None, None)), None);
    assert_eq!(same(&runs(Some(7), None), &runs(Some(8), None)), None);
}

#[test]
fn a_title_is_what_the_process_says_itself() {
    let titled =
        |cwd, exe: &str, title: &str| Process { exe: Some(exe.to_owned()), ..within(cwd, title) };
    let gunicorn = "gunicorn: master [shop:app]";
    let python = "/usr/bin/python3.11";
    let shop = titled("/srv/shop", python, gunicorn);
    for (cwd, expected) in [("/srv/shop", Some(true)), ("/srv/blog", Some(false)), ("", None)] {
        assert_eq!(same(&shop, &titled(cwd, python, gunicorn)), expected, "{cwd}");
        let started = within(cwd, "python3|/usr/bin/gunicorn|shop:app");
        assert_eq!(same(&shop, &started), expected, "{cwd}");
        let node = titled(cwd, "/usr/bin/node", "next-server (v14.1.0)");
        assert_eq!(same(&shop, &node), Some(false), "{cwd}");
    }
    // Without a directory the unit decides, and an unknown file nothing.
    let in_unit = |cwd, exe: Option<&str>| Process {
        unit: Some("shop.service".to_owned()),
        exe: exe.map(str::to_owned),
        ..titled(cwd, python, gunicorn)
    };
    assert_eq!(same(&in_unit("", Some(python)), &in_unit("", Some(python))), Some(true));
    assert_eq!(same(&in_unit("/srv/a", Some(python)), &in_unit("", None)), None);
    let job = |name: &str| Process {
        supervisor: Some(Supervisor {
            name: Some(name.to_owned()),
            ..Supervisor::bare(SupervisorKind::Pm2)
        }),
        ..in_unit("", Some(python))
    };
    assert_eq!(same(&job("shop"), &job("blog")), None);
    let scope =
        || Process { unit: Some("session-1.scope".to_owned()), ..titled("", python, "a b") };
    assert_eq!(same(&scope(), &scope()), None);
    // Of compiled programs the file decides.
    let nginx = |cwd, title: &str| titled(cwd, "/usr/sbin/nginx", title);
    let master = nginx("/", "nginx: master process /usr/sbin/nginx -g daemon on;");
    assert_eq!(same(&master, &nginx("/root", "nginx")), Some(true));
    let postgres = "/usr/lib/postgresql/15/bin/postgres";
    let checkpointer = titled("/var/lib/a", postgres, "postgres: checkpointer ");
    assert_eq!(same(&checkpointer, &process(postgres, &["postgres", "-D", "x"])), Some(true));
    assert_eq!(same(&checkpointer, &master), Some(false));
    // A path may have blanks in it, and what is blank behind the name is a title too.
    let with_blank = process("/opt/My App/server", &["/opt/My App/server", "x"]);
    assert!(!is_titled(&with_blank));
    assert!(is_titled(&process("/usr/bin/node", &["shop", ""])));
}

#[test]
fn paths_in_two_containers_are_of_two_file_systems() {
    let in_container = |id: &str, image: Option<&str>| Process {
        container: Some(id.to_owned()),
        workload: image.map(|image| Workload {
            engine: Engine::Docker,
            id: None,
            name: None,
            image: Some(image.to_owned()),
            pod: None,
            published: None,
        }),
        ..within("/app", "node|server.js")
    };
    let old = in_container("a", Some("shop:2.4"));
    assert_eq!(same(&old, &in_container("a", None)), Some(true));
    assert_eq!(same(&old, &in_container("b", Some("shop:2.5"))), Some(true));
    assert_eq!(same(&old, &in_container("b", Some("blog:2.5"))), Some(false));
    assert_eq!(same(&old, &in_container("b", None)), None);
    assert_eq!(same(&old, &within("/app", "node|server.js")), None);
}

#[test]
fn a_link_and_a_file_of_many_programs() {
    let named = |exe: Option<&str>, comm: &str| Process {
        exe: exe.map(str::to_owned),
        comm: Some(comm.to_owned()),
        ..Process::default()
    };
    let redis = named(Some("/usr/bin/redis-check-rdb"), "redis-server");
    assert_eq!(same(&named(None, "redis-server"), &redis), Some(true));
    let (nc, httpd) = (named(Some("/bin/busybox"), "nc"), named(Some("/bin/busybox"), "httpd"));
    assert_eq!(same(&nc, &httpd), Some(false));
    assert_eq!(same(&nc, &nc), Some(true));
    let applet = |line: &str| process("/bin/busybox", &line.split('|').collect::<Vec<_>>());
    assert_eq!(same(&applet("sh|/a.sh"), &applet("busybox|sh|/a.sh")), Some(true));
    assert_eq!(same(&applet("sh|/a.sh"), &applet("ash|/b.sh")), Some(false));
    assert_eq!(same(&applet("sh|/a.sh"), &applet("httpd|-p|80")), Some(false));
    assert_eq!(same(&applet("busybox|nc"), &applet("busybox|httpd")), Some(false));
}

#[test]
fn a_name_alone_is_no_other_users_program() {
    let of = |uid, exe: Option<&str>| Process {
        uid: Some(uid),
        exe: exe.map(str::to_owned),
        ..process("", &["redis-server"])
    };
    let server = of(0, Some("/usr/bin/redis-server"));
    for (other, expected) in [
        (of(0, None), Some(true)),
        (of(7, None), None),
        (of(7, Some("/home/a/redis-server")), None),
        (of(7, Some("/usr/bin/redis-server")), Some(true)),
        (of(7, Some("/usr/bin/nginx")), Some(false)),
    ] {
        assert_eq!(same(&server, &other), expected, "{:?}", other.exe);
    }
    let java = |uid, what: &str| {
        let line = format!("java|{what}");
        Process { uid: Some(uid), ..within("/srv", &line) }
    };
    let main = "-cp|a.jar|com.shop.Main";
    assert_eq!(same(&java(1, main), &java(1, main)), Some(true));
    assert_eq!(same(&java(1, main), &java(2, main)), None);
    assert_eq!(same(&java(1, "-jar|/opt/a.jar"), &java(2, "-jar|/opt/a.jar")), Some(true));
}

/// epmd is started by whatever service needs it first.
#[test]
fn one_command_in_two_units_is_a_shared_helper() {
    let runs = |unit: &str, exe: &str, line: &str| Process {
        unit: Some(unit.to_owned()),
        ..process(exe, &line.split('|').collect::<Vec<_>>())
    };
    let epmd = |unit| runs(unit, "/usr/bin/epmd", "epmd|-daemon");
    let (failing, holder) = (epmd("rabbitmq-server.service"), epmd("ejabberd.service"));
    assert!(!is_release_of(&failing, &holder));
    let mut socket = Socket::bare(State::Listen, "0.0.0.0:4369".parse().unwrap(), None);
    socket.holders = vec![Process { pid: 7, ..holder }];
    let mut evidence = Evidence::refused(failing, vec![socket]);
    evidence.failure.port = 4369;
    let holder = diagnose(&evidence).holder.unwrap();
    assert_eq!(holder.class, HolderClass::OtherService);
    let jar = |unit, version| runs(unit, "/usr/bin/java", &format!("java|-jar|/a-{version}.jar"));
    assert!(is_release_of(&jar("old.service", "2.4.0"), &jar("app.service", "2.4.1")));
    assert!(!is_release_of(&jar("old.service", "2.4.0"), &jar("app.service", "2.4.0")));
    let app = |unit| runs(unit, "/opt/app", "app|serve");
    assert!(is_release_of(&app("app@1.service"), &app("app@2.service")));
    assert!(is_release_of(&app("app-2.4.service"), &app("app-2.5.service")));
    let by_path = |unit, version| runs(unit, &format!("/opt/app-{version}/app"), "app|serve");
    assert!(is_release_of(&by_path("blue.service", "1.2"), &by_path("green.service", "1.3")));
    let on = |unit, port| runs(unit, "/opt/app", &format!("app|--port|{port}"));
    assert!(!is_release_of(&on("a.service", 8080), &on("b.service", 8081)));
}

#[test]
fn releases_have_one_identity_and_scripts_their_own() {
    let java = |jar: &str| identity(&process("/usr/bin/java", &["java", "-jar", jar]));
    assert_eq!(java("/opt/app-2.4.0.jar"), java("/opt/app-2.4.2.jar"));
    assert_ne!(java("/opt/app-2.4.0.jar"), java("/opt/shop-2.4.0.jar"));
    let exe = |path: &str| identity(&process(path, &["server"]));
    assert_eq!(exe("/srv/app-1.2/server (deleted)"), exe("/srv/app-1.3/server"));
    assert_ne!(exe("/srv/app/server"), exe("/srv/shop/server"));
    let app = |app: &str| identity(&within("/srv", &format!("python3|/usr/bin/gunicorn|{app}")));
    assert_ne!(app("app:app"), app("other:app"));
    let at = |cwd| identity(&within(cwd, "node|server.js"));
    assert_ne!(at("/srv/shop"), at("/srv/blog"));
    assert_eq!(at("/srv/shop/releases/1"), at("/srv/shop/releases/2"));
    assert_eq!(at("/srv/shop"), identity(&within("", "node|/srv/shop/server.js")));
}

#[test]
fn without_a_name_nothing_is_said() {
    assert_eq!(same(&Process::default(), &process("/bin/a", &[])), None);
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "python3", "python3.12", "node", "java", "busybox", "sh", "server.js", "app.py", "-m",
        "-c", "-jar", "gunicorn", "/usr/bin/gunicorn", "gunicorn: master", "app:app",
        "/srv/a-1.2.jar", "/srv/a-1.3.jar", "", "-", "--", "…", "nginx", "@args",
    ];
    prop_oneof![9 => select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

prop_compose! {
    fn any_process()(
        comm in option::of(word()),
        exe in option::of(prop_oneof![
            select(vec![
                "/usr/bin/python3.11", "/opt/python3.12", "/usr/bin/node", "/usr/bin/java",
                "/bin/busybox", "/bin/dash", "/usr/sbin/nginx (deleted)",
            ]).prop_map(str::to_owned),
            any::<String>(),
        ]),
        cwd in option::of(select(vec!["/", "/srv/a", "/srv/b", "/srv/a-1.2", "x", " (deleted)"])),
        cmdline in vec(word(), 0..5),
        uid in option::of(0u32..2),
        unit in option::of(select(vec!["a@1.service", "a@2.service", "b.service"])),
        container in option::of(select(vec!["a", "b"])),
    ) -> Process {
        Process {
            comm, exe, uid,
            cwd: cwd.map(str::to_owned),
            cmdline: cmdline.into(),
            unit: unit.map(str::to_owned),
            container: container.map(str::to_owned),
            ..Process::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn it_is_one_relation(a in any_process(), b in any_process()) {
        prop_assert_eq!(same(&a, &b), same(&b, &a));
        prop_assert_ne!(same(&a, &a), Some(false));
        prop_assert_eq!(same_command(&a, &b), same_command(&b, &a));
        prop_assert_eq!(is_release_of(&a, &b), is_release_of(&b, &a));
        prop_assert_eq!(versions(&a, &b).is_some(), versions(&b, &a).is_some());
    }

    #[test]
    fn it_holds_for_all_texts(names in any::<[String; 3]>(), line in any::<Vec<String>>()) {
        let [comm, exe, cwd] = names.map(Some);
        let process = Process { comm, exe, cwd, cmdline: line.into(), ..Process::default() };
        prop_assert_ne!(same(&process, &process), Some(false));
        let _ = identity(&process);
    }
}
