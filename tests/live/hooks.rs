//! Which hook set is chosen.

use std::process::Command;

use portwatch_tests::{kernel, programs};
use serde_json::Value;

/// In the order of preference.
const SETS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];

fn doctor(options: &[&str]) -> Value {
    let mut doctor = Command::new(programs::portwatch().unwrap());
    doctor.args(["doctor", "--json"]).args(options);
    serde_json::from_slice(&doctor.output().unwrap().stdout).unwrap()
}

fn is_usable(report: &Value, set: &str) -> bool {
    report[set].get("Ok").is_some()
}

/// Without a request the first that the kernel permits, and doctor says why not another one.
#[test]
fn the_first_that_the_kernel_permits() {
    let report = doctor(&["--hooks", "auto"]);
    let first = SETS.iter().position(|set| is_usable(&report, set)).unwrap();
    assert_eq!(report["hooks"], SETS[first], "{report:#}");
    let because = report["because"].as_str().unwrap();
    assert_eq!(because.matches("cannot be hooked").count(), first, "{because}");
    for set in &SETS[..first] {
        let why = report[set]["Err"].as_str().unwrap();
        assert!(!why.is_empty() && !why.contains("Unknown error"), "{set}: {why}");
    }
    // Kprobes read the kernel's memory by a helper that this mode refuses.
    let refused = kernel::is_locked_down("confidentiality");
    assert!(!(refused && is_usable(&report, "kprobe")), "{report:#}");
    assert!(is_usable(&report, "tracepoint"), "{report:#}");
}
