//! PowerShell.

use super::{Kind, Spec};

/// The facts about it (`pwsh -Help`). Options may have any case; these are the usual ones.
pub const INTERPRETER: Spec = Spec {
    names: &["pwsh"],
    values: "-ConfigurationFile -ConfigurationName -CustomPipeName -EncodedCommand -ExecutionPolicy \
             -InputFormat -OutputFormat -SettingsFile -WindowStyle -WorkingDirectory -ep -wd",
    runs: &[
        ("-Command", Kind::Text),
        ("-File", Kind::Path),
        ("-c", Kind::Text),
        ("-command", Kind::Text),
        ("-f", Kind::Path),
        ("-file", Kind::Path),
    ],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("pwsh|-NoProfile|-File|/srv/server.ps1|80", "path /srv/server.ps1"),
            ("pwsh|-ExecutionPolicy|Bypass|server.ps1", "path server.ps1"),
            ("pwsh|-c|Start-Server", "text Start-Server"),
        ]);
    }
}
