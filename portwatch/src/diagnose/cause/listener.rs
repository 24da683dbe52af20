//! A listening socket on exactly that address and port.

use crate::{
    diagnose::{
        Cause, HolderClass, Move,
        case::{Case, Culprit},
        cause::{Finding, client_port, held},
        moves, responsibility,
    },
    evidence::{PortChoice, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    Some(finding(case, culprit, Cause::Listener))
}

/// Builds the finding that all causes with a listener share.
pub fn finding<'a>(case: &Case<'a>, culprit: &Culprit<'a>, cause: Cause) -> Finding<'a> {
    let doing = format!("is listening on {}", culprit.socket.local);
    let mut finding = held(case, culprit, cause, &doing);
    finding.notes.extend(moves::aftermath(case, finding.class, finding.holder));
    let is_its_own = finding.class == Some(HolderClass::Itself);
    if culprit.socket.port_chosen_by == Some(PortChoice::Kernel) && !is_its_own {
        let port = culprit.socket.local.port();
        let reserve = client_port::keep_out(case).into_iter().map(|reserve| Move {
            why: "from now on the kernel chooses the port neither for a bind to port 0 nor for \
                  outgoing connections (put it into /etc/sysctl.d to make that permanent); a bind \
                  to its number still works"
                .to_owned(),
            ..reserve
        });
        let restart = finding.holder.map(|holder| {
            let holder = responsibility::called(holder);
            moves::advice(format!(
                "then restart {holder}: it asks for any free port and gets another one"
            ))
        });
        finding.moves.splice(0..0, reserve.chain(restart));
        finding.notes.push(format!(
            "the holder asked for any free port (port 0), and the kernel chose {port}: nobody \
             configured it"
        ));
    }
    finding
}
