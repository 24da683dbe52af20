//! The capabilities that are given away once everything is attached: what is left is
//! what looking at other users' processes and namespaces takes.

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// What stays, where it was there; docs/architecture.md says what each is for.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::BPF);

/// Gives away all capabilities but those that are kept, for this thread and those that
/// it starts, for good. To be called before there are others.
///
/// # Errors
/// The kernel refuses it (capset(2)).
pub fn give_away() -> Result<(), Errno> {
    // Where this thread may not, the sets below keep the others from coming back.
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    let mut sets = capabilities(None)?;
    sets.permitted &= KEPT;
    sets.effective &= KEPT;
    sets.inheritable = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    set_capabilities(None, sets)
}
