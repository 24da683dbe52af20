//! Prepares both kernel interfaces of the agent: the hooks, and the enricher for the binds that
//! they report.

use std::path::Path;

use crate::{
    enrich::{Enricher, host},
    event::Host,
    kernel::{
        KernelError,
        attach::{self, Attached, Follow, Wanted, Whose},
        features::{self, Features, KernelTypes},
        files::{KernelFiles, Loaded, SearchError},
        plan::{Choice, Plan, plan},
        records::KernelRecords,
        sets,
    },
    memory,
};

/// The attached hooks and the enricher.
pub struct Watch {
    /// The attached programs.
    pub attached: Attached,
    /// The enricher.
    pub enricher: Enricher,
    /// The host, as it is written in events.
    pub host: Host,
    /// The plan.
    pub plan: Plan,
}

impl Watch {
    /// Watches the binds of all processes on the ports for which `wants` returns true. `btf` is
    /// the file with the kernel's types.
    ///
    /// # Errors
    /// Capabilities are missing, or the kernel rejects the hooks.
    pub fn everybody(btf: &Path, hooks: Choice, wanted: Wanted<'_>) -> Result<Self, KernelError> {
        memory::stay_small();
        Self::open(btf, hooks, |_| Whose::Everybodys, wanted)
    }

    /// Watches the binds of this process's descendants. This process must be a child subreaper
    /// (prctl(2)), so that it stays an ancestor of the descendants whose parents exit.
    ///
    /// # Errors
    /// The same as those of [`everybody`](Self::everybody).
    pub fn descendants(btf: &Path, hooks: Choice, follow: Follow) -> Result<Self, KernelError> {
        Self::open(btf, hooks, Whose::Tree, Wanted { follow, ..Wanted::ALL })
    }

    fn open(
        btf: &Path,
        hooks: Choice,
        whose: impl FnOnce(u32) -> Whose,
        wanted: Wanted<'_>,
    ) -> Result<Self, KernelError> {
        need_rights()?;
        let mut types = KernelTypes::read(btf)?;
        let features = Features::probe(&mut types, Some(hooks));
        let mut plan = plan(&features, hooks)?;
        if wanted.follow == Follow::Yes {
            plan.probes.extend(sets::FOLLOW);
        }
        let mut files = KernelFiles::open(&types);
        let own_pid = files.as_mut().ok().and_then(KernelFiles::own_pid);
        let whose = whose(own_pid.unwrap_or_else(std::process::id));
        let mut attached = attach::attach(&plan, &types, whose, wanted)?;
        drop(types);
        let records = Box::new(KernelRecords::open(&mut attached.ebpf)?);
        let files = Box::new(or_none(files));
        let mut enricher = Enricher::new(host::Host::current(), records, files);
        enricher.seed();
        memory::give_back();
        let host = Host::current(plan.set.into());
        Ok(Self { attached, enricher, host, plan })
    }
}

/// Checks for the capabilities that the hooks need, before anything is done.
///
/// # Errors
/// Capabilities are missing.
pub fn need_rights() -> Result<(), KernelError> {
    let missing = features::missing_capabilities();
    if missing.is_empty() { Ok(()) } else { Err(KernelError::NotPermitted { missing }) }
}

/// Returns the kernel's search of open files. Without it, /proc is searched.
fn or_none(files: Result<KernelFiles, KernelError>) -> Loaded {
    files.map_err(|error| {
        tracing::warn!(
            %error,
            "the kernel's search of open files is not available; searches /proc for holders"
        );
        SearchError::refused(error)
    })
}
