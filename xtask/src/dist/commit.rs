//! The commit that is built. Its time is the time of all files.

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;

use crate::{quietly, root};

/// A commit of this checkout.
pub struct Commit {
    /// Its whole hash, with `-dirty` after it if a file differs.
    pub hash: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// The same, as RFC 3339 writes it.
    pub date: String,
    /// A file that differs from it, as `git status` says it.
    pub change: Option<String>,
}

impl Commit {
    /// Returns the one that is checked out. In a tree without git its time is
    /// `SOURCE_DATE_EPOCH`, or else now.
    pub fn current() -> anyhow::Result<Self> {
        let Ok(line) = git(&["log", "-1", "--format=%H %ct"]) else {
            let time = match env::var("SOURCE_DATE_EPOCH") {
                Ok(time) => time.parse().context("SOURCE_DATE_EPOCH")?,
                Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            };
            let change = Some("this is no checkout of git".to_owned());
            return Ok(Self { hash: "unknown".to_owned(), time, date: date(time)?, change });
        };
        let (hash, time) = line.trim().split_once(' ').context("git names no commit")?;
        let time = time.parse().context("git names no time")?;
        let change = git(&["status", "--porcelain"])?.lines().next().map(str::to_owned);
        let mark = if change.is_some() { "-dirty" } else { "" };
        Ok(Self { hash: format!("{hash}{mark}"), time, date: date(time)?, change })
    }

    /// Writes its files into a new directory, which is a checkout too.
    pub fn check_out(&self, folder: &Path) -> anyhow::Result<()> {
        // git clone rejects a repository of another user, even with safe.directory=*.
        let bundle = folder.with_extension("bundle");
        let path = |path: &Path| path.display().to_string();
        git(&["bundle", "create", "--quiet", &path(&bundle), "HEAD"])?;
        let fetched = [
            &["init", "--quiet", &path(folder)][..],
            &["-C", &path(folder), "fetch", "--quiet", &path(&bundle), "HEAD"],
            &["-C", &path(folder), "checkout", "--quiet", "--detach", &self.hash],
        ]
        .iter()
        .try_for_each(|args| git(args).map(drop));
        fs::remove_file(&bundle).ok();
        fetched
    }
}

fn date(time: u64) -> anyhow::Result<String> {
    let at = format!("--date=@{time}");
    Ok(quietly(Command::new("date").args(["--utc", &at, "+%FT%TZ"]))?.trim().to_owned())
}

/// This program is code of the checkout itself, so git need not guard against who owns it.
fn git(args: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    quietly(git.args(["-c", "safe.directory=*"]).args(args).current_dir(root()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        assert_eq!(date(1_796_078_880).unwrap(), "2026-11-30T22:48:00Z");
    }
}
