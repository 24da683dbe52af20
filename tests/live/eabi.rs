//! 32-bit programs on arm64, whose system calls have numbers of their own
//! (arch/arm64/tools/syscall_32.tbl). A 64-bit process cannot make them, so a program of a few
//! instructions does.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use portwatch_tests::{patience, scene::Scene, skip::skip};
use rustix::io::Errno;
use serde_json::json;

/// Where the program is loaded.
const BASE: u32 = 0x10000;
/// The size of the ELF header and of one program header.
const HEADERS: u32 = 52 + 32;

/// Binds to 127.0.0.1:8080, listens, writes a byte and waits. Exits with the number of the error
/// if a call fails.
const CODE: [u32; 30] = [
    0xe3a0_0002, // mov r0, #AF_INET
    0xe3a0_1001, // mov r1, #SOCK_STREAM
    0xe3a0_2000, // mov r2, #0
    0xe300_7119, // movw r7, #281: socket
    0xef00_0000, // svc 0
    0xe1a0_4000, // mov r4, r0
    0xe28f_1058, // add r1, pc, #88: the address, after the code
    0xe3a0_2010, // mov r2, #16
    0xe300_711a, // movw r7, #282: bind
    0xef00_0000, // svc 0
    0xe350_0000, // cmp r0, #0
    0x1a00_000e, // bne 27
    0xe1a0_0004, // mov r0, r4
    0xe3a0_1001, // mov r1, #1
    0xe300_711c, // movw r7, #284: listen
    0xef00_0000, // svc 0
    0xe350_0000, // cmp r0, #0
    0x1a00_0008, // bne 27
    0xe3a0_0001, // mov r0, #1
    0xe28f_1024, // add r1, pc, #36: one byte of the address
    0xe3a0_2001, // mov r2, #1
    0xe3a0_7004, // mov r7, #4: write
    0xef00_0000, // svc 0
    0xe3a0_701d, // mov r7, #29: pause
    0xef00_0000, // svc 0
    0xeaff_fffc, // b 23
    0xe1a0_0000, // nop
    0xe260_0000, // 27: rsb r0, r0, #0
    0xe3a0_7001, // mov r7, #1: exit
    0xef00_0000, // svc 0
];

/// A `sockaddr_in`: 127.0.0.1:8080.
const ADDRESS: [u8; 16] = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The program as an ELF file (elf(5)): 32 bits, ARM, EABI 5.
fn elf() -> Vec<u8> {
    const EXECUTABLE: u32 = 2;
    const ARM: u32 = 40;
    const EABI5: u32 = 0x0500_0000;
    const LOAD: u32 = 1;
    const READ_EXECUTE: u32 = 5;
    let size = HEADERS + size_of_val(&CODE) as u32 + ADDRESS.len() as u32;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1];
    file.resize(16, 0);
    for word in [EXECUTABLE | ARM << 16, 1, BASE + HEADERS, 52, 0, EABI5] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [LOAD, 0, BASE, BASE, size, size, READ_EXECUTE, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(CODE.into_iter().flat_map(u32::to_le_bytes));
    file.extend(ADDRESS);
    file
}

/// Its process, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it in the scene; `None` if the kernel runs no such programs.
fn start(scene: &Scene, program: &Path) -> Option<Running> {
    let mut command = Command::new(program);
    scene.netns.confine(command.stdout(Stdio::piped()));
    let begin = Instant::now();
    loop {
        match command.spawn() {
            Ok(child) => return Some(Running(child)),
            // A process that another test starts has the file open until its execve(2).
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                assert!(begin.elapsed() < patience(), "{error}");
                std::thread::yield_now();
            }
            Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// They are reported, and recorded as owners.
#[test]
fn programs_of_arm() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("eabi");
    fs::write(&program, elf()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(mut holder) = start(&scene, &program) else {
        return skip("programs_of_arm", "no 32-bit programs");
    };
    holder.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let mut refused = start(&scene, &program).unwrap();
    assert_eq!(refused.0.wait().unwrap().code(), Some(Errno::ADDRINUSE.raw_os_error()));
    let pid = refused.0.id();
    let event = scene.agent.wait_for("the 32-bit program", |event| event.pid == Some(pid));
    event.is_explained().includes(&json!({
        "count": 1,
        "failure": {"stage": "bind", "protocol": "tcp", "address": "127.0.0.1", "port": 8080},
        "last_holder": {"process": {"pid": holder.0.id()}},
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.0.id()}},
    }));
}
