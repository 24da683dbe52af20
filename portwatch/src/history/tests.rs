use super::*;
use crate::{diagnose::diagnose, event::read};

const EVENT: &str = include_str!("../../../tests/golden/listener.jsonl");

/// The golden event at another time, with another release, after so many restarts.
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
        history.add(evidence, &diagnose(evidence), 1);
    }
    history.report()
}

#[test]
fn the_same_squatter_three_deploys_in_a_row() {
    let report = report(&[
        refused("2026-06-08T10:02:17Z", "app-2.4.2", 0),
        refused("2026-06-08T10:02:18Z", "app-2.4.2", 1),
        refused("2026-06-08T10:02:19Z", "app-2.4.2", 2),
        // Somebody has started the unit again.
        refused("2026-06-08T10:05:00Z", "app-2.4.2", 0),
        // And then another release.
        refused("2026-06-09T10:05:00Z", "app-2.4.3", 1),
    ]);
    insta::assert_snapshot!(render::table(&report));
    insta::assert_snapshot!(render::markdown(&report));
    insta::assert_json_snapshot!(report);
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
    let names = |of: &[Evidence]| -> Vec<String> {
        report(of).never_sets_reuseaddr.into_iter().map(|program| program.name).collect()
    };
    assert_eq!(names(&[without.clone(), without.clone()]), ["app.service"]);
    assert!(names(&[without, with]).is_empty());
}
