//! What the name of a systemd unit says about the processes in it: whether the unit is
//! responsible for them, or only launched them or accounts for them. Pure, and total over any
//! name.

use std::borrow::Cow;

mod carriers;
mod launchers;

pub use carriers::carried_by;
pub use launchers::Launcher;

/// How a unit relates to a process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Its manager started the process as a part of it, and stopping it stops the process.
    Service,
    /// A service that starts programs for others: cron, sshd, a CI runner. What it started is
    /// not a part of it.
    Launcher(&'static Launcher),
    /// A login session, as created by systemd-logind.
    Session,
    /// A tab or pane of a terminal: somebody started the process there by hand.
    Terminal,
    /// A desktop application, or a snap, and everything started from within it.
    Application(&'a str),
    /// A virtual machine, or a container with a system of its own.
    Machine(Machine<'a>),
    /// Another scope (`systemd-run --scope`, the scope of a container engine). Nothing restarts
    /// a process in a scope (`systemd.scope(5)`).
    Scope,
}

/// Which manager runs a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine<'a> {
    /// libvirt, by the domain's name.
    Libvirt(Cow<'a, str>),
    /// systemd-machined.
    Machined(Cow<'a, str>),
    /// Proxmox VE, by its number.
    Proxmox(&'a str),
}

/// Returns what a unit is, by its name as systemd prints it. `of_user` says whether a user's
/// manager runs it: that manager runs the applications of the desktop.
pub fn kind(unit: &str, of_user: bool) -> Kind<'_> {
    if let Some(machine) = machine(unit) {
        return Kind::Machine(machine);
    }
    if let Some(name) = unit.strip_suffix(".service") {
        if of_user && name.contains('@') && is_application(name) {
            return Kind::Application(application(name));
        }
        return launchers::of(name).map_or(Kind::Service, Kind::Launcher);
    }
    let Some(name) = unit.strip_suffix(".scope") else { return Kind::Service };
    if name.strip_prefix("session-").is_some_and(|id| !id.is_empty()) {
        Kind::Session
    } else if is_terminal(name) {
        Kind::Terminal
    } else if is_application(name) || name.starts_with("snap.") {
        Kind::Application(application(name))
    } else {
        Kind::Scope
    }
}

/// Returns whether the name is that of a terminal's tab with a scope of its own, or of a pane
/// of a multiplexer.
fn is_terminal(name: &str) -> bool {
    const TABS: &[&str] = &[
        "vte-spawn-",
        "ptyxis-spawn-",
        "tmux-spawn-",
        "app-org.gnome.Terminal",
        "app-org.gnome.Ptyxis",
        "app-org.gnome.Console",
        "app-gnome-org.gnome.Terminal",
        "app-org.kde.konsole",
        "app-org.kde.yakuake",
        "app-ghostty-surface-",
        "app-com.mitchellh.ghostty",
        "app-kitty-",
        "app-Alacritty",
        "app-alacritty",
        "app-foot",
        "app-org.wezfurlong.wezterm",
        "app-xterm",
        "app-gnome-xterm",
        "app-xfce4-terminal",
        "app-gnome-Alacritty",
        "app-gnome-kitty",
        "kitty-",
        "ghostty-",
        "tab(",
        "screen-",
        "zellij-",
    ];
    TABS.iter().any(|tab| name.starts_with(tab))
}

/// Returns whether a desktop started it. Desktops start `app[-LAUNCHER]-ID-RANDOM.scope` and
/// `app-…@RANDOM.service`; the bus starts `dbus-NAME@N.service` (systemd's
/// DESKTOP_ENVIRONMENTS.md).
fn is_application(name: &str) -> bool {
    name.starts_with("app-") || (name.starts_with("dbus-:") && name.contains('@'))
}

/// Returns an application's name from its unit's name, without the launcher and without the
/// part that makes the unit unique.
fn application(name: &str) -> &str {
    const DESKTOPS: &[&str] =
        &["gnome-", "KDE-", "kde-", "flatpak-", "dbus-", "cinnamon-", "xfce-", "sway-", "uwsm-"];
    let on_bus =
        || name.strip_prefix("dbus-:")?.split_once('-').map(|(_, application)| application);
    let rest = name.strip_prefix("app-").or_else(on_bus).unwrap_or(name);
    let rest = DESKTOPS.iter().find_map(|desktop| rest.strip_prefix(desktop)).unwrap_or(rest);
    if let Some(snap) = rest.strip_prefix("snap.") {
        return snap.split('.').next().unwrap_or(snap);
    }
    let rest = rest.split_once('@').map_or(rest, |(before, _)| before);
    match rest.rsplit_once('-') {
        Some((before, unique)) if is_unique(unique) && !before.is_empty() => before,
        _ => rest,
    }
}

/// Returns whether the text is a pid or a random part.
fn is_unique(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads the names of machines: `machine-qemu\x2d1\x2dweb.scope` (libvirt),
/// `machine-web.scope`, `systemd-nspawn@web.service` (machined) and `100.scope` in `qemu.slice`
/// (Proxmox VE).
fn machine(unit: &str) -> Option<Machine<'_>> {
    const DRIVERS: &[&str] = &["qemu", "lxc", "xen", "bhyve", "ch"];
    if let Some(name) = unit.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        let name = unescaped(name);
        let of_libvirt = || {
            let (driver, rest) = name.split_once('-')?;
            let (number, domain) = rest.split_once('-')?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (DRIVERS.contains(&driver) && is_number && !domain.is_empty())
                .then(|| domain.to_owned())
        };
        return Some(match of_libvirt() {
            Some(domain) => Machine::Libvirt(domain.into()),
            None => Machine::Machined(name),
        });
    }
    for head in ["systemd-nspawn@", "systemd-vmspawn@"] {
        let name = unit.strip_prefix(head).and_then(|rest| rest.strip_suffix(".service"));
        if let Some(name) = name {
            return Some(Machine::Machined(unescaped(name)));
        }
    }
    let number = unit.strip_suffix(".scope")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(Machine::Proxmox(number))
}

/// Decodes `\xNN` in a unit's name, as `systemd-escape --unescape` does. Returns the name
/// unchanged where the result is not text.
fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn launcher_of(unit: &str) -> Option<&'static str> {
        match kind(unit, false) {
            Kind::Launcher(launcher) => Some(launcher.what),
            _ => None,
        }
    }

    #[test]
    fn launchers_are_no_services_of_what_they_launch() {
        for (unit, what) in [
            ("cron.service", "cron"),
            ("crond.service", "cron"),
            ("atd.service", "at"),
            ("ssh.service", "sshd"),
            ("sshd@12-10.0.0.1:22-10.0.0.2:51234.service", "sshd"),
            ("actions.runner.acme-shop.runner-1.service", "a CI runner"),
            ("gitlab-runner.service", "a CI runner"),
            ("jenkins-agent@3.service", "a CI runner"),
            ("code-server@anna.service", "an editor"),
            ("jupyterhub.service", "an editor"),
            ("gnome-terminal-server.service", "a terminal"),
            ("org.gnome.Shell@wayland.service", "a desktop"),
            ("xrdp-sesman.service", "a desktop"),
            ("dbus.service", "D-Bus"),
            ("getty@tty1.service", "a login"),
            ("rc-local.service", "a tool that runs jobs"),
        ] {
            assert_eq!(launcher_of(unit), Some(what), "{unit}");
        }
        for unit in ["nginx.service", "cronolog.service", "sshguard.service", "app@cron.service"] {
            assert_eq!(kind(unit, false), Kind::Service, "{unit}");
        }
        let Kind::Launcher(sshd) = kind("ssh.service", false) else { panic!("sshd") };
        assert!(sshd.is_own("sshd") && sshd.is_own("sshd-session") && !sshd.is_own("node"));
    }

    #[test]
    fn scopes_answer_for_nothing() {
        for (unit, is) in [
            ("session-91.scope", Kind::Session),
            ("session-c2.scope", Kind::Session),
            ("vte-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope", Kind::Terminal),
            ("tmux-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope", Kind::Terminal),
            ("ptyxis-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope", Kind::Terminal),
            ("app-org.kde.konsole-4a5a1c0e.scope", Kind::Terminal),
            ("app-gnome-code-31337.scope", Kind::Application("code")),
            (
                "app-flatpak-org.mozilla.firefox-2131.scope",
                Kind::Application("org.mozilla.firefox"),
            ),
            ("app-gnome-org.gnome.Builder-2131.scope", Kind::Application("org.gnome.Builder")),
            ("app-firefox@3fa8c1.service", Kind::Application("firefox")),
            (
                "snap.code.code-11111111-2222-3333-4444-555555555555.scope",
                Kind::Application("code"),
            ),
            ("dbus-:1.2-org.gnome.Epiphany@0.service", Kind::Application("org.gnome.Epiphany")),
            ("run-r0f7c2f3e53d94f0e8a7d.scope", Kind::Scope),
            ("run-p812-i813.scope", Kind::Scope),
            ("init.scope", Kind::Scope),
            ("libpod-conmon-9f81c2e4.scope", Kind::Scope),
        ] {
            assert_eq!(kind(unit, true), is, "{unit}");
        }
        for unit in ["run-u12.service", "snap.nextcloud.apache.service", "app.service", "a.socket"]
        {
            assert_eq!(kind(unit, false), Kind::Service, "{unit}");
        }
    }

    #[test]
    fn machines_are_known_by_their_manager() {
        for (unit, is) in [
            ("machine-qemu\\x2d1\\x2dwin11.scope", Machine::Libvirt("win11".into())),
            ("machine-qemu\\x2d12\\x2dweb\\x2d1.scope", Machine::Libvirt("web-1".into())),
            ("machine-web.scope", Machine::Machined("web".into())),
            ("machine-qemu\\x2dweb.scope", Machine::Machined("qemu-web".into())),
            ("systemd-nspawn@web.service", Machine::Machined("web".into())),
            ("100.scope", Machine::Proxmox("100")),
        ] {
            assert_eq!(kind(unit, false), Kind::Machine(is), "{unit}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read(name: String, suffix in "(\\.service|\\.scope|\\.socket|)") {
            let _ = kind(&format!("{name}{suffix}"), true);
        }

        #[test]
        fn any_escape_is_read(name in "machine-(\\\\x[0-9a-g]{0,2}|[a-z-]|ü){0,8}\\.scope") {
            let _ = kind(&name, false);
        }
    }
}
