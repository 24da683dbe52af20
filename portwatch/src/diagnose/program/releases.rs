//! Names and paths of a program's releases: which parts stay the same, and which are a version.

use std::net::Ipv4Addr;

/// Names of directories that stand for different releases at different times.
const RELEASES: [&[u8]; 4] = [b"current", b"latest", b"previous", b"stable"];
/// The fewest digits of a date, as in `20240601`. Ports and user ids have fewer.
const DATE: usize = 8;

/// Returns whether the numbers in `a` come after those in `b`, compared one by one.
pub fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split(|char: char| !char.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a) > numbers(b)
}

/// Returns whether the text contains a version: numbers with a dot between them, a number after
/// a `v`, or a date as the name of a release's directory. Any other number may be a port, and
/// an address is not a version.
pub fn has_version(text: &str) -> bool {
    let numbers = |char: char| !char.is_ascii_digit() && char != '.';
    if text.split(numbers).any(|part| part.parse::<Ipv4Addr>().is_ok()) {
        return false;
    }
    let is_date = |part: &str| part.len() >= DATE && part.bytes().all(|it| it.is_ascii_digit());
    let bytes = text.as_bytes();
    (bytes.contains(&b'/') && text.split('/').any(is_date))
        || bytes.windows(3).any(|part| {
            matches!(part, [a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit())
                || matches!(part, [b'/' | b'-' | b'_', b'v', b] if b.is_ascii_digit())
        })
}

/// Returns the last part of a path.
pub fn base(path: &str) -> &str {
    let slash = path.bytes().rposition(|byte| byte == b'/');
    slash.and_then(|slash| path.get(slash + 1..)).unwrap_or(path)
}

/// Returns whether two texts are the same except for the numbers in them.
pub fn is_same(a: &str, b: &str) -> bool {
    a == b || without_versions(a).eq(without_versions(b))
}

/// Replaces every run of digits and dots that starts with a digit by one `#`.
pub fn without_versions(text: &str) -> impl Iterator<Item = u8> {
    let mut in_version = false;
    text.bytes().filter_map(move |byte| {
        let begins = byte.is_ascii_digit() && !in_version;
        in_version = byte.is_ascii_digit() || (in_version && byte == b'.');
        match in_version {
            true => begins.then_some(b'#'),
            false => Some(byte),
        }
    })
}

/// Returns the parts of a path, without the names of releases: `/srv/app/current` equals
/// `/srv/app/releases/20240601` and `/srv/app/3f9ac21`. A user's home directory is not a
/// release.
pub fn landmarks(path: &str) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let within = parts.last().map(Vec::as_slice);
        let of_user = matches!(within, Some(b"home" | b"user" | b"users"));
        if part == ".." {
            parts.pop();
        } else if of_user || !is_release(part.as_bytes()) {
            parts.push(if of_user { part.into() } else { name_of_any_release(part) });
        } else {
            parts.pop_if(|within| matches!(within.as_slice(), b"releases" | b"versions"));
            parts.push(b"#".to_vec());
        }
    }
    parts
}

/// Returns whether a directory is named after the release in it: a version, a date, a commit.
fn is_release(part: &[u8]) -> bool {
    let version = part.strip_prefix(b"v").unwrap_or(part);
    let digits = version.iter().filter(|byte| byte.is_ascii_digit()).count();
    let all = |bytes: &[u8], is: fn(&u8) -> bool| bytes.iter().all(is);
    let is_commit = (7..=64).contains(&part.len()) && all(part, u8::is_ascii_hexdigit);
    RELEASES.contains(&part)
        || (digits > 0
            && (is_commit || all(version, |it| it.is_ascii_digit() || b".-_".contains(it))))
}

/// Returns a name with each version replaced by `#`: numbers with a dot between them, a date,
/// `v2`, and a number between a dash and the file's extension. `web1` and `web2` are two names,
/// and so are `web-8080` and `web-8081`.
pub fn name_of_any_release(name: &str) -> Vec<u8> {
    let bytes = name.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let length = run_of_numbers(rest);
        let behind = rest.get(length..).unwrap_or_default();
        let run = rest.get(..length).unwrap_or_default();
        if length == 0 {
            text.extend(rest.first());
            at += 1;
            continue;
        }
        let is_version = match text.as_slice() {
            _ if run.contains(&b'.') || run.len() >= DATE => true,
            [b'v'] | [.., b'-' | b'_' | b'.' | b'@', b'v'] => true,
            [.., b'-' | b'_'] => behind.first() == Some(&b'.'),
            _ => false,
        };
        text.extend_from_slice(if is_version { b"#" } else { run });
        at += length;
    }
    text
}

/// Returns the length of the numbers at the beginning, separated by single dots.
fn run_of_numbers(bytes: &[u8]) -> usize {
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    while is_digit(end) || (end > 0 && bytes.get(end) == Some(&b'.') && is_digit(end + 1)) {
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_a_version_where_names_have_versions() {
        for (a, b, same) in [
            ("app-2.4.0.jar", "app-2.4.2.jar", true),
            ("app-2.jar", "app-3.jar", true),
            ("app_20240601", "app_20240702", true),
            ("app-v2", "app-v3", true),
            ("v1", "v2", true),
            ("jdk17.0.2", "jdk21.0.1", true),
            ("web1", "web2", false),
            ("web-8080", "web-8081", false),
            ("tomcat-1", "tomcat-2", false),
            ("worker1.py", "worker2.py", false),
            ("site1.example.com", "site2.example.com", false),
            ("app.jar", "app-2.jar", false),
            ("dev1", "dev2", false),
        ] {
            assert_eq!(name_of_any_release(a) == name_of_any_release(b), same, "{a} {b}");
        }
    }

    #[test]
    fn releases_are_one_directory_and_users_are_not() {
        for (a, b, same) in [
            ("/srv/app/releases/20240601120000", "/srv/app/releases/20240702080000", true),
            ("/srv/app/releases/3f9ac21", "/srv/app/current", true),
            ("/srv/app/releases/42", "/srv/app/current/", true),
            ("/srv/app-1.2/bin", "/srv/app-1.3/bin", true),
            ("/srv/app/v1.2", "/srv/app/v1.3", true),
            ("/srv/app/./x/../bin", "/srv/app/bin", true),
            ("/srv/app", "/srv/app/bin", false),
            ("/srv/shop", "/srv/blog", false),
            ("/home/1001", "/home/1002", false),
            ("/run/user/1001/x", "/run/user/1002/x", false),
            ("/srv/tenant1", "/srv/tenant2", false),
            ("/../..", "/", true),
        ] {
            assert_eq!(landmarks(a) == landmarks(b), same, "{a} {b}");
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_newer("app-2.10.0.jar", "app-2.9.1.jar") && !is_newer("app-2.9", "app-2.10"));
        assert!(has_version("app-2.4") && has_version("/app-v2") && has_version("/app/20240601/x"));
        assert!(
            !has_version("8080") && !has_version("127.0.0.1:80") && !has_version("id=20240601")
        );
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: String, name in "[-_v.0-9a-c/]{0,20}") {
            for text in [path, name] {
                prop_assert!(is_same(&text, &text));
                let _ = (landmarks(&text), name_of_any_release(&text), has_version(&text));
            }
        }
    }
}
