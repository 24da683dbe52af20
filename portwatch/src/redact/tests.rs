use proptest::prelude::*;

use super::*;

fn redacted(arguments: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.iter().map(|&part| part.to_owned()).collect();
    Redaction::default().arguments(&mut arguments);
    arguments
}

/// As one would type it; the arguments have no spaces in them.
fn line(text: &str) -> String {
    redacted(&text.split(' ').collect::<Vec<_>>()).join(" ")
}

#[test]
fn options_and_variables() {
    for (typed, shown) in [
        ("app --password=hunter2 -v", "app --password=[redacted] -v"),
        ("app --password hunter2 -v", "app --password [redacted] -v"),
        ("app -token hunter2", "app -token [redacted]"),
        ("env TOKEN=hunter2 app", "env TOKEN=[redacted] app"),
        ("env DB_PASSWORD=a&b;c app", "env DB_PASSWORD=[redacted] app"),
        (
            "java -Dssl.keyStorePassword=x -jar a.jar",
            "java -Dssl.keyStorePassword=[redacted] -jar a.jar",
        ),
        (
            "redis-server --requirepass x --port 80",
            "redis-server --requirepass [redacted] --port 80",
        ),
        ("mysql -u root -phunter2 db", "mysql -u root -p[redacted] db"),
        ("mysql -p db", "mysql -p db"),
        ("sudo /usr/bin/sshpass -p x ssh h", "sudo /usr/bin/sshpass -p [redacted] ssh h"),
        ("redis-cli -a x ping", "redis-cli -a [redacted] ping"),
        ("curl -u me:x http://h/", "curl -u [redacted] http://h/"),
        ("mongod --auth --port 80", "mongod --auth --port 80"),
        ("app --password --verbose", "app --password --verbose"),
        ("nginx -p /srv", "nginx -p /srv"),
        ("app --password --hunter2 -v", "app --password [redacted] -v"),
        ("app --token --X --port=80", "app --token [redacted] --port=80"),
        ("curl --user me:x http://h/", "curl --user me:[redacted] http://h/"),
        ("curl --proxy-user=me:x h", "curl --proxy-user=me:[redacted] h"),
        ("curl -U me:x -b sid=1 h", "curl -U [redacted] -b [redacted] h"),
        ("curl --cookie sid=1 h", "curl --cookie [redacted] h"),
        ("curl -b /tmp/jar h", "curl -b /tmp/jar h"),
        ("app --basic-auth u:p --auth u:x", "app --basic-auth u:[redacted] --auth u:[redacted]"),
        ("app --ldap-bindpw x --pin 1234", "app --ldap-bindpw [redacted] --pin [redacted]"),
        ("ldapsearch -x -w x -b dc=a", "ldapsearch -x -w [redacted] -b dc=a"),
        ("smbclient //h/s -U me%x -c ls", "smbclient //h/s -U me%[redacted] -c ls"),
        ("smbclient //h/s -U me", "smbclient //h/s -U me"),
        ("docker login -u me -p x h", "docker login -u me -p [redacted] h"),
        ("docker run --user 1000:1000 -p 80:80 i", "docker run --user 1000:1000 -p 80:80 i"),
        ("docker run -e MYSQL_ROOT_PASSWORD=x i", "docker run -e MYSQL_ROOT_PASSWORD=[redacted] i"),
        ("app --user www-data --login", "app --user www-data --login"),
        ("kubectl --from-literal=password=x", "kubectl --from-literal=password=[redacted]"),
        ("openssl -passin pass:x -in a.pem", "openssl -passin pass:[redacted] -in a.pem"),
        ("keytool --key-pass x", "keytool --key-pass [redacted]"),
        ("redis-server --masterauth x", "redis-server --masterauth [redacted]"),
        ("wget --http-password x h", "wget --http-password [redacted] h"),
        ("http -a me:x h", "http -a me:[redacted] h"),
        ("snmpwalk -v2c -c x h", "snmpwalk -v2c -c [redacted] h"),
        ("sshpass -px ssh h", "sshpass -p[redacted] ssh h"),
        ("app Name=a;AccountKey=/ab+c==;X=1", "app Name=a;AccountKey=[redacted];X=1"),
        ("env AWS_SECRET_ACCESS_KEY=/ab app", "env AWS_SECRET_ACCESS_KEY=[redacted] app"),
        ("app --cpu-pin 3 --spin 4", "app --cpu-pin 3 --spin 4"),
    ] {
        assert_eq!(line(typed), shown);
    }
}

#[test]
fn urls_headers_and_tokens() {
    for (typed, shown) in [
        ("app postgres://me:hunter2@db:5432/x?a=b", "app postgres://me:[redacted]@db:5432/x?a=b"),
        ("app redis://:h@nter2@db/0", "app redis://:[redacted]@db/0"),
        ("app mongodb://a:b@h1:1,h2:2/db", "app mongodb://a:[redacted]@h1:1,h2:2/db"),
        ("app --url=amqp://a:b@h", "app --url=amqp://a:[redacted]@h"),
        ("app http://h:80/@user ssh://git@h/x", "app http://h:80/@user ssh://git@h/x"),
        ("app http://[::1]:80/", "app http://[::1]:80/"),
        ("app https://h/?api_key=x&b=c", "app https://h/?api_key=[redacted]&b=c"),
        ("app Server=h;Password=x;User=me", "app Server=h;Password=[redacted];User=me"),
        ("app {\"password\":\"x\",\"port\":80}", "app {\"password\":\"[redacted]\",\"port\":80}"),
        ("app --key AKIAIOSFODNN7EXAMPLE", "app --key [redacted]"),
        ("app eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "app [redacted]"),
        ("app --id=ghp_0123456789abcdefghijklmn,x", "app --id=[redacted],x"),
        ("app Authorization:Bearer abc", "app Authorization:[redacted] [redacted]"),
    ] {
        assert_eq!(line(typed), shown);
    }
    let header = redacted(&["curl", "-H", "Authorization: Basic bWU6eA==", "http://h"]);
    assert_eq!(header, ["curl", "-H", "Authorization: Basic [redacted]", "http://h"]);
    let header = redacted(&["curl", "-H", "X-Api-Key: x y", "http://h"]);
    assert_eq!(header[2], "X-Api-Key: [redacted] y");
    let header = redacted(&["curl", "-H", "Cookie: a=1; b=2", "http://h"]);
    assert_eq!(header[2], "Cookie: [redacted]");
    let script = redacted(&["sh", "-c", "curl --user \"me:a b\" h; PGPASSWORD=x psql -U me"]);
    assert_eq!(script[2], "curl --user \"me:[redacted]\" h; PGPASSWORD=[redacted] psql -U me");
}

#[test]
fn scripts_and_titles_keep_their_other_words() {
    let script = "DB_PASSWORD='a b' mysql -pxyz; exec app --token=t --port 80 \"--secret=u v\" -q";
    let shown = "DB_PASSWORD='[redacted]' mysql -p[redacted] exec app --token=[redacted] --port 80 \
                 \"--secret=[redacted]\" -q";
    let got = redacted(&["sh", "-c", script]);
    assert_eq!(got[2], shown);
    assert_eq!(
        redacted(&["app: --password x --port 80"]),
        ["app: --password [redacted] --port 80"]
    );
    assert_eq!(redacted(&["app", "--password=a b c"])[1], "--password=[redacted]");
    assert_eq!(redacted(&["app", "--password", "a b c"])[2], "[redacted]");
}

#[test]
fn further_patterns_take_their_group_or_all() {
    let pattern = |text| Regex::new(text).unwrap();
    let redaction = Redaction::with(vec![pattern("pin ([0-9]+)x"), pattern("^zebra$")]);
    let mut arguments = ["app pin 123x".to_owned(), "zebra".to_owned(), "--token=1".to_owned()];
    redaction.arguments(&mut arguments);
    assert_eq!(arguments, ["app pin [redacted]x", "[redacted]", "--token=[redacted]"]);
}

#[test]
fn two_instances_with_different_secrets_are_the_same_command() {
    let with = |secret: &str| {
        let mut cmdline = vec!["app".to_owned(), format!("--token={secret}")];
        Redaction::default().arguments(&mut cmdline);
        cmdline
    };
    assert_eq!(with("one"), with("two"));
}

/// A process may have any arguments, as long as execve(2) lets them be.
#[test]
fn no_text_takes_long() {
    let begun = std::time::Instant::now();
    for part in
        ["://", "eyJ/", "sk-a/", "a:", "token=\"", "'", "a=", "://a:b@", "Bearer ", "@", "é"]
    {
        let mut cmdline = [part.repeat(100_000 / part.len()), "x".to_owned()];
        Redaction::default().arguments(&mut cmdline);
        Redaction::default().arguments(&mut cmdline[..1]);
    }
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(30), "{took:?}");
}

/// Ways to give a secret, its place marked.
const WAYS: [&[&str]; 26] = [
    &["curl", "--user", "me:@", "h"],
    &["curl", "--proxy-user=me:@", "h"],
    &["smbclient", "-U", "me%@"],
    &["ldapsearch", "-w", "@"],
    &["sh", "-c", "curl --user me:@ h"],
    &["app", "--password", "--@"],
    &["app", "--password=@", "-v"],
    &["app", "--client-secret", "@", "-v"],
    &["app", "-password", "@"],
    &["env", "API_KEY=@", "app"],
    &["env", "AWS_SECRET_ACCESS_KEY=@", "app"],
    &["sh", "-c", "TOKEN=@ app --port 80"],
    &["sh", "-c", "TOKEN='@' app --port 80"],
    &["sh", "-c", "app --token @ --port 80"],
    &["sh", "-c", "app --token \"@\" --port 80"],
    &["app --password=@ --port 80"],
    &["app --password @ --port 80"],
    &["curl", "-H", "Authorization: Bearer @"],
    &["curl", "-H", "Authorization: @"],
    &["curl", "-H", "X-Auth-Token: @"],
    &["mysql", "-p@"],
    &["app", "postgres://me:@@db:5432/x"],
    &["app", "--db=postgres://me:@@db/x", "--port=80"],
    &["app", "{\"password\":\"@\"}"],
    &["app", "{\"password\": \"@\", \"port\": 80}"],
    &["app", "-Dapp.db.password=@"],
];

proptest! {
    #[test]
    fn no_secret_survives(way in 0..WAYS.len(), secret in "[A-Za-z][A-Za-z0-9!%^*+.~_#$-]{7,30}") {
        let secret = format!("{secret}Zq");
        let mut arguments: Vec<String> = WAYS[way]
            .iter()
            // The first of two in a URL is the secret's place.
            .map(|part| part.replacen('@', &secret, 1))
            .collect();
        Redaction::default().arguments(&mut arguments);
        let shown = arguments.join(" ");
        prop_assert!(!shown.contains(&secret[2..]), "{shown}");
        prop_assert!(shown.contains(MARK), "{shown}");
    }

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
        // Some words of eight letters are names of secrets; by themselves they say nothing.
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
