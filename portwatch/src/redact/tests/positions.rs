//! Secrets that are recognized by their position.

use super::{line, redacted};

#[test]
fn secrets_by_their_place() {
    for (typed, shown) in [
        ("isql dsn me x", "isql dsn me [redacted]"),
        ("isql -v dsn me x", "isql -v dsn me [redacted]"),
        ("isql dsn", "isql dsn"),
        ("sudo isql dsn me x -b", "sudo isql dsn me [redacted] -b"),
        ("htpasswd -b /etc/users me x", "htpasswd -b /etc/users me [redacted]"),
        ("htpasswd -cbB /etc/users me x", "htpasswd -cbB /etc/users me [redacted]"),
        ("htpasswd -nb me x", "htpasswd -nb me [redacted]"),
        ("htpasswd -n -b me x", "htpasswd -n -b me [redacted]"),
        ("htpasswd /etc/users me", "htpasswd /etc/users me"),
        ("docker exec web htpasswd -nb me x", "docker exec web htpasswd -nb me [redacted]"),
        (
            "mysqladmin -u root -px password y",
            "mysqladmin -u root -p[redacted] password [redacted]",
        ),
        ("mysqladmin -u root -h db status", "mysqladmin -u root -h db status"),
        ("openssl passwd -6 x", "openssl passwd -6 [redacted]"),
        ("openssl x509 -in a.pem -noout", "openssl x509 -in a.pem -noout"),
        ("mkpasswd -m sha-512 x", "mkpasswd -m [redacted] [redacted]"),
        ("wpa_passphrase net x", "wpa_passphrase net [redacted]"),
        ("nmcli dev wifi connect net password x", "nmcli dev wifi connect net password [redacted]"),
        ("ipmitool user set password 2 x", "ipmitool user set password 2 [redacted]"),
        ("rabbitmqctl add_user me x", "rabbitmqctl add_user me [redacted]"),
        ("rabbitmqctl list_users name", "rabbitmqctl list_users name"),
        ("docker run --name isql -p 80:80 i", "docker run --name isql -p 80:80 i"),
        ("echo a:b", "echo a:b"),
    ] {
        assert_eq!(line(typed), shown);
    }
    for (program, script, shown) in [
        ("sh", "echo 'root:a b' | chpasswd; run", "echo '[redacted]' | chpasswd; run"),
        ("sh", "echo x|passwd --stdin me", "echo [redacted]|passwd --stdin me"),
        ("bash", "printf %s x | sudo -S id", "printf [redacted] [redacted] | sudo -S id"),
        ("sh", "echo started; exec app 80", "echo started; exec app 80"),
        ("sh", "htpasswd -bc f me x && nginx", "htpasswd -bc f me [redacted] && nginx"),
        ("sh", "isql dsn me x; ls a b c", "isql dsn me [redacted]; ls a b c"),
        (
            "expect",
            "spawn ssh h; expect assword; send \"a b\\r\"; interact",
            "spawn ssh h; expect assword; send \"[redacted]\"; interact",
        ),
    ] {
        assert_eq!(redacted(&[program, "-c", script])[2], shown);
    }
    let remote = redacted(&["ssh", "h", "echo root:x | chpasswd && reboot"]);
    assert_eq!(remote[2], "echo [redacted] | chpasswd && reboot");
}
