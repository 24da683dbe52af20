//! The time of a diagnosis, for each golden event, compared with writing that event as JSON.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use portwatch::{diagnose::diagnose, event::Event};
use portwatch_tests::golden;

const ROUNDS: u32 = 2_000;

fn main() {
    let mut taken: Vec<(Duration, Duration, String)> = fs::read_dir(golden::folder())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let event: Event = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let evidence = event.clone().into_evidence();
            let diagnosed = mean(|| drop(black_box(diagnose(black_box(&evidence)))));
            let written = mean(|| drop(black_box(serde_json::to_vec(black_box(&event)).unwrap())));
            (diagnosed, written, path.file_stem().unwrap().to_string_lossy().into_owned())
        })
        .collect();
    taken.sort();
    let micros = |taken: Duration| taken.as_secs_f64() * 1e6;
    println!("{:44}{:>14}{:>14}", "event", "diagnose µs", "to JSON µs");
    let (median, last) = (taken.len() / 2, taken.len() - 1);
    for (what, at) in [("least", 0), ("median", median), ("most", last)] {
        let (diagnosed, written, name) = &taken[at];
        let label = format!("{what} of {}: {name}", taken.len());
        println!("{label:44}{:>14.2}{:>14.2}", micros(*diagnosed), micros(*written));
    }
}

fn mean(mut work: impl FnMut()) -> Duration {
    let begin = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    begin.elapsed() / ROUNDS
}
