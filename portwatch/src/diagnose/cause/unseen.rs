//! The agent is not permitted to list the sockets there. This is not "nothing is there", and no
//! process is named as the holder.

use crate::diagnose::{
    Cause, Confidence, HolderClass,
    case::Case,
    cause::{Finding, undetermined},
    moves,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let denied =
        case.evidence.gaps.iter().find(|gap| gap.denied && (gap.what.is_of_the_sockets()))?;
    if !case.culprits.is_empty() {
        return None;
    }
    Some(Finding {
        cause: Cause::Unseen,
        because: "the agent is not permitted to list the sockets there".to_owned(),
        class: Some(HolderClass::Unknown),
        holder: None,
        moves: vec![
            moves::advice(format!(
                "run the agent as root, or with CAP_SYS_ADMIN (to enter network namespaces) and \
                 CAP_SYS_PTRACE (to name other users' processes): {}",
                denied.why
            )),
            moves::look(case),
        ],
        notes: undetermined::missing(case),
        confidence: Confidence::Undetermined,
    })
}
