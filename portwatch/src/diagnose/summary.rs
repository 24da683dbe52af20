//! The one-sentence summary for a log: WHO could not bind WHAT because of WHOM.

use crate::{diagnose::words, evidence::Process};

/// The most characters of a summary.
const MOST: usize = 199;
/// The most characters of a name in a summary that would otherwise be too long.
const NAME: usize = 20;

/// Returns the whole sentence, if it is short enough. Otherwise the holder's age is left out,
/// which is elsewhere too. Then long names are cut in the middle. Then the reason is cut in the
/// middle: its beginning says which process, and its end says which address. What the bind
/// asked for is never cut.
pub fn fitted(named: [Option<&Process>; 2], failed: &str, link: &str, because: &str) -> String {
    let whole = format!("{failed}{link}{because}");
    if length(&whole) <= MOST {
        return whole;
    }
    let (mut failed, mut because) = (failed.to_owned(), without_age(because));
    let mut names: Vec<_> = named.into_iter().flatten().flat_map(names).collect();
    // One name may be part of another.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        if length(&failed) + length(link) + length(&because) <= MOST {
            break;
        }
        let short = words::middle_cut(&name, NAME);
        failed = failed.replace(&name, &short);
        because = because.replace(&name, &short);
    }
    let left = MOST.saturating_sub(length(&failed) + length(link));
    let because = words::middle_cut(&because, left);
    words::middle_cut(&format!("{failed}{link}{because}"), MOST).into_owned()
}

/// Removes `up 3 days` from `java[7], another service, up 3 days, is …`.
fn without_age(because: &str) -> String {
    let without = because.split_once(", up ").and_then(|(before, rest)| {
        let (_, doing) = rest.split_once(", ")?;
        let comma = if before.contains(", ") { "," } else { "" };
        Some(format!("{before}{comma} {doing}"))
    });
    without.unwrap_or_else(|| because.to_owned())
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Returns the names of a process in sentences, as far as they may be long.
fn names(process: &Process) -> impl Iterator<Item = String> {
    let workload = process.workload.as_ref().and_then(words::workload);
    let names = [process.comm.clone(), words::belongs_to(process), workload];
    names.into_iter().flatten().filter(|name| length(name) > NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(comm: &str, unit: &str) -> Process {
        let (comm, unit) = (Some(comm.to_owned()), Some(unit.to_owned()));
        Process { pid: 7, comm, unit, ..Process::default() }
    }

    #[test]
    fn what_is_short_is_not_changed() {
        let java = process("java", "app.service");
        let summary = fitted([Some(&java), None], "java[7] (app.service) failed", "; ", "why");
        assert_eq!(summary, "java[7] (app.service) failed; why");
    }

    #[test]
    fn how_long_it_is_up_is_left_out_first() {
        let failed = "f".repeat(155);
        let told = |because| fitted([None, None], &failed, "; ", because);
        let ends = told("java[7], another service, up 3 days, is listening");
        assert!(ends.ends_with("; java[7], another service, is listening"), "{ends}");
        let ends = told("java[7] (app.service), up 3 days, is listening");
        assert!(ends.ends_with("; java[7] (app.service) is listening"), "{ends}");
    }

    #[test]
    fn long_names_are_cut_and_addresses_are_not() {
        let failing = process("payments-api", &format!("payments-{}.service", "a".repeat(200)));
        let holder = process(&"h".repeat(80), &format!("ledger-{}.service", "b".repeat(200)));
        let target = "udplite [2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let failed = format!("{} could not bind {target}", words::process_and_owner(&failing));
        let because = format!(
            "{}, another service, is bound to [2001:db8::6666]:65535",
            words::process_and_owner(&holder)
        );
        let summary = fitted([Some(&failing), Some(&holder)], &failed, " because ", &because);
        assert_eq!(length(&summary), MOST, "{summary}");
        for part in ["payments-api[7] (paymen…aaaaa.service)", target, "[2001:db8::6666]:65535"] {
            assert!(summary.contains(part), "{summary}");
        }
    }
}
