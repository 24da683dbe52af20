//! `portwatch schema`, and its copy in the documentation.

use portwatch_tests::command::{portwatch, run};

#[test]
fn the_documentation_has_it() {
    for (of, kept) in [
        ("stream", include_str!("../../docs/stream.schema.json")),
        ("explanation", include_str!("../../docs/explanation.schema.json")),
        ("action", include_str!("../../docs/action.schema.json")),
    ] {
        let said = run(&mut portwatch(&["schema", of]));
        assert!(said.is_result().stdout == kept, "{of}: not that of docs: build again");
    }
    let said = run(&mut portwatch(&["schema"]));
    assert!(said.is_result().stdout == include_str!("../../docs/stream.schema.json"));
}
