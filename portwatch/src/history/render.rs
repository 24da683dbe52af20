//! Prints the history for a terminal, and for a report.

use std::fmt::Write as _;

use textwrap::core::display_width;

use super::{Report, Row, freed::Freed};
use crate::{sinks::markdown::prose, text::sanitize::printable};

const HEADS: [&str; 8] =
    ["PORT", "HOLDER", "CLASS", "TIMES", "DEPLOYS", "SINCE", "LAST", "FAILING"];

/// Returns a table whose columns are as wide as needed, and the conclusions below it.
pub fn table(report: &Report) -> String {
    let rows: Vec<_> =
        report.patterns.iter().map(|row| cells(row).map(|c| printable(&c).into_owned())).collect();
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(display_width(cell));
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&HEADS.map(str::to_owned)).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            let blank = width.saturating_sub(display_width(cell));
            format!("{cell}{:blank$}", "")
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let findings: Vec<_> =
        findings(report).map(|finding| printable(&finding).into_owned()).collect();
    if !findings.is_empty() {
        text.push('\n');
    }
    for finding in findings {
        let _ = writeln!(text, "{finding}");
    }
    text
}

/// Returns a table and a list in Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::from("## Ports that were in use\n\n");
    let _ = writeln!(text, "| {} |", HEADS.map(|head| head.to_lowercase()).join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(HEADS.len()));
    for row in &report.patterns {
        let _ = writeln!(text, "| {} |", cells(row).map(|cell| prose(&cell)).join(" | "));
    }
    text.push('\n');
    for finding in findings(report) {
        let _ = writeln!(text, "- {}", prose(&finding));
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let Row { key, count, first, last, deploys, failing, .. } = row;
    let minute = |at: &jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    let place = if key.netns == "host" { String::new() } else { format!(" in {}", key.netns) };
    [
        format!("{}/{}{place}", key.port, key.protocol),
        key.holder.clone(),
        key.class.unwrap_or_default().to_owned(),
        count.to_string(),
        deploys.to_string(),
        minute(first),
        minute(last),
        failing.join(", "),
    ]
}

fn findings(report: &Report) -> impl Iterator<Item = String> + '_ {
    let patterns = report.patterns.iter().filter_map(|row| {
        let finding = row.finding.as_ref()?;
        Some(format!("port {}: {finding} ({} failed binds)", row.key.port, row.count))
    });
    let outcomes = report.patterns.iter().filter_map(|row| {
        let words = row.outcomes.words()?;
        Some(format!("port {} held by {}: {words}", row.key.port, row.key.holder))
    });
    let never = report.never_sets_reuseaddr.iter().map(|program| {
        format!(
            "{} set SO_REUSEADDR in none of {} failed binds with evidence ({} failed binds)",
            program.name, program.samples, program.count
        )
    });
    let left_out = (report.left_out > 0).then(|| {
        format!("{} more failed binds belong to patterns that are not shown", report.left_out)
    });
    let freed = report.freed.iter().map(Freed::words);
    let more = (report.freed_left_out > 0)
        .then(|| format!("{} more actions of portwatch free are not shown", report.freed_left_out));
    patterns.chain(outcomes).chain(freed).chain(more).chain(never).chain(left_out)
}
