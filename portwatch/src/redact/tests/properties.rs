//! Properties of any command line.

use proptest::prelude::*;

use super::*;

/// Ways to give a secret, its place marked by a percent sign.
const WAYS: [&[&str]; 50] = [
    &["curl", "--user", "me:%", "h"],
    &["curl", "--proxy-user=me:%", "h"],
    &["curl", "-u", "me:%", "h"],
    &["curl", "-sSku", "me:%"],
    &["curl", "-ume:%"],
    &["curl", "-H", "Authorization: Bearer %"],
    &["curl", "-H", "Authorization: %"],
    &["curl", "-H", "Authorization: OAuth %"],
    &["curl", "-H", "X-Auth-Token: %"],
    &["curl", "-HCookie: a=1; b=%"],
    &["curl", "--header=Cookie: a=%"],
    &["curl", "-x", "me:%@h:80"],
    &["sudo", "-u", "net", "curl", "-u", "%"],
    &["smbclient", "-U", "me:%"],
    &["ldapsearch", "-xw", "%"],
    &["redis-cli", "-a", "%"],
    &["mysql", "-p%"],
    &["docker", "exec", "db", "mysql", "-p%"],
    &["docker", "run", "-e", "DB_PASSWORD=%", "i"],
    &["docker", "run", "-eDB_PASSWORD=%", "i"],
    &["docker", "run", "--env=DB_PASSWORD=%", "i"],
    &["docker", "login", "-p", "%"],
    &["sshpass", "-p%", "ssh", "h"],
    &["sshpass", "-p", "%", "ssh", "h"],
    &["lftp", "-u", "u,%"],
    &["sqlplus", "u/%@d"],
    &["xfreerdp", "/p:%"],
    &["ab", "-A", "u:%"],
    &["app", "--password=%", "-v"],
    &["app", "--password=--%"],
    &["app", "--client-secret", "%", "-v"],
    &["app", "-password", "%"],
    &["app", "--auth", "%"],
    &["app", "--dbpass", "%"],
    &["env", "API_KEY=%", "app"],
    &["env", "AWS_SECRET_ACCESS_KEY=%", "app"],
    &["env", "TOKEN2=%", "app"],
    &["app", "postgres://me:%@db:5432/x"],
    &["app", "--db=postgres://me:%@db/x", "--port=80"],
    &["app", "me:%@tcp(db:3306)/"],
    &["app", "-Dapp.db.password=%"],
    &["app", "--opts=--token=%"],
    &["isql", "dsn", "me", "%"],
    &["sudo", "isql", "-v", "dsn", "me", "%"],
    &["htpasswd", "-bc", "/etc/users", "me", "%"],
    &["htpasswd", "-nb", "me", "%"],
    &["docker", "exec", "web", "htpasswd", "-b", "/etc/users", "me", "%"],
    &["mysqladmin", "-u", "root", "password", "%"],
    &["openssl", "passwd", "-6", "%"],
    &["rabbitmqctl", "add_user", "me", "%"],
];

/// Arguments without a secret, which may precede one.
const HARMLESS: [&[&str]; 10] = [
    &["-H", "Content-Type: application/json; charset=utf-8"],
    &["-A", "Mozilla/5.0 (X11; Linux x86_64)"],
    &["-e", "select 1; select 'a b'"],
    &["-o", "zip"],
    &["-h", "mongo"],
    &["-d", "{\"a\": \"b; c\", \"d\": [1]}"],
    &["https://api/login?a=b&c=d"],
    &["a && b | (c)"],
    &["-v"],
    &["it is"],
];

/// How a command line is given: as it is, as a script in either quotes, within a script of
/// such a script, or as a title.
fn given(arguments: &[String], form: usize) -> Vec<String> {
    let single = |text: &String| format!("'{}'", text.replace('\'', "'\\''"));
    let double = |text: &String| {
        let escaped = |char: char| matches!(char, '"' | '\\' | '$' | '`');
        let each = |char| if escaped(char) { format!("\\{char}") } else { char.to_string() };
        format!("\"{}\"", text.chars().map(each).collect::<String>())
    };
    let script = |quote: &dyn Fn(&String) -> String| {
        // A program's name and its options are not in quotes, if they need none.
        let is_plain = |text: &&String| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:/.=".contains(&byte))
        };
        let quoted = |text| Some(text).filter(is_plain).cloned().unwrap_or_else(|| quote(text));
        arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
    };
    match form {
        0 => arguments.to_vec(),
        1 => vec!["sh".to_owned(), "-c".to_owned(), script(&single)],
        2 => vec!["sh".to_owned(), "-ec".to_owned(), format!("cd /; exec {}", script(&double))],
        3 => vec!["ssh".to_owned(), "h".to_owned(), script(&double)],
        _ => vec![arguments.join(" ")],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Each part of a secret is marked, so that the test finds any of them.
    #[test]
    fn no_secret_survives(
        way in 0..WAYS.len(),
        before in proptest::collection::vec(0..HARMLESS.len(), 0..4),
        form in 0..5usize,
        secret in "Zq[a-z0-9]{0,4}([-&;'\"/:@,|(){}=<>!%^*+.~_#$\\[\\] ]{1,2}Zq[a-z0-9]{0,4}){0,4}",
    ) {
        // A title has no quotes: a space is the end of an argument there.
        let secret = if form == 4 { secret.replace([' ', '"', '\''], "") } else { secret };
        let way = WAYS[way];
        let mut arguments: Vec<String> = way.iter().map(|part| part.replace('%', &secret)).collect();
        let place = way.iter().position(|part| part.starts_with('-') || part.contains('%')).unwrap();
        // The first word after sshpass is another program.
        let before = if way[0] == "sshpass" { Vec::new() } else { before };
        let harmless = before.iter().flat_map(|&each| HARMLESS[each]).map(|&part| part.to_owned());
        // After the program's name, and before the first of its options.
        arguments.splice(place..place, harmless.collect::<Vec<_>>());
        let mut shown = given(&arguments, form);
        Redaction::default().arguments(&mut shown);
        prop_assert!(!shown.concat().contains("Zq"), "{shown:?}\n{:?}", given(&arguments, form));
        prop_assert!(shown.concat().contains(MARK), "{shown:?}");
    }
}

/// Such ways with texts of other kinds, in which a secret has to end somewhere.
const FIELDS: [&[&str]; 9] = [
    &["app", "{\"password\":\"%\",\"port\":80}"],
    &["app", "{\"password\": \"%\", \"port\": 80}"],
    &["app", "{\"password\" : \"%\"}"],
    &["app", "{\"secrets\":[\"a\",\"%\"]}"],
    &["app", "{\"secrets\": [\"a\", \"%\"]}"],
    &["curl", "-d", "user=me&user[password]=%&a=1"],
    &["curl", "https://h/?api_key=%&b=c"],
    &["app", "Server=h;Password=%;User=me"],
    &["python3", "-c", "password = \"%\"; run()"],
];

proptest! {
    #[test]
    fn no_field_survives(
        way in 0..FIELDS.len(),
        secret in "Zq[a-z0-9]{0,4}([-'/:@,|(){}=<>!%^*+.~_#$\\[\\]]{1,2}Zq[a-z0-9]{0,4}){0,4}(\"Zq)?",
    ) {
        let is_quoted = FIELDS[way].concat().contains('"');
        let secret = if is_quoted { secret.replace('"', "\\\"") } else { secret.replace('"', "") };
        let mut arguments: Vec<String> =
            FIELDS[way].iter().map(|part| part.replace('%', &secret)).collect();
        Redaction::default().arguments(&mut arguments);
        prop_assert!(!arguments.concat().contains("Zq"), "{arguments:?}");
        prop_assert!(arguments.concat().contains(MARK), "{arguments:?}");
    }
}

proptest! {
    #[test]
    fn secrets_with_spaces_and_quotes_do_not_survive(secret in "[a-z][a-z0-9 '\";&=:@/]{3,20}Zq") {
        for arguments in [
            vec!["app".to_owned(), format!("--password={secret}"), "-v".to_owned()],
            vec!["app".to_owned(), "--password".to_owned(), secret.clone(), "-v".to_owned()],
        ] {
            let mut arguments = arguments;
            Redaction::default().arguments(&mut arguments);
            prop_assert!(!arguments.concat().contains("Zq"), "{arguments:?}");
            prop_assert_eq!(arguments.last().map(String::as_str), Some("-v"));
        }
    }

    #[test]
    fn what_is_no_secret_stays(
        arguments in proptest::collection::vec(
            "(--(port|bind|config|data-dir|name|max-tokens|token-file)|-[a-zA-Z])(=[a-z0-9/.:]{0,12})?\
             |[a-z]{1,8}|/[a-z/.]{1,20}|[0-9.]{1,12}(:[0-9]{1,5})?|https?://[a-z.]{1,9}:[0-9]{1,5}/[a-z/]{0,9}",
            0..12,
        ),
    ) {
        prop_assume!(!arguments.iter().any(|word| word == "curl" || word.contains("mysql")));
        let mut shown = arguments.clone();
        Redaction::default().arguments(&mut shown);
        // Some words of eight letters are names of secrets; alone they have no effect.
        prop_assert_eq!(shown, arguments);
    }

    #[test]
    fn again_is_the_same(
        mut arguments in proptest::collection::vec(
            "[ -~]{0,40}|(--password|TOKEN|Authorization|url|mysql|-p)[=: ]{0,2}[ -~]{0,20}",
            0..6,
        ),
    ) {
        Redaction::default().arguments(&mut arguments);
        let once = arguments.clone();
        Redaction::default().arguments(&mut arguments);
        prop_assert_eq!(arguments, once);
    }

    #[test]
    fn any_text_is_read(mut arguments: Vec<String>) {
        Redaction::default().arguments(&mut arguments);
    }
}
