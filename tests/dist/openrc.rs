//! The apk's service, started and stopped by OpenRC itself. No Alpine is at hand: it is Debian's
//! OpenRC, unpacked, in a root that is this machine's with the package over it.

use std::{env, path::PathBuf, process::Command};

use portwatch_tests::skip::skip;

use super::{dist, file, own, run};

/// Makes the root in a mount namespace, and starts `SCRIPT` in it. Directories of the unpacked
/// packages must not hide the links of a merged /usr.
const PREPARE: &str = r#"
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$1 openrc=$2 apk=$3
mount -t tmpfs none "$folder"
cd "$folder"
mkdir over upper work root
cp --archive "$openrc/." over
for part in bin sbin lib; do
    [ -d "over/$part" ] || continue
    mkdir -p "over/usr/$part"
    cp --archive "over/$part/." "over/usr/$part"
    rm -r "over/$part"
done
tar --extract --ignore-zeros --warning=no-unknown-keyword --file "$apk" --directory over
mount -t overlay overlay -o "lowerdir=over:/,upperdir=upper,workdir=work" root
cd root
for part in run tmp; do mount -t tmpfs none "$part"; done
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
# What openrc(8) makes when it boots.
for state in starting started stopping inactive failed daemons options exclusive init.d; do
    mkdir -p "run/openrc/$state"
done
touch run/openrc/softlevel etc/insserv.conf
# It would make control groups of the host.
echo rc_cgroup_mode=legacy >>etc/rc.conf
exec chroot . /bin/sh -c "$SCRIPT"
"#;

/// The service's life. The capture has what the agent reports.
const SCRIPT: &str = r#"
exec 2>&1
has_started() {
    for round in $(seq 600); do
        grep -qs '"state":"started"' /var/lib/portwatch/*.jsonl && return
        sleep 0.1
    done
    echo "no agent has started"
    exit 1
}
rc-update add portwatch default
rc-service portwatch start
has_started
stat --format='%a %n' /var/lib/portwatch /run/portwatch
rc-service portwatch status
one=$(pgrep --exact portwatch)
rc-service portwatch reload
[ "$(pgrep --exact portwatch)" = "$one" ] && echo "the same agent"
rc-service portwatch stop
portwatch replay /var/lib/portwatch --format json | grep -o '"state":"stopped"'
pgrep --exact portwatch || echo "no agent"
rc-service portwatch start
has_started
sh /.pre-deinstall
pgrep --exact portwatch || echo "no agent"
rc-update show default
echo "the end"
"#;

#[test]
fn openrc_starts_and_stops_the_service() {
    let Some(dist) = dist() else { return };
    let Some((_, name)) = own(&dist) else { return skip("dist", "a binary for this machine") };
    let openrc = PathBuf::from(env::var_os("PORTWATCH_OPENRC").expect("OpenRC is unpacked"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", PREPARE, "sh"]);
    command.arg(folder.path()).arg(openrc).arg(file(&dist, &format!("_{name}.apk")));
    let said = run(command.env("SCRIPT", SCRIPT));
    for part in [
        "service portwatch added to runlevel default",
        "700 /var/lib/portwatch",
        "700 /run/portwatch",
        "status: started",
        "the same agent",
        r#""state":"stopped""#,
        "no agent",
        "the end",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches("no agent").count(), 2, "{said}");
    assert!(!said.contains("portwatch |"), "still in its runlevel: {said}");
}
