//! The package: installed, confined, upgraded, removed, purged.

use std::path::Path;

use portwatch_tests::event::AGENT;
use serde_json::Value;

use crate::{
    PAYLOAD,
    stage::{Stage, property, shell, systemctl, try_systemctl},
};

/// The files that the package and its service leave on a machine.
const FILES: [&str; 8] = [
    "/usr/bin/portwatch",
    "/usr/lib/systemd/system/portwatch.service",
    "/usr/lib/systemd/catalog/portwatch.catalog",
    "/usr/share/man/man1/portwatch.1.gz",
    "/usr/share/bash-completion/completions/portwatch",
    "/usr/share/doc/portwatch",
    "/etc/systemd/system/multi-user.target.wants/portwatch.service",
    "/var/lib/portwatch",
];

const UNIT: &str = "usr/lib/systemd/system/portwatch.service";

/// Settings of this machine, which a package does not change.
const DROP_INS: &str = "/run/systemd/system/portwatch.service.d";

/// The installation itself starts the service, which is ready when it ends.
pub fn install() {
    // Under emulation everything is many times slower; all else is as packaged.
    let unit =
        shell(&format!("dpkg-deb --fsys-tarfile {PAYLOAD}/portwatch-1.deb | tar -xO ./{UNIT}"));
    give_time(&unit);
    dpkg("--install", &format!("{PAYLOAD}/portwatch-1.deb"));
    assert!(try_systemctl(&["is-active", "portwatch.service"]), "{}", shell(STATUS));
    for file in FILES {
        assert!(Path::new(file).exists(), "{file} is not there");
    }
    assert_eq!(shell("stat -c '%a %U' /var/lib/portwatch"), "700 root");
    let catalog = shell("journalctl --list-catalog ee4bb6a7fbbd40b990cd543f3ab2e727");
    assert!(catalog.contains("portwatch"), "{catalog}");
}

/// Gives the service of this unit as much time as it needs under emulation.
fn give_time(unit: &str) {
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    std::fs::create_dir_all(DROP_INS).unwrap();
    let drop_in = format!(
        "[Service]\nTimeoutStartSec=infinity\nExecStart=\nExecStart={command} --enrichment-deadline 5s\n"
    );
    std::fs::write(format!("{DROP_INS}/emulated.conf"), drop_in).unwrap();
}

const STATUS: &str = "systemctl status --no-pager --full portwatch.service || true";

fn dpkg(verb: &str, what: &str) -> String {
    shell(&format!("DEBIAN_FRONTEND=noninteractive dpkg {verb} {what} 2>&1"))
}

pub fn the_service_is_confined(_: &mut Stage) {
    shell("systemd-analyze security --threshold=25 --no-pager portwatch.service");
    let said = shell("systemctl show -P MemoryCurrent -P MemoryPeak portwatch.service");
    println!("       bytes of memory now, at the most: {}", said.replace('\n', ", "));
    assert_eq!(property("portwatch.service", "NRestarts"), "0");
}

/// Failed binds are reported after it as before, and those meanwhile are counted.
pub fn the_journal_is_restarted(stage: &mut Stage) {
    let pid = property("portwatch.service", "MainPID");
    shell("systemctl restart systemd-journald.service");
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8095");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8095");
    stage.starts("app-old.service");
    stage.is_refused("app.service");
    assert_eq!(property("portwatch.service", "MainPID"), pid);
}

/// Another build of the same version: afterwards the new agent runs.
pub fn upgrade(stage: &mut Stage) {
    let before = property("portwatch.service", "MainPID");
    dpkg("--install", &format!("{PAYLOAD}/portwatch-2.deb"));
    assert!(try_systemctl(&["is-active", "portwatch.service"]), "{}", shell(STATUS));
    assert_ne!(property("portwatch.service", "MainPID"), before);
    assert!(shell("dpkg-query -W -f '${Version}' portwatch").ends_with("-2"));
    let restarted = shell("journalctl -t portwatch --all -o json PORTWATCH_STATE=started");
    let all_notices = restarted.lines().all(|line| {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        entry["PORTWATCH_EVENT"].as_str().is_some_and(|record| record.contains(AGENT))
    });
    assert!(all_notices && restarted.lines().count() >= 2, "{restarted}");
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8096");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8096");
    stage.starts("app-old.service");
    stage.is_refused("app.service");
}

/// The other verbs, run by a person, while the service runs.
pub fn explained_beside_the_service(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8097");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8097");
    stage.starts("app-old.service");
    stage.is_refused("app.service");
    let said = shell("portwatch explain 8097 || [ $? = 3 ]");
    assert!(said.contains("systemctl stop app-old.service"), "{said}");
    systemctl(&["stop", "app-old.service"]);
    let history = shell("portwatch history /var/lib/portwatch");
    assert!(history.contains("8097"), "{history}");
    let replayed = shell("portwatch replay --journal --format json --port 8097 | head -n 1");
    assert!(replayed.contains("app-old.service"), "{replayed}");
}

/// Stopped and removed; its records stay.
pub fn remove(_: &mut Stage) {
    dpkg("--remove", "portwatch");
    for file in &FILES[..6] {
        assert!(!Path::new(file).exists(), "{file} is still there");
    }
    assert!(Path::new("/var/lib/portwatch").exists());
    assert_eq!(shell("pgrep -x portwatch || true"), "");
    assert_eq!(shell("systemctl list-units --failed --plain --no-legend"), "");
}

/// As if it had never been installed.
pub fn purge(_: &mut Stage) {
    dpkg("--purge", "portwatch");
    for file in FILES {
        assert!(!Path::new(file).exists(), "{file} is still there");
    }
    std::fs::remove_dir_all(DROP_INS).unwrap();
    let left = shell("find / -xdev -name '*portwatch*' -not -path '/opt/payload/*'");
    assert_eq!(left, "");
    assert_eq!(shell("systemctl list-units --failed --plain --no-legend"), "");
    assert!(!shell("systemctl list-units --all --plain --no-legend").contains("portwatch"));
}

/// The same binary and unit on an image-based system, whose /usr nobody can write to: merged,
/// started, and unmerged without a trace.
pub fn the_system_extension(stage: &mut Stage) {
    let image = "/run/extensions/portwatch.raw";
    std::fs::create_dir_all("/run/extensions").unwrap();
    std::fs::copy(format!("{PAYLOAD}/portwatch.raw"), image).unwrap();
    shell("systemd-sysext merge");
    give_time(&std::fs::read_to_string(format!("/{UNIT}")).unwrap());
    shell("systemctl daemon-reload && systemctl start portwatch.service");
    assert!(try_systemctl(&["is-active", "portwatch.service"]), "{}", shell(STATUS));
    // So it starts with the system as well.
    assert_eq!(property("portwatch.service", "UpheldBy"), "multi-user.target");
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8098");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8098");
    stage.starts("app-old.service");
    stage.is_refused("app.service");
    systemctl(&["stop", "portwatch.service"]);
    shell("systemd-sysext unmerge");
    assert!(!Path::new(FILES[0]).exists());
    for left in ["/run/extensions", "/var/lib/portwatch", DROP_INS] {
        std::fs::remove_dir_all(left).unwrap();
    }
    shell("systemctl daemon-reload");
}
