//! `portwatch schema`, and its copy in the documentation.

use portwatch_tests::command::{portwatch, run};

#[test]
fn the_documentation_has_it() {
    let kept = include_str!("../../docs/stream.schema.json");
    let said = run(&mut portwatch(&["schema"]));
    assert!(said.is_result().stdout == kept, "portwatch schema > docs/stream.schema.json");
    let kept = include_str!("../../docs/explanation.schema.json");
    let said = run(&mut portwatch(&["schema", "explanation"]));
    let renew = "portwatch schema explanation > docs/explanation.schema.json";
    assert!(said.is_result().stdout == kept, "{renew}");
    let kept = include_str!("../../docs/action.schema.json");
    let said = run(&mut portwatch(&["schema", "action"]));
    let renew = "portwatch schema action > docs/action.schema.json";
    assert!(said.is_result().stdout == kept, "{renew}");
}
