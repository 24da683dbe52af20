//! Who has a socket open, asked of the kernel (`iter/task_file`, 5.8): every
//! task's table of files in one pass, those of threads and of processes that
//! /proc refuses to show among them.

use std::{fs::File, io::Read as _, time::Instant};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::Iter,
};
#[cfg(doc)]
use portwatch_common::ANY_SOCKET;
use portwatch_common::{OpenFile, WANTED};

use super::{KernelError, attach, features::KernelTypes};

const PROGRAM: &str = "pw_files";

/// A search of all open files.
pub trait Files: Send {
    /// Hands every open file that is one of these sockets, by inode, to `take`;
    /// of more than [`WANTED`] inodes the first. [`ANY_SOCKET`] stands for all.
    ///
    /// # Errors
    /// The kernel refuses, or the deadline has passed; in words. What was handed
    /// out before is true all the same.
    fn search(
        &mut self,
        inodes: &[u64],
        deadline: Instant,
        take: &mut dyn FnMut(OpenFile),
    ) -> Result<(), String>;
}

/// The kernel's own search: an instance of the object of which only the search
/// is loaded.
pub struct KernelFiles {
    ebpf: Ebpf,
    wanted: HashMap<MapData, u64, u8>,
}

impl KernelFiles {
    /// Loads the search.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn open(types: &KernelTypes) -> Result<Self, KernelError> {
        let step = |error: Box<dyn std::error::Error + Send + Sync>| {
            KernelError::aya("load the search of open files")(error)
        };
        let mut ebpf = attach::load_object_small(types)?;
        let program: &mut Iter = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| step(format!("no program {PROGRAM}").into()))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| step(error.into()))?;
        program.load("task_file", &types.btf).map_err(|error| step(error.into()))?;
        let wanted = ebpf
            .take_map("WANTED")
            .ok_or_else(|| step("no map WANTED".into()))?
            .try_into()
            .map_err(|error: aya::maps::MapError| step(error.into()))?;
        Ok(Self { ebpf, wanted })
    }

    /// The output of one pass.
    fn pass(&mut self) -> Result<File, Box<dyn std::error::Error>> {
        let program: &mut Iter =
            self.ebpf.program_mut(PROGRAM).ok_or("no such program")?.try_into()?;
        let link = program.attach()?;
        Ok(program.take_link(link)?.into_file()?)
    }
}

impl Files for KernelFiles {
    fn search(
        &mut self,
        inodes: &[u64],
        deadline: Instant,
        take: &mut dyn FnMut(OpenFile),
    ) -> Result<(), String> {
        let inodes = inodes.get(..WANTED as usize).unwrap_or(inodes);
        let result = inodes
            .iter()
            .try_for_each(|inode| self.wanted.insert(inode, 1, 0))
            .map_err(|error| error.to_string())
            .and_then(|()| self.pass().map_err(|error| error.to_string()))
            .and_then(|file| read_all(file, deadline, take));
        for inode in inodes {
            // Absent only if its insertion failed.
            let _ = self.wanted.remove(inode);
        }
        result
    }
}

/// Reads records until the end of the pass.
fn read_all(
    mut file: File,
    deadline: Instant,
    take: &mut dyn FnMut(OpenFile),
) -> Result<(), String> {
    const RECORD: usize = size_of::<OpenFile>();
    let mut bytes = [0; 128 * RECORD];
    loop {
        let length = match file.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // A pass over very many files pauses (`bpf_seq_read`).
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.to_string()),
        };
        let records = bytes.get(..length).unwrap_or_default().chunks_exact(RECORD);
        records.map(bytemuck::pod_read_unaligned::<OpenFile>).for_each(&mut *take);
        if Instant::now() > deadline {
            return Err("the search took longer than its deadline".to_owned());
        }
    }
}

/// No search: the kernel refuses it, or the host is a test's.
pub struct NoFiles(
    /// Why.
    pub String,
);

impl Files for NoFiles {
    fn search(
        &mut self,
        _inodes: &[u64],
        _deadline: Instant,
        _take: &mut dyn FnMut(OpenFile),
    ) -> Result<(), String> {
        Err(self.0.clone())
    }
}
