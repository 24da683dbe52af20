//! The running kernel.

/// Returns whether its version is this or a later one.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().expect("a release is text");
    version(release) >= (major, minor)
}

/// Returns whether it is locked down in this mode (kernel_lockdown(7)).
#[must_use]
pub fn is_locked_down(mode: &str) -> bool {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    modes.contains(&format!("[{mode}]"))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("5.10.0-39-cloud-amd64"), (5, 10));
        assert!(version("6.12.1") > version("6.2-rc1"));
    }
}
