use super::*;

#[test]
fn what_is_alerted_on_begins_at_zero() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.text().unwrap();
    for line in [
        "portwatch_bind_failures_total{cause=\"listener\",protocol=\"tcp\",stage=\"bind\"} 0",
        "portwatch_events_lost_total{where=\"ring\"} 0",
        "portwatch_ignored_total{by=\"unit\"} 0",
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
