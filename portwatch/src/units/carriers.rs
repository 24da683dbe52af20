//! Programs that carry what somebody works with: a login from elsewhere, a desktop, the windows
//! of a terminal. They have ports of their own (`ssh -R`, X11, forwarded ports).

/// What they carry, by the names of the processes, of which the kernel keeps 15 characters.
const BY_NAME: &[(&str, &[&str])] = &[
    ("an ssh connection", &["ssh", "sshd", "sshd-session", "dropbear", "autossh"]),
    ("a mosh connection", &["mosh-server"]),
    ("a terminal's windows", &["tmux: server", "screen", "zellij", "gnome-terminal-", "kitty"]),
    (
        "a desktop",
        &[
            "Xorg", "Xwayland", "Xvnc", "Xtigervnc", "x11vnc", "xrdp-chansrv", "xrdp-sesexec",
            "nxagent",
        ],
    ),
];

/// Directories of the part of an editor that runs on the machine where its files are.
const EDITORS: &[&str] = &[
    "/.vscode-server/",
    "/.vscode-server-insiders/",
    "/.vscodium-server/",
    "/.cursor-server/",
    "/.windsurf-server/",
    "/.cache/JetBrains/RemoteDev/",
];

/// What somebody works with that ends with a process of that name and file.
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
