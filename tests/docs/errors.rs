//! Errors of the library are types: a text is for people, and of no use to a caller.

use std::fs;

use crate::root;

#[test]
fn no_error_of_the_library_is_a_text() {
    let folder = root().join("portwatch/src");
    let mut results = 0;
    for path in crate::sources(&folder) {
        let inside = path.strip_prefix(&folder).unwrap().to_str().unwrap();
        let is_test = inside.split('/').any(|part| part == "tests" || part == "tests.rs");
        if is_test {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let product = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        assert!(!product.contains("type Err = String;"), "{inside}: an error is a String");
        for error in errors(product) {
            results += 1;
            assert_ne!(error, "String", "{inside}: the error of a Result is a String");
        }
    }
    assert!(results > 100, "only {results} results were found");
}

/// The second argument of each `Result`.
fn errors(source: &str) -> impl Iterator<Item = &str> {
    let results = source.match_indices("Result<").map(|(at, name)| &source[at + name.len()..]);
    results.filter_map(|arguments| {
        let (mut depth, mut second, mut before) = (1, None, ' ');
        for (at, mark) in arguments.char_indices() {
            match mark {
                '<' | '(' | '[' => depth += 1,
                '>' if before != '-' => depth -= 1,
                ')' | ']' => depth -= 1,
                ',' if depth == 1 && second.is_none() => second = Some(at + 1),
                _ => {}
            }
            if depth == 0 {
                return Some(arguments[second?..at].trim().trim_end_matches(','));
            }
            before = mark;
        }
        None
    })
}

#[test]
fn errors_are_found_however_a_result_is_written() {
    let source = "\
        fn a(take: impl Fn(u8) -> Result<(), A>) -> io::Result<u8>;
        kept: Map<(u8, u8), Result<Vec<(u8, u8)>, B<u8>>>,
        fn b() -> Result<\n    Box<dyn Fn(u8) -> u8>,\n    String,\n> {}";
    let found: Vec<_> = errors(source).collect();
    assert_eq!(found, ["A", "B<u8>", "String"]);
}
