//! Programs that carry what somebody works with: a remote login, a desktop, the windows of a
//! terminal. They open ports themselves (`ssh -R`, X11, forwarded ports).

/// What they carry, by the names of the processes. The kernel keeps 15 characters of a name.
const BY_NAME: &[(&str, &[&str])] = &[
    ("an ssh connection", &["ssh", "sshd", "sshd-session", "dropbear", "autossh"]),
    ("a mosh connection", &["mosh-server"]),
    (
        "a terminal's windows",
        &["tmux: server", "screen", "SCREEN", "zellij", "gnome-terminal-", "kitty"],
    ),
    (
        "a desktop",
        &[
            "Xorg", "Xwayland", "Xvnc", "Xtigervnc", "x11vnc", "xrdp-chansrv", "xrdp-sesexec",
            "nxagent",
        ],
    ),
];

/// Directories of editors' server parts, which run on the machine where the files are.
const EDITORS: &[&str] = &[
    "/.vscode-server/",
    "/.vscode-server-insiders/",
    "/.vscodium-server/",
    "/.cursor-server/",
    "/.windsurf-server/",
    "/.cache/JetBrains/RemoteDev/",
];

/// Returns what somebody works with that ends when a process with this name and file exits.
pub fn carried_by(comm: &str, exe: &str) -> Option<&'static str> {
    let by_name = BY_NAME.iter().find(|(_, names)| names.contains(&comm)).map(|(what, _)| *what);
    let is_editor = || EDITORS.iter().any(|editor| exe.contains(editor));
    by_name.or_else(|| is_editor().then_some("an editor's remote server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_is_known_by_name_or_file() {
        for (comm, exe, what) in [
            ("sshd-session", "/usr/lib/openssh/sshd-session", Some("an ssh connection")),
            ("mosh-server", "", Some("a mosh connection")),
            ("node", "/home/anna/.vscode-server/bin/3f9a/node", Some("an editor's remote server")),
            ("node", "/usr/bin/node", None),
            ("", "", None),
        ] {
            assert_eq!(carried_by(comm, exe), what, "{comm} {exe}");
        }
    }
}
