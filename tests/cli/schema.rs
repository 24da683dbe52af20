//! `portwatch schema`, and its copy in the documentation.

use portwatch_tests::command::{portwatch, run};

#[test]
fn the_documentation_has_it() {
    let said = run(&mut portwatch(&["schema"]));
    said.is_result();
    let kept = include_str!("../../docs/stream.schema.json");
    assert!(said.stdout == kept, "renew it: portwatch schema > docs/stream.schema.json");
}
