//! Selects the failed binds that are reported.

use std::num::NonZeroU16;

use super::Settings;
use crate::{evidence::Process, values::Glob};

/// Why a failed bind is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Ignored {
    /// Because of its port.
    Port,
    /// Because of the failing process's unit.
    Unit,
}

/// What is reported; by default all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    ports: Vec<NonZeroU16>,
    ignored_ports: Vec<NonZeroU16>,
    units: Vec<Glob>,
    ignored_units: Vec<Glob>,
}

impl Filter {
    /// Creates the filter of the settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            ports: settings.port.clone(),
            ignored_ports: settings.ignore_port.clone(),
            units: settings.unit.clone(),
            ignored_units: settings.ignore_unit.clone(),
        }
    }

    /// Returns whether failed binds on a port are reported.
    pub fn wants_port(&self, port: u16) -> bool {
        let among = |ports: &[NonZeroU16]| ports.iter().any(|one| one.get() == port);
        (self.ports.is_empty() || among(&self.ports)) && !among(&self.ignored_ports)
    }

    /// Returns whether a process's failed binds are reported. A process without a unit matches
    /// no unit.
    pub fn wants_process(&self, process: &Process) -> bool {
        let among = |globs: &[Glob]| globs.iter().any(|glob| is_of(process, glob));
        (self.units.is_empty() || among(&self.units)) && !among(&self.ignored_units)
    }
}

/// Returns whether `glob` matches the unit of a process. Users choose the names of their units,
/// so a user's unit matches only with its manager before it: `user@1000.service/web.service`.
/// No unit has a slash in its name.
fn is_of(process: &Process, glob: &Glob) -> bool {
    let Some(unit) = process.unit.as_deref() else { return false };
    match (process.unit_owner, glob.has('/')) {
        (None, false) => glob.matches(unit),
        (Some(uid), true) => glob.matches(&format!("user@{uid}.service/{unit}")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layer;

    fn filter(said: Layer) -> Filter {
        Filter::new(&Settings::from(said))
    }

    #[test]
    fn by_port() {
        let ports = |ports: &[u16]| {
            Some(ports.iter().map(|&port| NonZeroU16::new(port).unwrap()).collect::<Vec<_>>())
        };
        assert!(filter(Layer::default()).wants_port(80));
        let only = filter(Layer { port: ports(&[80, 443]), ..Layer::default() });
        assert!(only.wants_port(443) && !only.wants_port(8080));
        let not = filter(Layer { ignore_port: ports(&[80]), ..Layer::default() });
        assert!(!not.wants_port(80) && not.wants_port(0));
    }

    #[test]
    fn by_unit() {
        let globs = |glob: &str| Some(vec![glob.parse().unwrap()]);
        let of =
            |unit: Option<&str>| Process { unit: unit.map(str::to_owned), ..Process::default() };
        let only = filter(Layer { unit: globs("app@*.service"), ..Layer::default() });
        assert!(only.wants_process(&of(Some("app@1.service"))));
        assert!(!only.wants_process(&of(Some("web.service"))) && !only.wants_process(&of(None)));
        let not = filter(Layer { ignore_unit: globs("ci-*"), ..Layer::default() });
        assert!(!not.wants_process(&of(Some("ci-7.service"))) && not.wants_process(&of(None)));
    }

    #[test]
    fn a_users_unit_is_none_of_the_systems() {
        let globs = |glob: &str| Some(vec![glob.parse().unwrap()]);
        let of_user = |uid, unit: &str| Process {
            unit: Some(unit.to_owned()),
            unit_owner: Some(uid),
            ..Process::default()
        };
        let of_system = Process { unit: Some("ci-7.service".to_owned()), ..Process::default() };
        for glob in ["ci-*", "*", "*.service"] {
            let not = filter(Layer { ignore_unit: globs(glob), ..Layer::default() });
            assert!(not.wants_process(&of_user(1000, "ci-7.service")), "{glob}");
            assert!(!not.wants_process(&of_system), "{glob}");
            let only = filter(Layer { unit: globs(glob), ..Layer::default() });
            assert!(!only.wants_process(&of_user(1000, "ci-7.service")), "{glob}");
        }
        for (glob, ignored) in [
            ("user@1000.service/ci-*", true),
            ("user@*.service/ci-7.service", true),
            ("user@1001.service/*", false),
            ("user@1000.service/web.service", false),
        ] {
            let not = filter(Layer { ignore_unit: globs(glob), ..Layer::default() });
            assert_eq!(!not.wants_process(&of_user(1000, "ci-7.service")), ignored, "{glob}");
            assert!(not.wants_process(&of_system), "{glob}");
        }
    }
}
