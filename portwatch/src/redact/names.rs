//! Names under which secrets are given: of options, variables, fields and headers.

/// Ends of a name's last word: `PGPASSWORD`, `authtoken`, `clientSecret`.
const ENDS: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "secretkey",
    "accesskey",
    "credential",
    "credentials",
    "authorization",
    "bindpw",
    "rootpw",
    "adminpw",
    "userpw",
    "dbpw",
];
/// Last words that are a secret's name by themselves only.
const WORDS: [&str; 15] = [
    "pass",
    "pwd",
    "pw",
    "psk",
    "jwt",
    "bearer",
    "secrets",
    "requirepass",
    "masterauth",
    "storepass",
    "keypass",
    "setcookie",
    "cookie",
    "privatekey",
    "connectionstring",
];
/// Words before `key` that make it a secret.
const KEYS: [&str; 13] = [
    "api",
    "access",
    "private",
    "secret",
    "encryption",
    "signing",
    "master",
    "account",
    "shared",
    "auth",
    "session",
    "license",
    "application",
];
/// Words at the beginning that make it a question or a switch.
const SWITCHES: [&str; 9] =
    ["no", "ask", "prompt", "use", "with", "without", "enable", "disable", "require"];

/// Last words of options that take a user's name and password in one.
const PAIRS: [&str; 6] = ["user", "auth", "userpass", "userpwd", "creds", "login"];
/// Words before `pin` that make it a secret.
const PINS: [&str; 6] = ["user", "so", "token", "card", "security", "unlock"];

/// What is given under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret.
    Secret,
    /// A key, or the path of a file that has it.
    Key,
    /// A user's name, and behind a colon or a percent sign the password.
    Pair,
}

/// What is given under `name`, dashes before it or not; `None` for no secret.
pub fn kind(name: &str) -> Option<Kind> {
    let words = words(name.trim_start_matches('-'));
    let (last, before) = words.split_last()?;
    if before.first().is_some_and(|first| SWITCHES.contains(&first.as_str())) {
        return None;
    }
    let previous = before.last().map(String::as_str).unwrap_or_default();
    // These are never files, and in base64 they may begin with a slash.
    if last == "key" && matches!(previous, "access" | "account" | "shared") {
        return Some(Kind::Secret);
    }
    if last == "key" && KEYS.contains(&previous) || last == "privatekey" {
        return Some(Kind::Key);
    }
    if PAIRS.contains(&last.as_str()) && (name.starts_with('-') || last == "auth") {
        return Some(Kind::Pair);
    }
    let is_secret = WORDS.contains(&last.as_str())
        || ENDS.iter().any(|end| last.ends_with(end))
        || (last == "pin" && (before.is_empty() || PINS.contains(&previous)))
        || (last == "string" && previous == "connection");
    is_secret.then_some(Kind::Secret)
}

/// The words of a name in lower case: `-Dssl.keyStorePassword` has `dssl`, `key`,
/// `store` and `password`.
fn words(name: &str) -> Vec<String> {
    /// No name is longer; of what is, the end counts.
    const LONGEST: usize = 128;
    let start = name.char_indices().rev().nth(LONGEST).map_or(0, |(start, _)| start);
    let name = name.get(start..).unwrap_or_default();
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for char in name.chars() {
        let begins = char.is_ascii_uppercase() && was_lower;
        was_lower = char.is_ascii_lowercase();
        if begins || !char.is_ascii_alphanumeric() {
            words.push(String::new());
        }
        if char.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(char.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_by_the_end_of_its_name() {
        for name in [
            "--password",
            "-password",
            "PGPASSWORD",
            "MYSQL_PWD",
            "db.password",
            "DB_PASS",
            "authtoken",
            "GITHUB_TOKEN",
            "clientSecret",
            "-Djavax.net.ssl.keyStorePassword",
            "requirepass",
            "-setcookie",
            "X-Auth-Token",
            "Authorization",
            "APIKey",
            "api_key",
        ] {
            assert!(kind(name).is_some(), "{name}");
        }
        assert_eq!(kind("--private-key"), Some(Kind::Key));
        for name in ["--user", "--proxy-user", "--basic-auth", "ELASTIC_AUTH"] {
            assert_eq!(kind(name), Some(Kind::Pair), "{name}");
        }
    }

    #[test]
    fn what_is_about_a_secret_is_none() {
        for name in [
            "",
            "-",
            "--password-file",
            "--token-ttl",
            "SECRET_NAME",
            "--max-tokens",
            "--port",
            "--no-password",
            "--ask-pass",
            "compass",
            "bypass",
            "--key",
            "primary-key",
            "monkey",
            "PATH",
            "--author",
            "tokenizer",
            "--use-secret",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
    }
}
