//! How to find out what made the kernel bind a port.

use crate::{
    diagnose::{
        Move, Risk,
        case::Case,
        moves::{command, enter, look},
    },
    evidence::Protocol,
};

/// Returns the commands that show what made the kernel bind a port, by what usually does.
pub fn own(case: &Case) -> Vec<Move> {
    let port = case.evidence.failure.port;
    let Some(enter) = enter(case) else { return vec![look(case)] };
    if case.evidence.failure.protocol == Protocol::Udp {
        return vec![
            command(
                format!("{enter}ip -o -d link show | grep -w {port}"),
                "probably a tunnel (vxlan, geneve, …), since the kernel itself uses the port: this \
                 shows its device, and ip link del removes it",
                Risk::None,
            ),
            command(
                format!("{enter}wg show all listen-port"),
                "or a WireGuard device: this lists them with their ports; ip link set DEVICE down releases one",
                Risk::None,
            ),
        ];
    }
    vec![command(
        format!("{enter}rpcinfo -p | grep -w {port}"),
        "probably a server in the kernel (NFS, lockd), since the kernel itself uses the port: this \
         shows which; stop its service",
        Risk::None,
    )]
}
