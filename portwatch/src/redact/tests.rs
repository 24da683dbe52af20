use super::*;

mod positions;
mod properties;

fn redacted(arguments: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.iter().map(|&part| part.to_owned()).collect();
    Redaction::default().arguments(&mut arguments);
    arguments
}

/// As a user would type it; the arguments contain no spaces.
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
        (
            "vault server -dev -dev-root-token-id=x",
            "vault server -dev -dev-root-token-id=[redacted]",
        ),
        ("traefik --basicauth.users=u:$apr1$x", "traefik --basicauth.users=u:[redacted]"),
        ("app --aws-access-key-id=AKIA --users=a:b", "app --aws-access-key-id=AKIA --users=a:b"),
        ("nginx -p /srv", "nginx -p /srv"),
        ("app --password --hunter2 -v", "app --password [redacted] -v"),
        ("app --token --X --port=80", "app --token [redacted] --port=80"),
        ("curl --user me:x http://h/", "curl --user me:[redacted] http://h/"),
        ("curl --proxy-user=me:x h", "curl --proxy-user=me:[redacted] h"),
        ("curl -U me:x -b sid=1 h", "curl -U [redacted] -b [redacted] h"),
        ("curl --cookie sid=1 h", "curl --cookie [redacted] h"),
        ("curl -b /tmp/jar h", "curl -b /tmp/jar h"),
        ("app --basic-auth u:p --auth u:x", "app --basic-auth u:[redacted] --auth [redacted]"),
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
        ("app smtp://me@x:b@h:25", "app smtp://me@x:[redacted]@h:25"),
        ("app --url=amqp://a:b@h", "app --url=amqp://a:[redacted]@h"),
        ("app http://h:80/@user ssh://git@h/x", "app http://h:80/@user ssh://git@h/x"),
        ("app http://[::1]:80/", "app http://[::1]:80/"),
        ("app https://h/?api_key=x&b=c", "app https://h/?api_key=[redacted]&b=c"),
        ("app Server=h;Password=x;User=me", "app Server=h;Password=[redacted];User=me"),
        ("app {\"password\":\"x\",\"port\":80}", "app {\"password\":\"[redacted]\",\"port\":80}"),
        ("app --key AKIAIOSFODNN7EXAMPLE", "app --key [redacted]"),
        ("app eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "app [redacted]"),
        ("app --id=ghp_0123456789abcdefghijklmn,x", "app --id=[redacted],x"),
        ("app Authorization:Bearer abc", "app Authorization:Bearer [redacted]"),
    ] {
        assert_eq!(line(typed), shown);
    }
    let header = redacted(&["curl", "-H", "Authorization: Basic bWU6eA==", "http://h"]);
    assert_eq!(header, ["curl", "-H", "Authorization: Basic [redacted]", "http://h"]);
    let header = redacted(&["curl", "-H", "X-Api-Key: x y", "http://h"]);
    assert_eq!(header[2], "X-Api-Key: [redacted]");
    let header = redacted(&["curl", "-H", "Cookie: a=1; b=2", "http://h"]);
    assert_eq!(header[2], "Cookie: [redacted]");
    let script = redacted(&["sh", "-c", "curl --user \"me:a b\" h; PGPASSWORD=x psql -U me"]);
    assert_eq!(script[2], "curl --user \"me:[redacted]\" h; PGPASSWORD=[redacted] psql -U me");
}

#[test]
fn scripts_and_titles_keep_their_other_words() {
    let script = "DB_PASSWORD='a b' mysql -pxyz; exec app --token=t --port 80 \"--secret=u v\" -q";
    let shown = "DB_PASSWORD='[redacted]' mysql -p[redacted]; exec app --token=[redacted] --port 80 \
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

/// A process may have any arguments within the limits of execve(2).
#[test]
fn no_text_takes_long() {
    // Of this thread only, so that other work on the machine does not count.
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let before = used();
    for part in [
        "://", "eyJ/", "sk-a/", "a:", "token=\"", "'", "a=", "://a:b@", "Bearer ", "@", "é",
        ";a:/@", "\\\"", "\\\\'\" ", ";token=", "token=[\"", "(", "a'b ", "password = ", "\"a 'b ",
        "mysql;-p",
    ] {
        let text = part.repeat(100_000 / part.len());
        for before in [&[] as &[&str], &["app"], &["sh", "-c"]] {
            let mut cmdline: Vec<_> = before.iter().map(|&part| part.to_owned()).collect();
            cmdline.push(text.clone());
            Redaction::default().arguments(&mut cmdline);
        }
    }
    let took = used() - before;
    assert!(took.tv_sec < 30, "{took:?}");
}

/// An argument applies to itself: neither its words nor those of a value make another program
/// of the one that is started.
#[test]
fn other_arguments_change_nothing() {
    for before in [
        &["curl", "-H", "Content-Type: application/json; charset=utf-8"] as &[&str],
        &["curl", "-A", "Mozilla/5.0 (X11; Linux x86_64)"],
        &["curl", "-o", "zip", "-d", "a && b | c"],
        &["curl", "https://api/login"],
        &["sudo", "-u", "net", "curl", "-o", "mongo"],
        &["timeout", "5", "curl", "-x", "login"],
        &["docker", "exec", "-it", "net", "curl", "-o", "zip"],
    ] {
        let shown = redacted(&[before, &["-u", "me:x", "h"]].concat());
        assert_eq!(shown, [before, &["-u", MARK, "h"]].concat());
    }
    for (typed, shown) in [
        ("redis-cli -h mongo -p 6379 -a x", "redis-cli -h mongo -p 6379 -a [redacted]"),
        ("mysql -h net -px", "mysql -h net -p[redacted]"),
        ("ssh net curl -u me:x h", "ssh net curl -u [redacted] h"),
        ("docker run --name mongo -p 80:80 i", "docker run --name mongo -p 80:80 i"),
        ("app --host mongo -p 80", "app --host mongo -p 80"),
        ("sshpass -p x ssh -p 22 h", "sshpass -p [redacted] ssh -p 22 h"),
        ("app http://h/login -p 80", "app http://h/login -p 80"),
    ] {
        assert_eq!(line(typed), shown);
    }
    let mysql = redacted(&["mysql", "-e", "select 1;", "-psecret"]);
    assert_eq!(mysql, ["mysql", "-e", "select 1;", "-p[redacted]"]);
    for (script, shown) in [
        ("mysql -px; app -p80", "mysql -p[redacted]; app -p80"),
        ("mysql $(echo a; echo b) -px", "mysql $(echo a; echo b) -p[redacted]"),
        ("mysql 2>&1 -px", "mysql 2>&1 -p[redacted]"),
        ("if true; then curl -su me:x; fi", "if true; then curl -su [redacted]; fi"),
        ("a;curl -u me:x", "a;curl -u [redacted]"),
        ("TOKEN=x;mysql -px", "TOKEN=[redacted];mysql -p[redacted]"),
    ] {
        assert_eq!(redacted(&["bash", "-o", "pipefail", "-c", script])[4], shown);
    }
}

#[test]
fn values_are_hidden_to_their_end() {
    for (arguments, shown) in [
        (&["docker", "run", "-e", "DB_PASSWORD=p&ss;x", "i"] as &[&str], "DB_PASSWORD=[redacted]"),
        (&["docker", "run", "-e", "PASSWORD=a b c", "i"], "PASSWORD=[redacted]"),
        (&["docker", "run", "--name", "node", "-e", "PASSWORD=a b", "i"], "PASSWORD=[redacted]"),
        (&["app", "--env=PASSWORD=a&b"], "--env=PASSWORD=[redacted]"),
        (&["app", "--from-literal=password=a&b c"], "--from-literal=password=[redacted]"),
        (&["mysql", "-pmy pass"], "-p[redacted]"),
        (&["sshpass", "-pa b"], "-p[redacted]"),
        (&["curl", "-ume:a b"], "-u[redacted]"),
        (&["sh", "-c", "mysql -p'a b' db"], "mysql -p'[redacted]' db"),
        (&["bash", "-lc", "curl -u 'me:a b;c' h"], "curl -u '[redacted]' h"),
        (&["app", "--password=--swordfish"], "--password=[redacted]"),
        (&["env", "TOKEN=--abc"], "TOKEN=[redacted]"),
        (&["curl", "-H", "Authorization: OAuth x"], "Authorization: [redacted]"),
        (&["curl", "-H", "Authorization: Bot x"], "Authorization: [redacted]"),
        (&["curl", "-H", "Proxy-Authorization: SSWS x"], "Proxy-Authorization: [redacted]"),
        (&["curl", "-H", "authorization:GenieKey x"], "authorization:[redacted]"),
        (&["curl", "-H", "Authorization: Api-Key x"], "Authorization: [redacted]"),
        (&["curl", "--header=Cookie: a=1; b=2"], "--header=Cookie: [redacted]"),
        (&["curl", "-HCookie: a=1; b=2"], "-HCookie: [redacted]"),
        (&["sh", "-c", "curl -H 'Cookie: a=1; b=2' h:80"], "curl -H 'Cookie: [redacted]' h:80"),
        (
            &["curl -H Cookie: a=1; b=2 -v http://h"],
            "curl -H Cookie: [redacted]; [redacted] -v http://h",
        ),
        (
            &["curl -H Authorization: Bot x http://h"],
            "curl -H Authorization: [redacted] [redacted] http://h",
        ),
        (&["app", "postgres://me:pa'ss@db/x"], "postgres://me:[redacted]@db/x"),
        (&["app", "postgres://me:pa\"s<s>@db"], "postgres://me:[redacted]@db"),
        (&["app", "{\"password\" : \"x\", \"a\": 1}"], "{\"password\" : \"[redacted]\", \"a\": 1}"),
        (&["app", "{\"secrets\":[\"a\",\"b\"],\"a\":1}"], "{\"secrets\":[redacted],\"a\":1}"),
        (
            &["app", "{\"secrets\": [\"a\", \"b\"], \"a\": 1}"],
            "{\"secrets\": [redacted], \"a\": 1}",
        ),
        (&["app", "{\"secrets\":[\"a\", \"b\"], \"a\": 1}"], "{\"secrets\":[redacted], \"a\": 1}"),
        (&["app", "{\"password\":\"a\\\"b\",\"a\":1}"], "{\"password\":\"[redacted]\",\"a\":1}"),
        (
            &["app", "{\"url\":\"redis://:x@h\",\"a\":\"b@c\"}"],
            "{\"url\":\"redis://:[redacted]@h\",\"a\":\"b@c\"}",
        ),
        (&["app", "[\"--token\", \"x\", \"-v\"]"], "[\"--token\", \"[redacted]\", \"-v\"]"),
        (&["python3", "-c", "password = 'a b'; run(80)"], "password = '[redacted]'; run(80)"),
        (&["perl", "-e", "my $token = \"a b\"; run"], "my $token = \"[redacted]\"; run"),
        (&["app", "port = 80 password = x"], "port = 80 password = [redacted]"),
        (
            &["mysql", "-e", "CREATE USER a IDENTIFIED BY 'x y'"],
            "CREATE USER a IDENTIFIED BY '[redacted]'",
        ),
        (&["app", "OPTS=--token x"], "OPTS=--token [redacted]"),
        (&["app", "Server=h;Password=a b;User=me"], "Server=h;Password=[redacted];User=me"),
        (&["curl", "-d", "user[password]=x"], "user[password]=[redacted]"),
        (&["curl", "-d", "a=1&user[password]=x&b=2"], "a=1&user[password]=[redacted]&b=2"),
    ] {
        let got = redacted(arguments);
        assert!(got.iter().any(|argument| argument == shown), "{got:?}, not {shown}");
    }
}

#[test]
fn letters_and_names() {
    for (typed, shown) in [
        ("curl -su me:x h", "curl -su [redacted] h"),
        ("curl -sSku me:x h", "curl -sSku [redacted] h"),
        ("curl -sSkume:x h", "curl -sSku[redacted] h"),
        ("curl -XPUT -ofuu -Huser h", "curl -XPUT -ofuu -Huser h"),
        ("ldapsearch -xw x -b dc=a", "ldapsearch -xw [redacted] -b dc=a"),
        ("docker login -px h", "docker login -p[redacted] h"),
        ("mongo -px h:27017", "mongo -p[redacted] h:27017"),
        ("mongodump -px", "mongodump -p[redacted]"),
        ("cqlsh -px", "cqlsh -p[redacted]"),
        ("7z a -tzip -spf -mx=9 -px a.zip", "7z a -tzip -spf -mx=9 -p[redacted] a.zip"),
        ("app --auth hunter2", "app --auth [redacted]"),
        ("app --auth none --http-auth=basic", "app --auth none --http-auth=basic"),
        ("nats-server --auth tok", "nats-server --auth [redacted]"),
        ("env REDIS_AUTH=x app", "env REDIS_AUTH=[redacted] app"),
        ("npm --_auth=base64", "npm --_auth=[redacted]"),
        ("app root:x@tcp(db:3306)/", "app root:[redacted]@tcp(db:3306)/"),
        ("app --dsn=root:p/a@b@tcp(db:3306)/x", "app --dsn=root:[redacted]@tcp(db:3306)/x"),
        ("curl --proxy u:p@h:80", "curl --proxy u:[redacted]@h:80"),
        ("gost -L=u:p@:8080", "gost -L=u:[redacted]@:8080"),
        ("app --dbpass x --adminpass=x", "app --dbpass [redacted] --adminpass=[redacted]"),
        ("app --authkey /x --pass-phrase x", "app --authkey [redacted] --pass-phrase [redacted]"),
        (
            "env SECRET_KEY_BASE=x APP_KEY=x a",
            "env SECRET_KEY_BASE=[redacted] APP_KEY=[redacted] a",
        ),
        ("env DB_PASSWORD_1=x TOKEN2=y a", "env DB_PASSWORD_1=[redacted] TOKEN2=[redacted] a"),
        ("mysqlcheck -px", "mysqlcheck -p[redacted]"),
        ("mariadb-backup -px", "mariadb-backup -p[redacted]"),
        ("mongostat -p x", "mongostat -p [redacted]"),
        ("redis-benchmark -p 6379 -a x", "redis-benchmark -p 6379 -a [redacted]"),
        ("snmpbulkget -v2c -c x h", "snmpbulkget -v2c -c [redacted] h"),
        ("tsql -P x", "tsql -P [redacted]"),
        ("ss-server -p 8388 -k x", "ss-server -p 8388 -k [redacted]"),
        ("microsocks -p 1080 -u me -P x", "microsocks -p 1080 -u me -P [redacted]"),
        ("ttyd -p 80 -c u:p bash", "ttyd -p 80 -c u:[redacted] bash"),
        ("turnserver -a -u bob:x -r org", "turnserver -a -u bob:[redacted] -r org"),
        ("gotty -w -c u:p bash", "gotty -w -c u:[redacted] bash"),
        ("miniserve -a u:p /srv", "miniserve -a u:[redacted] /srv"),
        ("frps -t x -p 7000", "frps -t [redacted] -p 7000"),
        ("k3s server -t x", "k3s server -t [redacted]"),
        ("consul agent -encrypt=QmFzZTY0a2V5", "consul agent -encrypt=[redacted]"),
        ("lftp -u u,p h", "lftp -u [redacted] h"),
        ("sqlplus -S u/p@d @/x/y.sql", "sqlplus -S u/[redacted]@d @/x/y.sql"),
        ("xfreerdp /u:me /p:x /v:h:3389", "xfreerdp /u:me /p:[redacted] /v:h:3389"),
        ("ab -n 9 -A u:p http://h:80/", "ab -n 9 -A u:[redacted] http://h:80/"),
    ] {
        assert_eq!(line(typed), shown);
    }
}

/// Arguments in which nothing is secret, whatever they look like.
#[test]
fn what_is_harmless_stays() {
    for typed in [
        "app --port 8080 --author x --config /etc/app.conf",
        "app http://host:8080/path@x https://h/login?next=/a:b@c",
        "git clone git@github.com:x/y ssh://git@h:22/x@v1",
        "docker run nginx:1.25@sha256:0123 registry.local:5000/a/b:1@sha256:01",
        "docker run -v data:/var/lib/@x -p 8080:80 --restart on-failure:3 nginx:alpine",
        "node file:/srv/node_modules/@scope/app npm:react@18",
        "app http://auth:8080/x http://token:80/ auth:9000 --upstream=auth:9000/y",
        "mail mailto:me@example.org",
        "systemd-run getty@tty1.service",
        "app --listen 127.0.0.1:80,[::1]:80 --bind=0.0.0.0:8443",
        "ssh -p 2222 -L 8080:db:5432 me@host",
        "rsync -e ssh me@h:/srv /srv",
        "java -agentlib:jdwp=transport=dt_socket,address=*:5005 -jar a.jar",
        "app --compass north --http2 --multipass x --keyfile /k --key-file=/k",
        "curl -sSkL -o /dev/null -w %{http_code} http://h:80",
        "mysql -u root -h db -P 3306 -e x",
        "postgres -D /var/lib/postgresql/data -c port=5432",
        "nginx: worker process",
    ] {
        assert_eq!(line(typed), typed);
        assert_eq!(redacted(&[typed]), [typed]);
        assert_eq!(redacted(&["sh", "-c", typed])[2], typed);
    }
    let text = "it's -- a 'quoted text' with \"port\": 80, and so (on); more";
    for arguments in [&[text] as &[&str], &["app", text], &["sh", "-c", text], &["app", "-e", text]]
    {
        assert_eq!(redacted(arguments), arguments);
    }
}
