//! Finds the processes that have a socket open with the kernel's iterator (`iter/task_file`,
//! 5.8). It reads every task's descriptor table in one pass, including the tables of threads
//! and of processes that /proc hides.

use std::{
    error::Error,
    fs::File,
    io::Read as _,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData},
    programs::Iter,
};
#[cfg(doc)]
use portwatch_common::ANY_SOCKET;
use portwatch_common::{ABSENT, OpenFile, WANTED};
use rustix::fs::fstat;

use super::{
    Answer, KernelError, attach,
    features::{KernelTypes, VMLINUX},
    nsfs, take_map,
};

/// The program that searches sockets.
const FILES: &str = "pw_files";
/// The programs that search descriptors in flight (5.16), the preferred one first. The second
/// copies kernel memory, for verifiers that reject the first.
pub(super) const IN_FLIGHT: [&str; 2] = ["pw_in_flight", "pw_in_flight_copied"];

/// Why not every descriptor table on the machine was searched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SearchError {
    /// The kernel, or the loader, rejects the search.
    #[error(transparent)]
    Refused(Arc<dyn Error + Send + Sync>),
    /// The thread that loads it has ended.
    #[error("the thread that loads the search has failed")]
    NotLoaded,
    /// Processes in other pid namespaces are not visible.
    #[error("the kernel shows this pid namespace's processes only")]
    PidNamespace,
    /// Descriptors in flight could not be told apart from the kernel's own sockets.
    #[error("the kernel does not count descriptors in flight")]
    NotCounted,
    /// The deadline has passed.
    #[error("the search took longer than its deadline")]
    Late,
    /// It was not started, because it would end after the deadline.
    #[error("a search of all open files takes {} ms here, which is too long", .took.as_millis())]
    TooLong {
        /// How long the last one took.
        took: Duration,
    },
}

impl SearchError {
    /// Wraps the error of the kernel or the loader.
    pub fn refused(error: impl Into<Answer>) -> Self {
        Self::Refused(Arc::from(error.into()))
    }
}

/// What is searched for.
#[derive(Clone, Copy, Debug)]
pub enum Sought<'a> {
    /// These sockets, by inode. [`ANY_SOCKET`] means all sockets.
    Sockets(&'a [u64]),
    /// Unix sockets to which descriptors have been sent that have not been received yet.
    InFlight,
}

/// The function that is called for each open file that is found.
pub type Take<'a> = &'a mut dyn FnMut(OpenFile);

/// The result of a search: every descriptor table was searched, or why not.
pub type Looked = Result<(), SearchError>;

/// A search of all open files.
pub trait Files: Send {
    /// Passes every open file that is one of these sockets, by inode, to `take`. [`ANY_SOCKET`]
    /// selects all.
    ///
    /// # Errors
    /// Not every descriptor table on the machine was searched for each of them: the kernel
    /// rejects the search, shows only some of the processes, or the deadline has passed. The
    /// files that were passed to `take` before that are valid.
    fn search(&mut self, sought: Sought<'_>, deadline: Instant, take: Take<'_>) -> Looked;
}

/// The kernel's own search: an instance of the object in which only the search is loaded.
pub struct KernelFiles {
    ebpf: Ebpf,
    wanted: HashMap<MapData, u64, u8>,
    /// The program that searches descriptors in flight, or why there is none.
    in_flight: Result<&'static str, SearchError>,
    /// Whether every process is visible, or why not.
    everybody: Looked,
}

impl KernelFiles {
    /// Loads the search.
    ///
    /// # Errors
    /// The kernel rejects it.
    pub fn open(types: &KernelTypes) -> Result<Self, KernelError> {
        Self::load(types, attach::small_loader())
    }

    /// Loads the kernel's types, and then the search. The types are read twice at the same
    /// time, because aya reads them too.
    fn open_alone() -> Result<Self, KernelError> {
        thread::scope(|scope| {
            let loader = scope.spawn(attach::small_loader);
            let types = KernelTypes::read(Path::new(VMLINUX))?;
            Self::load(&types, loader.join().unwrap_or_else(|_| attach::small_loader()))
        })
    }

    fn load<'a>(types: &'a KernelTypes, mut loader: EbpfLoader<'a>) -> Result<Self, KernelError> {
        let step = |error: Answer| KernelError::at("load the search of open files", error);
        let mut ebpf = attach::load(types, &mut loader)?;
        load_program(&mut ebpf, FILES, types).map_err(step)?;
        // Without it, descriptors in flight look like the kernel's own sockets.
        let in_flight = if types.layout.0.unix_descriptors == ABSENT {
            Err(SearchError::NotCounted)
        } else {
            let mut load = |name| load_program(&mut ebpf, name, types).map(|()| name);
            let [preferred, other] = IN_FLIGHT;
            load(preferred).or_else(|why| load(other).map_err(|_| SearchError::refused(why)))
        };
        let wanted = take_map(&mut ebpf, "WANTED")?;
        let everybody = match nsfs::is_elsewhere(Path::new("/proc")) {
            true => Err(SearchError::PidNamespace),
            false => Ok(()),
        };
        Ok(Self { ebpf, wanted, in_flight, everybody })
    }

    /// Returns this process's pid in the initial pid namespace. In another pid namespace no
    /// file shows it. But the process that has a socket of this process open is this process.
    /// Returns `None` if the search does not find it.
    pub fn own_pid(&mut self) -> Option<u32> {
        const DEADLINE: Duration = Duration::from_secs(2);
        let socket = UnixDatagram::unbound().ok()?;
        let inode = fstat(&socket).ok()?.st_ino;
        let mut found = None;
        let searched =
            self.portion(&[inode], Instant::now() + DEADLINE, &mut |file| found = Some(file.pid));
        if let Err(error) = searched {
            tracing::debug!(%error, "assumes the initial pid namespace");
        }
        found
    }

    /// Makes one pass, for at most as many sockets as the map has entries.
    fn portion(&mut self, inodes: &[u64], deadline: Instant, take: Take<'_>) -> Looked {
        let result = inodes
            .iter()
            .try_for_each(|inode| self.wanted.insert(inode, 1, 0))
            .map_err(SearchError::refused)
            .and_then(|()| self.pass(FILES).map_err(SearchError::refused))
            .and_then(|file| read_all(file, deadline, take));
        for inode in inodes {
            // It is missing only if its insertion failed.
            let _ = self.wanted.remove(inode);
        }
        result
    }

    /// Returns the output of one pass.
    fn pass(&mut self, program: &str) -> Result<File, Answer> {
        let program: &mut Iter =
            self.ebpf.program_mut(program).ok_or("no such program")?.try_into()?;
        let link = program.attach()?;
        Ok(program.take_link(link)?.into_file()?)
    }
}

fn load_program(ebpf: &mut Ebpf, name: &str, types: &KernelTypes) -> Result<(), Answer> {
    let program: &mut Iter =
        ebpf.program_mut(name).ok_or_else(|| format!("no program {name}"))?.try_into()?;
    Ok(program.load("task_file", &types.btf)?)
}

impl Files for KernelFiles {
    fn search(&mut self, sought: Sought<'_>, deadline: Instant, take: Take<'_>) -> Looked {
        self.everybody.clone()?;
        match sought {
            Sought::Sockets(inodes) => inodes
                .chunks(WANTED as usize)
                .try_for_each(|portion| self.portion(portion, deadline, take)),
            Sought::InFlight => {
                let program = self.in_flight.clone()?;
                let file = self.pass(program).map_err(SearchError::refused)?;
                read_all(file, deadline, take)
            }
        }
    }
}

/// Reads records until the end of the pass.
fn read_all(mut file: File, deadline: Instant, take: Take<'_>) -> Looked {
    const RECORD: usize = size_of::<OpenFile>();
    let mut bytes = [0; 128 * RECORD];
    loop {
        let length = match file.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // A pass over very many files pauses (`bpf_seq_read`).
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(SearchError::refused(error)),
        };
        let records = bytes.get(..length).unwrap_or_default().chunks_exact(RECORD);
        records.map(bytemuck::pod_read_unaligned::<OpenFile>).for_each(&mut *take);
        if Instant::now() > deadline {
            return Err(SearchError::Late);
        }
    }
}

/// The kernel's own search, which a thread loads: reading the kernel's types takes a while, and
/// the caller needs the search later or not at all.
pub struct Soon {
    loading: Option<JoinHandle<Loaded>>,
    loaded: Loaded,
}

/// The kernel's own search, or why it is not available.
pub type Loaded = Result<KernelFiles, SearchError>;

impl Soon {
    /// Starts loading it.
    pub fn begin() -> Self {
        let load = || KernelFiles::open_alone().map_err(SearchError::refused);
        let loading = thread::Builder::new().name("load".to_owned()).spawn(load);
        Self { loading: loading.ok(), loaded: Err(SearchError::NotLoaded) }
    }
}

impl Files for Soon {
    fn search(&mut self, sought: Sought<'_>, deadline: Instant, take: Take<'_>) -> Looked {
        if let Some(Ok(loaded)) = self.loading.take().map(JoinHandle::join) {
            self.loaded = loaded;
        }
        self.loaded.search(sought, deadline, take)
    }
}

impl Files for Loaded {
    fn search(&mut self, sought: Sought<'_>, deadline: Instant, take: Take<'_>) -> Looked {
        self.as_mut().map_err(|why| why.clone())?.search(sought, deadline, take)
    }
}
