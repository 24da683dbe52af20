//! Names of secrets: options, variables, fields and headers.

/// Endings of a name's last word: `PGPASSWORD`, `authtoken`, `clientSecret`.
const ENDS: [&str; 17] = [
    "password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "secretkey",
    "accesskey", "credential", "credentials", "authorization", "bindpw", "rootpw", "adminpw",
    "userpw", "dbpw",
];
/// Last words that name a secret only as a whole word.
const WORDS: [&str; 15] = [
    "pass", "pwd", "pw", "psk", "jwt", "bearer", "secrets", "requirepass", "masterauth",
    "storepass", "keypass", "setcookie", "cookie", "privatekey", "connectionstring",
];
/// Words before `key` that make the name that of a secret.
const KEYS: [&str; 14] = [
    "api", "access", "private", "secret", "encryption", "signing", "master", "account", "shared",
    "auth", "session", "license", "application", "app",
];
/// Words that end in `pass` and do not name a password.
const NO_PASS: [&str; 14] = [
    "compass", "encompass", "bypass", "surpass", "trespass", "overpass", "underpass", "multipass",
    "singlepass", "onepass", "twopass", "lowpass", "highpass", "bandpass",
];
/// First words that make the name that of a question or a switch.
const SWITCHES: [&str; 9] =
    ["no", "ask", "prompt", "use", "with", "without", "enable", "disable", "require"];

/// Last words of options that accept a user's name and password together.
const PAIRS: [&str; 5] = ["user", "userpass", "userpwd", "creds", "login"];
/// Last words of names of an authentication method, or of the credential itself.
const AUTHS: [&str; 4] = ["auth", "proxyauth", "httpauth", "oauth"];
/// Authentication methods, and words that switch them on and off.
const WAYS: [&str; 42] = [
    "none", "basic", "digest", "ntlm", "negotiate", "bearer", "kerberos", "gssapi", "spnego",
    "plain", "login", "cram-md5", "md5", "scram-sha-1", "scram-sha-256", "sasl", "tls", "mtls",
    "ssl", "oauth", "oauth2", "oidc", "jwt", "saml", "ldap", "pam", "trust", "peer", "ident",
    "webhook", "anonymous", "optional", "required", "true", "false", "yes", "no", "on", "off",
    "enabled", "disabled", "default",
];
/// Words before `pin` that make the name that of a secret.
const PINS: [&str; 6] = ["user", "so", "token", "card", "security", "unlock"];

/// The kind of value that belongs to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret.
    Secret,
    /// A key, or the path of a file that contains it.
    Key,
    /// A user's name, with a password after a colon or a percent sign.
    Pair,
    /// A secret, unless it is the name of an authentication method.
    Auth,
}

/// Returns whether `word` is the name of an authentication method and not a secret.
pub fn is_way(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'', ',', ';']);
    WAYS.iter().any(|way| way.eq_ignore_ascii_case(word))
}

/// Returns the kind of value that belongs to `name`, with or without leading dashes, or `None`
/// if the value is not a secret.
pub fn kind(name: &str) -> Option<Kind> {
    let mut words = words(name.trim_start_matches('-'));
    // `TOKEN2`, `DB_PASSWORD_1`.
    while let Some(last) = words.last_mut() {
        last.truncate(last.trim_end_matches(|char: char| char.is_ascii_digit()).len());
        match last.is_empty() {
            true => words.pop(),
            false => break,
        };
    }
    let (last, before) = words.split_last()?;
    if before.first().is_some_and(|first| SWITCHES.contains(&first.as_str())) {
        return None;
    }
    let previous = before.last().map(String::as_str).unwrap_or_default();
    // traefik's `basicauth.users=user:hash`, vault's `-dev-root-token-id=`.
    if last == "users" && matches!(previous, "basicauth" | "digestauth") {
        return Some(Kind::Pair);
    }
    if last == "id" && before.ends_with(&["root".to_owned(), "token".to_owned()]) {
        return Some(Kind::Secret);
    }
    // These are never file names, and in base64 they may begin with a slash.
    if last == "key" && matches!(previous, "access" | "account" | "shared") {
        return Some(Kind::Secret);
    }
    let before_key = last.strip_suffix("key").filter(|before| !before.is_empty());
    if KEYS.contains(&before_key.unwrap_or(previous)) && last.ends_with("key") {
        let is_file = before_key.is_none_or(|before| matches!(before, "private" | "app"));
        return Some(if is_file { Kind::Key } else { Kind::Secret });
    }
    // consul's and serf's gossip key.
    if last == "encrypt" && before.is_empty() && name.starts_with('-') {
        return Some(Kind::Key);
    }
    if AUTHS.contains(&last.as_str()) {
        return Some(if previous == "basic" { Kind::Pair } else { Kind::Auth });
    }
    if PAIRS.contains(&last.as_str()) && name.starts_with('-') {
        return Some(Kind::Pair);
    }
    let is_secret = WORDS.contains(&last.as_str())
        || ENDS.iter().any(|end| last.ends_with(end))
        || (last == "pin" && (before.is_empty() || PINS.contains(&previous)))
        || (last.ends_with("pass") && !NO_PASS.contains(&last.as_str()))
        || (last == "phrase" && previous == "pass")
        || (last == "base" && before.ends_with(&["secret".to_owned(), "key".to_owned()]))
        || (last == "string" && previous == "connection");
    is_secret.then_some(Kind::Secret)
}

/// Returns the words of a name in lower case: `-Dssl.keyStorePassword` has `dssl`, `key`,
/// `store` and `password`.
fn words(name: &str) -> Vec<String> {
    /// No name is longer. Of longer texts only the end counts.
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
            "--dbpass",
            "--adminpass",
            "--authkey",
            "--pass-phrase",
            "SECRET_KEY_BASE",
            "DB_PASSWORD_1",
            "TOKEN2",
            "user[password]",
        ] {
            assert!(kind(name).is_some(), "{name}");
        }
        assert_eq!(kind("--private-key"), Some(Kind::Key));
        assert_eq!(kind("APP_KEY"), Some(Kind::Key));
        for name in ["--user", "--proxy-user", "--basic-auth"] {
            assert_eq!(kind(name), Some(Kind::Pair), "{name}");
        }
        for name in ["--auth", "ELASTIC_AUTH", "_auth", "proxyauth"] {
            assert_eq!(kind(name), Some(Kind::Auth), "{name}");
        }
    }

    #[test]
    fn what_is_about_a_secret_is_none() {
        for name in [
            "", "-", "--password-file", "--token-ttl", "SECRET_NAME", "--max-tokens", "--port",
            "--no-password", "--ask-pass", "compass", "bypass", "--key", "primary-key", "monkey",
            "PATH", "--author", "tokenizer", "--use-secret", "--http2", "PORT_1", "8080", "[::1]",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
    }
}
