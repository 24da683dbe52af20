use super::*;

#[test]
fn what_is_alerted_on_begins_at_zero() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.text().unwrap();
    for line in [
        "portwatch_bind_failures_total{cause=\"listener\",protocol=\"tcp\",stage=\"bind\"} 0",
        "portwatch_events_lost_total{where=\"ring\"} 0",
        "portwatch_ignored_total{by=\"unit\"} 0",
        "portwatch_outcomes_harmful_total{outcome=\"exited\"} 0",
        "portwatch_outcomes_harmful_total{outcome=\"still_failing\"} 0",
        "portwatch_ratelimited_total 0",
        "portwatch_not_attempted_total 0",
        "portwatch_enrichment_seconds_count 0",
        "portwatch_messages_dropped_total{where=\"stderr\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn each_refusal_of_an_event_counts() {
    let line = include_str!("../../../tests/golden/listener.jsonl");
    let Ok(crate::event::Record::BindFailure(mut event)) =
        crate::event::read::record(line.trim_end())
    else {
        panic!()
    };
    let metrics = Metrics::new().unwrap();
    event.count = 41;
    metrics.told(&event);
    event.count = 1;
    metrics.told(&event);
    let text = metrics.text().unwrap();
    let counted = "{cause=\"listener\",protocol=\"tcp\",stage=\"bind\"} 42";
    assert!(text.contains(counted), "{text}");
}

/// Programs that only ask whether a port is in use, or whether a helper is running, exit with
/// status 0: nobody is paged for them.
#[test]
fn what_is_paged_for_is_what_hurt_a_program() {
    use crate::event::outcome::{Became, Exit, examples};

    let exit = |status, signal| Some(Exit { status, signal });
    let metrics = Metrics::new().unwrap();
    let (mut exited, others): (Vec<_>, Vec<_>) =
        examples().into_iter().partition(|outcome| outcome.outcome == Became::Exited);
    others.iter().for_each(|outcome| metrics.became(outcome));
    for exit in [exit(Some(0), None), exit(Some(1), None), exit(None, Some(6)), None] {
        exited[0].exit = exit;
        metrics.became(&exited[0]);
    }
    let text = metrics.text().unwrap();
    for line in [
        "portwatch_outcomes_total{outcome=\"exited\"} 4",
        "portwatch_outcomes_harmful_total{outcome=\"exited\"} 3",
        "portwatch_outcomes_harmful_total{outcome=\"still_failing\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let harmful = text.lines().filter(|line| line.contains("harmful_total{"));
    assert_eq!(harmful.count(), 2, "{text}");
}

#[test]
fn queues_of_one_name_are_one_sum() {
    let metrics = Metrics::new().unwrap();
    for waiting in [2, 1] {
        let stage = metrics.stage("sink.capture");
        (0..waiting).for_each(|_| stage.add());
    }
    let text = metrics.text().unwrap();
    assert!(text.contains("portwatch_queue_length{queue=\"sink.capture\"} 3"), "{text}");
}

#[test]
fn health_names_the_stage() {
    let metrics = Metrics::new().unwrap();
    let stage = metrics.stage("enrich");
    stage.add();
    assert_eq!(metrics.health(None), Ok(()));
    assert!(metrics.text().unwrap().contains("portwatch_queue_length{queue=\"enrich\"} 1"));
}
