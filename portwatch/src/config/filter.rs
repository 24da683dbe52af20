//! Which refusals are told.

use std::num::NonZeroU16;

use super::{Settings, values::Glob};
use crate::evidence::Process;

/// By what a refusal is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Its port.
    Port,
    /// The failing process's unit.
    Unit,
}

impl Ignored {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Unit => "unit",
        }
    }
}

/// What is to be told; by default all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    ports: Vec<NonZeroU16>,
    ignored_ports: Vec<NonZeroU16>,
    units: Vec<Glob>,
    ignored_units: Vec<Glob>,
}

impl Filter {
    /// As it is set.
    pub fn new(settings: &Settings) -> Self {
        Self {
            ports: settings.port.clone(),
            ignored_ports: settings.ignore_port.clone(),
            units: settings.unit.clone(),
            ignored_units: settings.ignore_unit.clone(),
        }
    }

    /// Whether refusals of a port are told.
    pub fn wants_port(&self, port: u16) -> bool {
        let among = |ports: &[NonZeroU16]| ports.iter().any(|one| one.get() == port);
        (self.ports.is_empty() || among(&self.ports)) && !among(&self.ignored_ports)
    }

    /// Whether what a process is refused is told. One without a unit is of none.
    pub fn wants_process(&self, process: &Process) -> bool {
        let among = |units: &[Glob]| {
            process.unit.as_ref().is_some_and(|unit| units.iter().any(|glob| glob.matches(unit)))
        };
        (self.units.is_empty() || among(&self.units)) && !among(&self.ignored_units)
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
}
