//! How to set SO_REUSEADDR in the language of the failing program.

use crate::{
    diagnose::{Move, case::Case, moves::advice},
    evidence::Runtime,
};

/// Returns the advice to set the option in the failing program.
pub fn set_reuseaddr(case: &Case) -> Move {
    let how = match case.process().runtime {
        Some(Runtime::Python) => {
            "sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1) before bind(); for \
             socketserver, allow_reuse_address = True"
        }
        Some(Runtime::Node) => {
            "Node sets it by default for TCP, so this socket was probably created elsewhere: in an \
             addon, or by the program that passed it on; for UDP, dgram.createSocket({type: 'udp4', \
             reuseAddr: true})"
        }
        Some(Runtime::Java) => {
            "new ServerSocket(), then setReuseAddress(true) before bind(); with NIO, \
             channel.setOption(StandardSocketOptions.SO_REUSEADDR, true)"
        }
        Some(Runtime::Go) => {
            "net.Listen sets it by default; with a socket of your own, \
             syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) before Bind"
        }
        Some(Runtime::Rust) => {
            "TcpListener::bind of std and of tokio sets it by default; with socket2, \
             socket.set_reuse_address(true)? before bind()"
        }
        Some(Runtime::Ruby) => "socket.setsockopt(:SOCKET, :REUSEADDR, true) before bind",
        Some(Runtime::Perl) => "IO::Socket::INET->new(…, ReuseAddr => 1)",
        Some(Runtime::Php) => {
            "socket_set_option($socket, SOL_SOCKET, SO_REUSEADDR, 1) before socket_bind()"
        }
        Some(Runtime::Dotnet) => {
            "socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true) \
             before Bind()"
        }
        Some(Runtime::Native) | None => {
            "setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) before bind()"
        }
    };
    advice(format!("set SO_REUSEADDR in {}: {how}", case.binder()))
}
