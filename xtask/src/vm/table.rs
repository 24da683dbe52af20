//! The results, as a table for the terminal and for docs/kernel-support.md.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::vm::{boot::Guest, outcome::Outcome, scenario};

/// One guest's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub passed: bool,
    release: String,
    scenario: &'static str,
    cells: Vec<String>,
}

const HEAD: &str = "| kernel | scenario | tests | passed | skipped | failed | kernel warnings | ready after, ms | verified instructions | suite, s |";
const RULE: &str = "|---|---|---|---|---|---|---|---|---|---|";
/// The rows are between these lines.
const BEGIN: &str = "<!-- begin of results -->";
const END: &str = "<!-- end of results -->";

impl Row {
    pub fn new(guest: &Guest, outcome: &Outcome, seconds: u64) -> Self {
        let known = |number: Option<u32>| number.map_or("unknown".to_owned(), |n| n.to_string());
        Self {
            passed: outcome.passed(),
            release: guest.release.clone(),
            scenario: guest.scenario.name,
            cells: vec![
                if guest.whole { "all" } else { "some" }.to_owned(),
                outcome.passed.to_string(),
                outcome.skipped.to_string(),
                if outcome.ended() { outcome.failed.to_string() } else { "no end".to_owned() },
                outcome.warnings.to_string(),
                known(outcome.ready_ms),
                known(outcome.verified),
                seconds.to_string(),
            ],
        }
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.release, self.scenario)
    }

    /// By version, then in the order of the scenarios.
    pub fn order(&self) -> (Vec<u32>, usize) {
        order(&self.release, self.scenario)
    }

    fn line(&self) -> String {
        format!("| {} | {} | {} |", self.release, self.scenario, self.cells.join(" | "))
    }
}

fn order(release: &str, name: &str) -> (Vec<u32>, usize) {
    let place = scenario::ALL.iter().position(|scenario| scenario.name == name);
    (super::kernels::numbers(release), place.unwrap_or(usize::MAX))
}

/// The table, as Markdown.
pub fn render(rows: &[Row]) -> String {
    let lines: Vec<_> = rows.iter().map(Row::line).collect();
    format!("{HEAD}\n{RULE}\n{}\n", lines.join("\n"))
}

/// Writes the rows into the document, and replaces those of the same series and scenario.
pub fn enter(document: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let text = fs::read_to_string(document)
        .with_context(|| format!("failed to read {}", document.display()))?;
    fs::write(document, entered(&text, rows)?)?;
    Ok(())
}

fn entered(text: &str, rows: &[Row]) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("the results' beginning is not marked")?;
    let (old, after) = rest.split_once(END).context("the results' end is not marked")?;
    ensure!(!after.contains(BEGIN), "the results' beginning is marked twice");
    let mut lines: Vec<_> = old
        .lines()
        .filter_map(|line| Some((key(line)?, line.to_owned())))
        .filter(|(old, _)| {
            !rows.iter().any(|row| is_same(&row.release, &old.0) && row.scenario == old.1)
        })
        .chain(rows.iter().map(|row| ((row.release.clone(), row.scenario.to_owned()), row.line())))
        .collect();
    lines.sort_by_key(|((release, name), _)| order(release, name));
    let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
    Ok(format!("{before}{BEGIN}\n{HEAD}\n{RULE}\n{}\n{END}{after}", lines.join("\n")))
}

/// Kernel and scenario of a line of the table.
fn key(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let (release, scenario) = (cells.next()?, cells.next()?);
    let is_row = release.starts_with(|char: char| char.is_ascii_digit());
    is_row.then(|| (release.to_owned(), scenario.to_owned()))
}

/// Whether two kernels are of one series and one flavour, which names the architecture.
fn is_same(one: &str, other: &str) -> bool {
    let series = |release: &str| -> (Vec<u32>, Option<String>) {
        let flavour = ["-16k", "-arm64", "-amd64"].into_iter().find(|end| release.ends_with(end));
        let numbers = super::kernels::numbers(release).into_iter().take(2);
        (numbers.collect(), flavour.map(str::to_owned))
    };
    series(one) == series(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(release: &str, scenario: &'static str, passed: &str) -> Row {
        Row { passed: true, release: release.to_owned(), scenario, cells: vec![passed.to_owned()] }
    }

    #[test]
    fn rows_replace_those_of_their_series_and_stand_in_order() {
        let text = format!("# Title\n{BEGIN}\n{END}\nmore\n");
        let first = [row("6.12.9-a", "tracepoint", "1"), row("6.1.0-a", "fexit", "2")];
        let text = entered(&text, &first).unwrap();
        let second = [row("6.12.10-a", "fexit", "4"), row("6.12.10-a", "tracepoint", "3")];
        let text = entered(&text, &second).unwrap();
        let rows: Vec<_> = text.lines().filter(|line| key(line).is_some()).collect();
        assert_eq!(
            rows,
            [
                "| 6.1.0-a | fexit | 2 |",
                "| 6.12.10-a | fexit | 4 |",
                "| 6.12.10-a | tracepoint | 3 |"
            ]
        );
        assert!(!is_same("6.12.9-cloud-amd64", "6.12.9-cloud-arm64"));
        assert!(!is_same("7.3.4+deb13-cloud-arm64", "7.3.4+deb13-arm64-16k"));
        assert!(text.starts_with("# Title\n") && text.ends_with("\nmore\n"));
    }

    #[test]
    fn a_document_without_marks_is_left_alone() {
        assert!(entered("# Title\n", &[]).is_err());
    }
}
