//! docs/architecture.md, "Layers": a module imports only modules that are listed before it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item};

use crate::{quoted, root};

/// Returns the modules of the library as the document lists them, lowest first.
fn listed() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = text.split_once("\n## Layers\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let second = rows.filter_map(|row| row.split('|').nth(2));
    second.flat_map(quoted).map(str::to_owned).collect()
}

/// The files of each module at the top of the library, with how deep each is.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    let source = root().join("portwatch/src");
    let mut modules = BTreeMap::<_, Vec<_>>::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let inside = path.strip_prefix(&source).unwrap().with_extension("");
            let top = inside.iter().next().unwrap().to_str().unwrap().to_owned();
            if !["lib", "main"].contains(&top.as_str()) {
                modules.entry(top).or_default().push(path);
            }
        }
    }
    modules
}

/// Modules at the top of the library that a file names outside of its tests.
fn used_by(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root().join("portwatch/src")).unwrap();
    let file = syn::parse_file(&fs::read_to_string(path).unwrap());
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut used = Vec::new();
    if is_for_tests(&file.attrs) {
        return used;
    }
    for item in file.items.iter().filter(|item| !is_test(item)) {
        collect(item.to_token_stream(), inside.iter().count(), &mut used);
    }
    used
}

fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        _ => return false,
    };
    is_for_tests(attributes)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.to_token_stream().to_string() == "cfg (test)"
    })
}

/// Collects what follows `crate::`, or as many `super::` as the file is deep: an identifier,
/// or several in braces. In macros too.
fn collect(tokens: TokenStream, depth: usize, used: &mut Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut supers = 0;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Group(group) => collect(group.stream(), depth, used),
            TokenTree::Ident(ident) if ident == "crate" || ident == "super" => {
                supers = if ident == "super" { supers + 1 } else { depth };
                let is_path = matches!(
                    (tokens.get(at), tokens.get(at + 1)),
                    (Some(TokenTree::Punct(a)), Some(TokenTree::Punct(b)))
                        if a.as_char() == ':' && b.as_char() == ':'
                );
                if is_path && supers == depth {
                    used.extend(tokens.get(at + 2).map(first_of).into_iter().flatten());
                }
                if is_path {
                    at += 2;
                    continue;
                }
            }
            _ => {}
        }
        supers = 0;
    }
}

/// Returns the identifier, or the first of each part in braces.
fn first_of(token: &TokenTree) -> Vec<String> {
    match token {
        TokenTree::Ident(ident) if ident != "super" => vec![ident.to_string()],
        TokenTree::Group(group) => {
            let mut begins = true;
            let mut first = Vec::new();
            for token in group.stream() {
                match &token {
                    TokenTree::Ident(ident) if begins => first.push(ident.to_string()),
                    _ => {}
                }
                begins = matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
            }
            first
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_module_uses_only_those_before_it() {
    let listed = listed();
    let modules = modules();
    let place = |name: &str| listed.iter().position(|listed| listed == name);
    let tests: Vec<_> = test_modules();
    let mut breaches = Vec::new();
    let mut uses = 0;
    for (name, files) in modules.iter().filter(|(name, _)| !tests.contains(name)) {
        let own = place(name).unwrap_or_else(|| panic!("{name} stands in no layer"));
        let is_tests =
            |path: &&PathBuf| path.iter().any(|part| part == "tests" || part == "tests.rs");
        for path in files.iter().filter(|path| !is_tests(path)) {
            for used in used_by(path).into_iter().filter(|used| used != name) {
                uses += 1;
                // Items of the root itself are no modules.
                if modules.contains_key(&used) && place(&used).is_none_or(|used| used >= own) {
                    breaches.push(format!("{} uses {used}", path.display()));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
    assert!(uses > 100, "{uses} uses were seen");
    let gone: Vec<_> = listed.iter().filter(|name| !modules.contains_key(*name)).collect();
    assert!(gone.is_empty(), "there is no module {gone:?}");
}

/// Returns top-level modules that are for tests only.
fn test_modules() -> Vec<String> {
    let file = fs::read_to_string(root().join("portwatch/src/lib.rs")).unwrap();
    let items = syn::parse_file(&file).unwrap().items;
    let modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) if is_for_tests(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

#[test]
fn uses_are_seen_however_they_are_written() {
    let source = "
        use crate::{a, b::{self, c}, d::E};
        use super::super::f::G;
        fn h() { print!(\"{}\", crate::i::J); super::k(); }
    ";
    let mut used = Vec::new();
    collect(source.parse().unwrap(), 2, &mut used);
    assert_eq!(used, ["a", "b", "d", "f", "i"]);
}
