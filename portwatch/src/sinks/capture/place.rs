//! Checks where a capture's directory is. A user who may rename a directory above it may
//! replace it by another directory, or by a link to one, and root would write there.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, absolute},
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, open, openat},
    io::Errno,
    process::geteuid,
};

use super::CaptureError;

/// The mode of a directory that is created.
pub const PRIVATE: u32 = 0o700;

/// Opens a directory, but not a link to one. Returns whether the directory was created by this
/// call.
pub fn open_folder(path: &Path) -> Result<(OwnedFd, bool), CaptureError> {
    let io = |step| move |source| CaptureError::Io { step, path: path.to_owned(), source };
    let no = |step| move |errno: Errno| io(step)(errno.into());
    let whole = absolute(path).map_err(io("find"))?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(io("use")(io::ErrorKind::InvalidInput.into()));
    };
    // The path is checked as it is written, because any user may own a link in it, and then the
    // resolved path.
    nobody_replaces(path, parent)?;
    DirBuilder::new().recursive(true).mode(PRIVATE).create(parent).map_err(io("create"))?;
    let parent = fs::canonicalize(parent).map_err(io("find"))?;
    nobody_replaces(path, &parent)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = open(&parent, flags | OFlags::PATH, Mode::empty()).map_err(no("open"))?;
    let made = match mkdirat(&parent, name, Mode::from(PRIVATE)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(no("create")(errno)),
    };
    match openat(&parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(folder) => Ok((folder, made)),
        Err(Errno::LOOP | Errno::NOTDIR) if path.is_symlink() => {
            Err(CaptureError::Link(path.to_owned()))
        }
        Err(errno) => Err(no("open")(errno)),
    }
}

/// Checks that only root and this process's user can replace `parent` and everything above it.
fn nobody_replaces(path: &Path, parent: &Path) -> Result<(), CaptureError> {
    for above in parent.ancestors() {
        let why = match fs::symlink_metadata(above) {
            Ok(found) => replaced_by(&found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(CaptureError::Io { step: "inspect", path: above.to_owned(), source });
            }
        };
        if let Some(why) = why {
            let (path, above) = (path.to_owned(), above.to_owned());
            return Err(CaptureError::Replaceable { path, above, why });
        }
    }
    Ok(())
}

/// Returns which other users may rename entries of a directory, or have created a link.
fn replaced_by(found: &Metadata) -> Option<String> {
    const GROUP: u32 = 0o020;
    const OTHERS: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let owner = found.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("belongs to user {owner}"));
    }
    // A link has no permissions of its own. In a sticky directory users may rename only their
    // own entries.
    if !found.is_dir() || found.mode() & STICKY != 0 {
        return None;
    }
    let group = found.gid();
    if found.mode() & OTHERS != 0 {
        Some("is writable by every user".to_owned())
    } else if found.mode() & GROUP != 0 && group != 0 {
        Some(format!("is writable by group {group}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn refused(path: &Path) -> String {
        open_folder(path).map(drop).unwrap_err().to_string()
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = parent.path().join("capture");
        symlink(elsewhere.path(), &link).unwrap();
        assert!(refused(&link).contains("is a symbolic link"));
        fs::remove_file(&link).unwrap();
        symlink(elsewhere.path().join("not-there"), &link).unwrap();
        assert!(refused(&link).contains("is a symbolic link"));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        // One above it, which belongs to this user.
        let above = parent.path().join("above");
        symlink(elsewhere.path(), &above).unwrap();
        assert!(open_folder(&above.join("capture")).unwrap().1);
    }

    #[test]
    fn a_folder_that_others_may_rename_is_refused_wherever_above_it_they_may() {
        let parent = tempfile::tempdir().unwrap();
        let above = parent.path().join("above");
        let path = above.join("between/capture");
        fs::create_dir(&above).unwrap();
        for (mode, why) in [(0o777, "every user"), (0o707, "every user"), (0o770, "group 7")] {
            set(&above, mode);
            if why.starts_with("group") && chown(&above, None, Some(7)).is_err() {
                continue; // Only root may give it away.
            }
            let said = refused(&path);
            assert!(said.contains("above is writable by") && said.contains(why), "{said}");
            assert!(!above.join("between").exists(), "nothing is made there");
        }
        for mode in [0o755, 0o1777] {
            set(&above, mode);
            open_folder(&path).unwrap();
        }
        if chown(&above, Some(1000), None).is_ok() {
            assert!(refused(&path).contains("above belongs to user 1000"));
            // Through a link too, whoever has created it.
            let link = parent.path().join("link");
            symlink(&above, &link).unwrap();
            assert!(refused(&link.join("capture")).contains("above belongs to user 1000"));
        }
    }

    #[test]
    fn a_link_of_another_user_s_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        symlink("/", &link).unwrap();
        if std::os::unix::fs::lchown(&link, Some(1000), None).is_ok() {
            assert!(refused(&link.join("capture")).contains("link belongs to user 1000"));
        }
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for path in ["/", ".."] {
            assert!(refused(Path::new(path)).contains("failed to use"), "{path}");
        }
    }
}
