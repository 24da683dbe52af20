//! The commit that is built. Its time is the time of all files.

use std::process::Command;

use anyhow::Context as _;

use crate::{quietly, root};

/// A commit of this checkout.
pub struct Commit {
    /// Its whole hash.
    pub hash: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// The same, as RFC 3339 writes it.
    pub date: String,
    /// A file that differs from it, as `git status` says it.
    pub change: Option<String>,
}

impl Commit {
    /// The one that is checked out.
    pub fn current() -> anyhow::Result<Self> {
        let format = ["--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%H %ct %cd"];
        let line = git(&[&["log", "-1"][..], &format].concat())?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("git names no commit");
        let (hash, time, date) = (word()?.to_owned(), word()?.parse()?, word()?.to_owned());
        let change = git(&["status", "--porcelain"])?.lines().next().map(str::to_owned);
        Ok(Self { hash, time, date, change })
    }
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    quietly(Command::new("git").args(args).current_dir(root()).env("TZ", "UTC"))
}
