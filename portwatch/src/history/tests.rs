use super::*;
use crate::{diagnose::diagnose, event::read};

const EVENT: &str = include_str!("../../../tests/golden/listener.jsonl");

/// The golden event at another time, with another release, after this many restarts.
fn refused(time: &str, release: &str, restarts: u32) -> Evidence {
    let line = EVENT.trim_end().replace("app-2.4.2", release);
    let Ok(crate::event::Record::BindFailure(event)) = read::record(&line) else { panic!() };
    let mut evidence = event.into_evidence();
    evidence.time = time.parse().unwrap();
    evidence.process.supervisor.as_mut().unwrap().restarts = Some(restarts);
    evidence
}

fn report(of: &[Evidence]) -> Report {
    let mut history = History::default();
    for evidence in of {
        history.add("", evidence, &diagnose(evidence), 1);
    }
    history.report()
}

#[test]
fn the_same_squatter_three_deploys_in_a_row() {
    let report = report(&[
        refused("2026-06-08T10:02:17Z", "app-2.4.2", 0),
        refused("2026-06-08T10:02:18Z", "app-2.4.2", 1),
        refused("2026-06-08T10:02:19Z", "app-2.4.2", 2),
        // The unit was started again.
        refused("2026-06-08T10:05:00Z", "app-2.4.2", 0),
        // And then another release.
        refused("2026-06-09T10:05:00Z", "app-2.4.3", 1),
    ]);
    insta::assert_snapshot!(render::table(&report));
    insta::assert_snapshot!(render::markdown(&report));
    insta::assert_json_snapshot!(report);
}

/// A terminal shows some characters two columns wide.
#[test]
fn columns_stand_below_each_other_whatever_the_script() {
    let latin = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
    let mut wide = latin.clone();
    wide.sockets[0].holders[0].comm = Some("数据库".to_owned());
    let table = render::table(&report(&[latin, wide]));
    let since = |line: &str| {
        let at = line.find("SINCE").or(line.find("2026")).unwrap();
        textwrap::core::display_width(&line[..at])
    };
    let columns: Vec<_> = table.lines().take(3).map(since).collect();
    assert!(table.contains("数据库") && columns == [columns[0]; 3], "{table}");
}

#[test]
fn a_crash_loop_is_one_deploy() {
    let loop_of: Vec<_> =
        (0..50).map(|n| refused(&format!("2026-06-08T10:02:{n:02}Z"), "app-2.4.2", n)).collect();
    let report = report(&loop_of);
    assert_eq!((report.patterns[0].count, report.patterns[0].deploys), (50, 1));
    assert_eq!(report.patterns[0].finding, None);
}

#[test]
fn who_never_sets_the_option() {
    let mut without = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
    without.failure.reuseaddr = Some(false);
    let with = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
    let never = |of: &[&Evidence]| -> Vec<(String, u64)> {
        let of: Vec<Evidence> = of.iter().map(|&one| one.clone()).collect();
        let never = report(&of).never_sets_reuseaddr.into_iter();
        never.map(|program| (program.name, program.samples)).collect()
    };
    for few in 0..3 {
        assert_eq!(never(&vec![&without; few]), [], "{few} say nothing of the next");
    }
    assert_eq!(never(&[&without; 3]), [("app.service".to_owned(), 3)]);
    assert_eq!(never(&[&without, &without, &without, &with]), []);
}

/// Many programs are called java, and many have the same port.
#[test]
fn different_programs_are_not_one() {
    let by = |holder: &str| {
        let mut evidence = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
        for holder_process in evidence.sockets.iter_mut().flat_map(|row| &mut row.holders) {
            holder_process.cmdline = ["java", "-jar", holder].map(str::to_owned).to_vec().into();
        }
        evidence
    };
    let report = report(&[by("/opt/a.jar"), by("/opt/b.jar"), by("/opt/c.jar")]);
    assert_eq!(report.patterns.len(), 3, "{:?}", report.patterns);
    assert!(report.patterns.iter().all(|row| row.finding.is_none()));
}

/// One failure each of several programs is no pattern.
#[test]
fn failures_of_different_programs_are_no_row() {
    let of = |unit: &str| {
        let mut evidence = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
        evidence.process.unit = Some(unit.to_owned());
        evidence
    };
    let once = report(&[of("a.service"), of("b.service"), of("c.service")]);
    assert_eq!(once.patterns[0].finding, None);
    let mut again = of("b.service");
    again.process.cmdline.extend(["--new".to_owned()]);
    let twice = report(&[of("a.service"), of("b.service"), again]);
    let finding = twice.patterns[0].finding.as_deref();
    assert_eq!(finding, Some("the same squatter, 2 deploys of b.service in a row"));
}

/// A pid may be reused.
#[test]
fn a_holder_of_unknown_start_is_not_said_to_be_the_same() {
    let of = |release: &str| {
        let mut evidence = refused("2026-06-08T10:02:17Z", release, 0);
        for holder in evidence.sockets.iter_mut().flat_map(|row| &mut row.holders) {
            holder.started = None;
        }
        evidence
    };
    let report = report(&[of("app-2.4.2"), of("app-2.4.3")]);
    assert!(!report.patterns[0].same_process);
}

/// That a bind failed is news where somebody was hurt by it.
#[test]
fn what_became_of_them_is_told() {
    let evidence = refused("2026-06-08T10:02:17Z", "app-2.4.2", 0);
    let mut history = History::default();
    for outcome in crate::event::outcome::examples() {
        history.add(&outcome.id, &evidence, &diagnose(&evidence), 1);
        history.became(&outcome);
        // A second time, or of an event that was not wanted.
        history.became(&outcome);
    }
    let table = render::table(&history.report());
    let words = "held by java: recovered once, hurt 4 times, went on without the port twice";
    assert!(table.contains(words), "{table}");
}
