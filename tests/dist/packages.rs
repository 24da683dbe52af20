//! The packages: the same files in each, and an rpm in a directory of its own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use portwatch_tests::skip::skip;

use super::{arches, dist, file, output, own, run};

/// What each package must have; the deb has all else as well (portwatch-tests' guest).
const SAME: [&str; 10] = [
    "/etc/portwatch/config.toml",
    "/usr/bin/portwatch",
    "/usr/lib/systemd/catalog/portwatch.catalog",
    "/usr/lib/systemd/system/portwatch.service",
    "/usr/share/bash-completion/completions/portwatch",
    "/usr/share/doc/portwatch/LICENSE-GPL-2.0",
    "/usr/share/doc/portwatch/THIRD-PARTY.txt",
    "/usr/share/fish/vendor_completions.d/portwatch.fish",
    "/usr/share/man/man1/portwatch.1.gz",
    "/usr/share/zsh/site-functions/_portwatch",
];

/// What belongs to one format only.
const OWN: [&str; 3] = [
    "/usr/share/zsh/vendor-completions/_portwatch",
    "/usr/share/doc/portwatch/copyright",
    "/etc/init.d/portwatch",
];

/// The files in a list of paths, without directories, with a slash before each.
fn files(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter(|line| !line.ends_with('/'))
        .map(|line| format!("/{}", line.trim_start_matches("./").trim_start_matches('/')))
        .filter(|path| path.starts_with("/usr/") || path.starts_with("/etc/"))
        .collect()
}

/// What tar prints about Arch's package for an architecture.
fn of_arch(dist: &Path, name: &str, verb: &str, member: Option<&str>) -> String {
    let mut unpacked = tempfile::NamedTempFile::new().unwrap();
    let package = File::open(file(dist, &format!("-{name}.pkg.tar.zst"))).unwrap();
    zstd::stream::copy_decode(package, &mut unpacked).unwrap();
    run(Command::new("tar").arg(verb).arg("-f").arg(unpacked.path()).args(member))
}

#[test]
fn every_package_has_the_same_files() {
    let Some(dist) = dist() else { return };
    for (debian, name) in arches(&dist) {
        let deb = file(&dist, &format!("_{debian}.deb"));
        let archive = run(Command::new("sh")
            .args(["-c", "dpkg-deb --fsys-tarfile \"$0\" | tar -t"])
            .arg(&deb));
        let rpm = file(&dist, &format!(".{name}.rpm"));
        let listed = "--queryformat=[%{FILEMODES:perms} %{FILENAMES}\n]";
        let rpm = run(Command::new("rpm").args(["--query", listed, "--package"]).arg(rpm));
        let rpm: String = rpm
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(mode, _)| !mode.starts_with('d'))
            .map(|(_, path)| format!("{path}\n"))
            .collect();
        let apk = file(&dist, &format!("_{name}.apk"));
        // Two archives, one after the other.
        let apk = run(Command::new("tar").args(["-tz", "--ignore-zeros", "-f"]).arg(apk));
        let arch = of_arch(&dist, name, "-t", None);
        let expected = files(&archive);
        for path in SAME {
            assert!(expected.contains(path), "{path} is not in the deb of {debian}");
        }
        let common = |list: &str| -> BTreeSet<_> {
            files(list).into_iter().filter(|path| !OWN.contains(&path.as_str())).collect()
        };
        for (format, list) in [("rpm", rpm), ("apk", apk), ("Arch", arch)] {
            assert_eq!(common(&list), common(&archive), "{format} of {debian}");
        }
    }
}

#[test]
fn each_package_names_its_architecture_and_keeps_settings() {
    let Some(dist) = dist() else { return };
    for (debian, name) in arches(&dist) {
        let deb = file(&dist, &format!("_{debian}.deb"));
        let field = |field: &str| {
            run(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(field)).trim().to_owned()
        };
        assert_eq!(field("Architecture"), debian);
        assert_eq!(field("Depends"), "");
        let settings = run(Command::new("dpkg-deb").arg("--info").arg(&deb).arg("conffiles"));
        assert_eq!(settings.trim(), "/etc/portwatch/config.toml");
        let rpm = file(&dist, &format!(".{name}.rpm"));
        let query =
            |what: &str| run(Command::new("rpm").args(["--query", what, "--package"]).arg(&rpm));
        assert_eq!(query("--queryformat=%{ARCH}"), name);
        assert_eq!(query("--configfiles").trim(), "/etc/portwatch/config.toml");
        assert!(query("--scripts").contains("preset portwatch.service"));
        let apk = file(&dist, &format!("_{name}.apk"));
        let about = ["-xzO", "--ignore-zeros", "--occurrence=1", "-f"];
        let about = run(Command::new("tar").args(about).arg(apk).arg(".PKGINFO"));
        assert!(about.lines().any(|line| line == format!("arch = {name}")), "{about}");
        let about = of_arch(&dist, name, "-xO", Some(".PKGINFO"));
        for line in [format!("arch = {name}"), "backup = etc/portwatch/config.toml".to_owned()] {
            assert!(about.lines().any(|it| it == line), "{line}: {about}");
        }
        assert!(!about.contains("Unknown"), "{about}");
    }
}

/// Without a Fedora at hand: into a directory, with rpm's own database there. Its scripts need a
/// shell, so they run on their own below.
#[test]
fn the_rpm_is_installed_verified_and_removed() {
    let Some(dist) = dist() else { return };
    let Some((_, name)) = own(&dist) else { return skip("dist", "a binary for this machine") };
    let root = tempfile::tempdir().unwrap();
    let rpm = |args: &[&str]| {
        let mut command = Command::new("rpm");
        command.arg("--root").arg(root.path()).args(args);
        command
    };
    let package = file(&dist, &format!(".{name}.rpm"));
    let package = package.to_str().unwrap();
    run(&mut rpm(&["--initdb"]));
    run(&mut rpm(&["--install", "--nodeps", "--noscripts", package]));
    // Nothing differs from what the package says: sizes, sums, modes, owners.
    assert_eq!(run(&mut rpm(&["--verify", "--nodeps", "--noscripts", "portwatch"])), "");
    let binary = root.path().join("usr/bin/portwatch");
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o7777, 0o755);
    let version =
        run(Command::new("chroot").arg(root.path()).args(["/usr/bin/portwatch", "--version"]));
    assert!(version.starts_with("portwatch "), "{version}");
    fs::write(root.path().join("etc/portwatch/config.toml"), "format = [\"json\"]\n").unwrap();
    run(&mut rpm(&["--erase", "--noscripts", "portwatch"]));
    assert!(!binary.exists());
    // Settings that were changed are kept, and no other trace of it.
    assert!(root.path().join("etc/portwatch/config.toml.rpmsave").exists());
    assert!(!root.path().join("usr/share/doc/portwatch").exists());
}

/// The scripts succeed on a machine without systemd, and call it with what they should otherwise.
#[test]
fn the_scripts_of_the_rpm_call_systemd() {
    let root = tempfile::tempdir().unwrap();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/rpm");
    let calls = root.path().join("calls");
    for program in ["systemctl", "journalctl"] {
        let path = root.path().join(program);
        fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >>\"$CALLS\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // In a mount namespace whose /run says whether systemd runs.
    let script = |name: &str, versions_left: &str, path: &str, run: &str| -> Vec<String> {
        fs::write(&calls, "").unwrap();
        let own_run =
            "mount -t tmpfs none /run && mkdir -p \"$0\" && PATH=$1 && exec /bin/sh \"$2\" \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", own_run, run, path]);
        command.arg(packaging.join(name)).arg(versions_left).env("CALLS", &calls);
        let output = output(&mut command);
        assert!(output.status.success(), "{name} {versions_left}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        fs::read_to_string(&calls).unwrap().lines().map(str::to_owned).collect()
    };
    let path = root.path().to_str().unwrap();
    let running = |name: &str, left: &str| script(name, left, path, "/run/systemd/system");
    let preset = "systemctl --no-reload preset portwatch.service";
    let reload = ["systemctl daemon-reload", "journalctl --update-catalog"];
    assert_eq!(running("post", "1"), [&[preset], &reload[..]].concat());
    assert_eq!(running("post", "2"), reload);
    assert_eq!(running("preun", "0"), ["systemctl --no-reload disable --now portwatch.service"]);
    assert_eq!(running("preun", "1"), [""; 0]);
    assert_eq!(running("postun", "0"), reload[..1]);
    let restart = "systemctl try-restart portwatch.service";
    assert_eq!(running("postun", "1"), [reload[0], restart]);
    // In an image that is being built, systemd is there and does not run.
    let built = |name: &str, left: &str| script(name, left, path, "/run/lock");
    assert_eq!(built("post", "1"), [preset]);
    assert_eq!(built("preun", "0"), ["systemctl --no-reload disable portwatch.service"]);
    assert_eq!(built("postun", "1"), [""; 0]);
    for (name, left) in [("post", "1"), ("preun", "0"), ("postun", "1")] {
        assert_eq!(script(name, left, "/nonexistent", "/run/lock"), [""; 0]);
    }
}
