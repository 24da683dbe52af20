//! Programs whose purpose is to start others: the facts about each, as plain data.

/// A program that launches others.
#[derive(Debug, PartialEq, Eq)]
pub struct Launcher {
    /// What it is, for people: `cron`, `a CI runner`.
    pub what: &'static str,
    /// The names of its units, without the suffix; `*` at the end matches any text.
    units: &'static [&'static str],
    /// The names of its own processes, of which the kernel keeps 15 characters. A process with
    /// another name was launched by it.
    programs: &'static [&'static str],
}

const fn launcher(
    what: &'static str,
    units: &'static [&'static str],
    programs: &'static [&'static str],
) -> Launcher {
    Launcher { what, units, programs }
}

/// By the names of the units in the packages of distributions and of the programs themselves.
const LAUNCHERS: &[Launcher] = &[
    launcher(
        "cron",
        &["cron", "crond", "cronie", "anacron", "fcron", "bcron", "dcron", "busybox-crond"],
        &["cron", "crond", "anacron", "fcron"],
    ),
    launcher("at", &["atd"], &["atd"]),
    launcher(
        "sshd",
        &["ssh", "sshd", "ssh@*", "sshd@*", "sshd-session@*", "dropbear", "dropbear@*"],
        &["sshd", "sshd-session", "sshd-auth", "dropbear"],
    ),
    launcher(
        "a remote shell",
        &[
            "tailscaled",
            "teleport",
            "amazon-ssm-agent",
            "snap.amazon-ssm-agent.*",
            "google-guest-agent*",
            "google-startup-scripts",
            "walinuxagent",
            "waagent",
            "ttyd*",
            "wetty*",
            "shellinabox",
            "telnet*",
            "cockpit*",
            "webmin",
        ],
        &[
            "tailscaled", "teleport", "amazon-ssm-agen", "ssm-agent-*", "google_guest_ag", "ttyd",
            "shellinaboxd", "cockpit-ws", "cockpit-tls", "miniserv.pl",
        ],
    ),
    launcher(
        "a CI runner",
        &[
            "gitlab-runner*", "actions.runner.*", "actions-runner*", "github-runner*",
            "buildkite-agent*", "jenkins*", "drone-runner*", "woodpecker-agent*", "act_runner*",
            "act-runner*", "gitea-runner*", "forgejo-runner*", "teamcity-agent*", "vsts.agent.*",
            "vstsagent.*", "circleci*", "concourse-worker*", "bamboo-agent*", "go-agent*",
            "buildbot*", "semaphore*",
        ],
        &[
            "gitlab-runner", "Runner.Listener", "Runner.Worker", "buildkite-agent",
            "drone-runner-*", "woodpecker-agen", "act_runner", "forgejo-runner", "Agent.Listener",
            "circleci-runner", "concourse",
        ],
    ),
    launcher(
        "a tool that runs jobs",
        &[
            "puppet*",
            "chef-client*",
            "salt-minion*",
            "rundeckd*",
            "nomad*",
            "airflow-*",
            "ansible-pull*",
            "cloud-init*",
            "cloud-config",
            "cloud-final",
            "rc-local",
            "NetworkManager-dispatcher",
            "systemd-udevd",
            "acpid",
            "incron*",
            "monit",
        ],
        &["puppet", "salt-minion", "nomad", "monit", "acpid", "systemd-udevd", "incrond"],
    ),
    launcher(
        "an editor",
        &["code-server*", "vscode*", "openvscode*", "jupyter*", "rstudio-server*", "emacs*"],
        &["jupyter-lab", "jupyter-noteboo", "jupyterhub", "jupyter-server", "rserver", "emacs"],
    ),
    launcher(
        "a terminal",
        &["gnome-terminal-server", "tmux*", "screen*", "zellij*", "kitty*", "foot-server*"],
        &["gnome-terminal-", "tmux: server", "screen", "SCREEN", "zellij", "kitty", "foot"],
    ),
    launcher(
        "a desktop",
        &[
            "gdm*", "sddm", "lightdm", "lxdm", "xdm", "greetd", "display-manager", "xrdp*",
            "vncserver*", "tigervnc*", "x11vnc*", "x2go*", "chrome-remote-desktop*",
            "org.gnome.Shell*", "gnome-session*", "gnome-shell*", "plasma-*", "xfce4-*", "sway*",
            "hyprland*", "wayland-wm@*", "niri*",
        ],
        &["gdm", "gdm3", "sddm", "lightdm", "xrdp", "xrdp-sesman", "Xvnc", "x11vnc", "Xtigervnc"],
    ),
    launcher(
        "D-Bus",
        &["dbus", "dbus-broker", "messagebus"],
        &["dbus-daemon", "dbus-broker", "dbus-broker-lau"],
    ),
    launcher(
        "a login",
        &["getty@*", "serial-getty@*", "console-getty", "autovt@*", "container-getty@*"],
        &["agetty", "login"],
    ),
];

impl Launcher {
    /// Returns whether a process with that name is the launcher itself.
    pub fn is_own(&self, comm: &str) -> bool {
        self.programs.iter().any(|program| matches(comm, program))
    }
}

/// Returns the launcher whose unit has this name, without `.service`.
pub fn of(name: &str) -> Option<&'static Launcher> {
    LAUNCHERS.iter().find(|it| it.units.iter().any(|unit| matches(name, unit)))
}

/// Returns whether a name matches `pattern`, which may end in `*`.
fn matches(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => name == pattern,
    }
}
