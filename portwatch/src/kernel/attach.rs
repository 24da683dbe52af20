//! Loads the object and attaches the programs of a plan. All attachments are links owned by
//! this process: when it ends for any reason, the kernel detaches them.

use std::{fs::File, io, path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FExit, KProbe, Program, ProgramError,
    },
};

use strum::VariantArray as _;

use portwatch_common::{
    CROWD_A_SECOND, CROWDS, FAMILY, SENT_A_SECOND, SOURCES, SourceUse, TENANT_A_SECOND,
    USER_A_SECOND,
};

use super::{
    Answer, KernelError, Unusable,
    features::KernelTypes,
    plan::{Choice, Plan},
    ports::IgnoredPorts,
    sets::{FORKS, Hook, HookSet, Probe},
};

/// The compiled kernel side, compressed with zstd by build.rs.
static OBJECT: &[u8] = include_bytes!(env!("PORTWATCH_EBPF_OBJECT_PATH"));

/// Attached programs; dropping this detaches them.
pub struct Attached {
    /// The loaded object, which owns programs, links and maps.
    pub ebpf: Ebpf,
    /// The programs that are attached.
    pub probes: Vec<Probe>,
    /// What cannot be seen because an optional program could not be attached, with the kernel's
    /// error, or because this kernel does not support it.
    pub misses: Vec<String>,
    /// The ports whose failed binds it ignores.
    pub ignored_ports: IgnoredPorts,
}

/// Loads the object and attaches the programs of the plan.
///
/// # Errors
/// The kernel rejected the object or a required program.
pub fn attach(
    plan: &Plan,
    types: &KernelTypes,
    whose: Whose,
    wanted: Wanted<'_>,
) -> Result<Attached, KernelError> {
    let mut ebpf = load_object(types, plan.set, whose, wanted)?;
    let mut ignored_ports = IgnoredPorts::open(&mut ebpf)?;
    ignored_ports
        .set(wanted.port)
        .map_err(|error| KernelError::at("set the ignored ports", error))?;
    let forks = (whose != Whose::Everybodys && !types.tell_parents()).then_some(&FORKS);
    let mut probes = Vec::new();
    let mut misses: Vec<String> = types.hidden().map(str::to_owned).into_iter().collect();
    let mut absent = Vec::new();
    for probe in plan.probes.iter().chain(forks) {
        // Entry and return of a function are of use together only.
        if probe.hook.function().is_some_and(|function| absent.contains(&function)) {
            continue;
        }
        match attach_one(&mut ebpf, probe, types, plan.cgroup2.as_deref()) {
            Ok(()) => probes.push(*probe),
            Err(error) => match probe.optional {
                Some(loss) => {
                    misses.push(format!("{loss}: {}", reason(&error)));
                    absent.extend(probe.hook.function());
                }
                None => return Err(error),
            },
        }
    }
    Ok(Attached { ebpf, probes, misses, ignored_ports })
}

/// Detaches the programs, in the reverse order of [`attach`], so that no program misses what
/// another one has recorded.
pub fn detach(mut ebpf: Ebpf, probes: &[Probe]) {
    for probe in probes.iter().rev() {
        let unloaded = match ebpf.program_mut(probe.program) {
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::CgroupSockAddr(program)) => program.unload(),
            _ => continue,
        };
        if let Err(error) = unloaded {
            tracing::debug!(%error, program = probe.program, "a program was not detached");
        }
    }
}

/// The results that only an attempt can show.
pub struct Probed {
    /// The hook sets whose first program the kernel rejects, and why.
    pub refused: Vec<(HookSet, Unusable)>,
    /// Whether the kernel accepts the program at `cgroup/bind4`, with the calls that
    /// [`helper`](portwatch_common::helper) permits.
    pub bind: bool,
}

/// Attaches the first program of hook sets, loads the program at `cgroup/bind4`, and removes all
/// again. With a choice, only sets are tried that matter for it; each attempt takes some
/// milliseconds.
pub fn probe(types: &KernelTypes, choice: Option<Choice>) -> Probed {
    let matters = |set: HookSet| match choice {
        Some(Choice::Only(only)) => set == only,
        Some(Choice::Auto) | None => true,
    };
    let tried = HookSet::VARIANTS.iter().filter(|set| set.spec().is_tried && matters(**set));
    let refused =
        |set: HookSet, error: &KernelError| (set, Unusable::Refused { answer: reason(error) });
    let mut ebpf = match load(types, &mut small_loader()) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            return Probed {
                refused: tried.map(|&set| refused(set, &error)).collect(),
                bind: true,
            };
        }
    };
    let mut all = Vec::new();
    for &set in tried {
        let Some(first) = set.spec().probes.first() else { continue };
        match attach_one(&mut ebpf, first, types, None) {
            Err(error) => all.push(refused(set, &error)),
            // The sets after it are not needed.
            Ok(()) if choice.is_some() => break,
            Ok(()) => {}
        }
    }
    Probed { refused: all, bind: takes_bind(&mut ebpf) }
}

/// Returns whether the kernel accepts the program at `cgroup/bind4` with the helpers of
/// `types`.
pub fn probe_bind(types: &KernelTypes) -> bool {
    load(types, &mut small_loader()).is_ok_and(|mut ebpf| takes_bind(&mut ebpf))
}

fn takes_bind(ebpf: &mut Ebpf) -> bool {
    let bind: Option<&mut CgroupSockAddr> =
        ebpf.program_mut("pw_bind4").and_then(|program| program.try_into().ok());
    bind.is_some_and(|program| program.load().is_ok())
}

/// Attaches one program of a small instance of the object. The program must not need a control
/// group.
pub(super) fn attach_alone(types: &KernelTypes, probe: &Probe) -> Result<Ebpf, KernelError> {
    let mut ebpf = load(types, &mut small_loader())?;
    attach_one(&mut ebpf, probe, types, None)?;
    Ok(ebpf)
}

/// The processes whose failed binds are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All processes.
    Everybodys,
    /// This process, given by its pid in the initial pid namespace, and its descendants (up to
    /// 5.10 only those that it starts from now on).
    Tree(u32),
}

/// Whether failed binds of one process above a limit are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLimit {
    /// Those above [`SENT_A_SECOND`] are only counted.
    Counted,
    /// Every failed bind is reported.
    Unlimited,
}

/// Whether processes are followed after a failed bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// They are followed, until their exit if the plan has the programs for it
    /// ([`FOLLOW`](super::sets::FOLLOW)).
    Yes,
    /// They are not followed.
    No,
}

impl Follow {
    /// Returns whether outcomes within this time are reported at all.
    pub fn within(window: Duration) -> Self {
        if window.is_zero() { Self::No } else { Self::Yes }
    }
}

/// Which failed binds the hooks report, and whether processes are followed after one.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether the failed binds of one process are limited.
    pub limit: SourceLimit,
    /// Whether processes are followed.
    pub follow: Follow,
    /// Returns whether failed binds on a port are reported. Those on other ports are only
    /// counted.
    pub port: &'a dyn Fn(u16) -> bool,
}

impl Wanted<'static> {
    /// Failed binds on all ports are reported, and no process is followed.
    pub const ALL: Self = Self { limit: SourceLimit::Counted, follow: Follow::No, port: &|_| true };
}

fn load_object(
    types: &KernelTypes,
    set: HookSet,
    whose: Whose,
    wanted: Wanted<'_>,
) -> Result<Ebpf, KernelError> {
    let root: u32 = match whose {
        Whose::Everybodys => 0,
        Whose::Tree(root) => root,
    };
    let most = match wanted.limit {
        SourceLimit::Counted => SENT_A_SECOND,
        SourceLimit::Unlimited => u64::MAX,
    };
    let mut loader = EbpfLoader::new();
    loader.override_global("ROOT", &root, true);
    loader.override_global("SENT_A_SECOND", &most, true);
    match wanted.follow {
        Follow::Yes => _ = loader.override_global("FOLLOW", &1u32, true),
        Follow::No => {
            loader.map_max_entries("WATCHED", 1).map_max_entries("AWAITED", 1);
        }
    }
    if set == HookSet::Kprobe {
        loader.map_max_entries("CALLS", CALLS);
    }
    if set != HookSet::Tracepoint && types.preempts {
        loader.map_max_entries("BINDS", CALLS).override_global("BEGINNINGS", &1u32, true);
    }
    if root != 0 && !types.tell_parents() {
        loader.map_max_entries("FAMILY", FAMILY);
    }
    // A table has a value for each processor that there may ever be. A virtual machine may have few
    // of them.
    let processors = aya::util::nr_cpus().unwrap_or(1).max(1);
    let online = aya::util::online_cpus().map_or(processors, |online| online.len().max(1));
    let [crowd, tenant, user] = [CROWD_A_SECOND, TENANT_A_SECOND, USER_A_SECOND]
        .map(|all| (all / online as u64).max(LEAST_A_SECOND));
    loader.override_global("CROWD_A_SECOND", &crowd, true);
    loader.override_global("TENANT_A_SECOND", &tenant, true);
    loader.override_global("USER_A_SECOND", &user, true);
    for (map, most) in
        [("SOURCES", SOURCES), ("CROWDS", CROWDS), ("TENANTS", CROWDS), ("USERS", CROWDS)]
    {
        loader.map_max_entries(map, entries(most, processors));
    }
    load(types, &mut loader)
}

/// Entries of threads that have called a hooked function; an entry stays after the call.
const CALLS: u32 = 8192;

/// The number of records that every source may send in a second from one processor, however
/// many processors are online at the start.
const LEAST_A_SECOND: u64 = 16;

/// Returns the size of a table of at most `most` entries. Each entry has a value for every
/// processor. The size is at most 4 MiB, except on the largest machines.
fn entries(most: u32, processors: usize) -> u32 {
    let all = 4 * 1024 * 1024 / size_of::<SourceUse>();
    let each = u32::try_from(all / processors).unwrap_or(most);
    each.clamp(most / 8, most)
}

/// Loads instances of the object that do not run the hooks: the large maps are as small as
/// possible. This takes a while, because aya reads the kernel's type information.
pub(super) fn small_loader() -> EbpfLoader<'static> {
    const PAGE: u32 = 4096;
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("FAILURES", PAGE);
    for map in [
        "ATTEMPTS", "REPORTED", "CULPRITS", "OWNERS", "ARGUMENTS", "PORTS", "CONNECTIONS",
        "CLOSED", "GONE_CGROUPS", "GONE_OF_USERS", "CONNECTED", "SOURCES", "CROWDS", "TENANTS",
        "USERS", "WATCHED", "AWAITED",
    ] {
        loader.map_max_entries(map, 1);
    }
    loader
}

fn object() -> Result<Vec<u8>, KernelError> {
    zstd::decode_all(OBJECT).map_err(|error| KernelError::at("decompress the kernel side", error))
}

pub(super) fn load<'a>(
    types: &'a KernelTypes,
    loader: &mut EbpfLoader<'a>,
) -> Result<Ebpf, KernelError> {
    loader
        .btf(Some(&types.btf))
        .override_global("LAYOUT", &types.layout, true)
        .load(&object()?)
        .map_err(|error| KernelError::at("load the kernel side", error))
}

/// The kernel's kprobes as an event source (`perf_kprobe`, kernel/events/core.c).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

fn attach_one(
    ebpf: &mut Ebpf,
    probe: &Probe,
    types: &KernelTypes,
    cgroup2: Option<&Path>,
) -> Result<(), KernelError> {
    let attached = attach_program(ebpf, probe, types, cgroup2);
    attached.map_err(|error| KernelError::at(format!("attach {}", probe.program), error))
}

fn attach_program(
    ebpf: &mut Ebpf,
    probe: &Probe,
    types: &KernelTypes,
    cgroup2: Option<&Path>,
) -> Result<(), Answer> {
    let program = ebpf.program_mut(probe.program).ok_or("the object has no such program")?;
    match probe.hook {
        Hook::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            program.load(function, &types.btf)?;
            program.attach()?;
        }
        Hook::Kprobe(function) | Hook::Kretprobe(function) => {
            if !Path::new(KPROBES).exists() {
                return Err(format!("no {KPROBES}, so this kernel has no kprobes").into());
            }
            if types.lack_registers() {
                return Err("the kernel's types name no registers".into());
            }
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(function, 0)?;
        }
        Hook::TpBtf(tracepoint) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, &types.btf)?;
            program.attach()?;
        }
        Hook::CgroupBind => {
            let root = File::open(cgroup2.ok_or("no cgroup2 hierarchy")?)?;
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
            // This requests a bpf link without flags. The kernel always permits such a link in
            // addition to others (`cgroup_bpf_link_attach`).
            program.attach(&root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

/// Returns an error in words. The C library has none for the kernel's ENOTSUPP
/// (include/linux/errno.h).
fn answer(error: &io::Error) -> String {
    const ENOTSUPP: i32 = 524;
    match error.raw_os_error() {
        Some(ENOTSUPP) => "not supported by this kernel (ENOTSUPP)".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns the innermost cause, with the verifier's message if there is one.
fn reason(error: &KernelError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        if let Some(ProgramError::LoadError { io_error, verifier_log }) =
            error.downcast_ref::<ProgramError>()
        {
            let log = verifier_log.to_string();
            // `print_verification_stats` comes after the message.
            let is_statistics = |line: &str| {
                ["processed ", "stack depth ", "verification time "]
                    .iter()
                    .any(|start| line.starts_with(start))
            };
            let says = |line: &&str| !line.trim().is_empty() && !is_statistics(line);
            let last = log.lines().rfind(says).unwrap_or_default();
            let answer = answer(io_error);
            return if last.is_empty() { answer } else { format!("{answer}: {last}") };
        }
        error = source;
    }
    error.downcast_ref().map_or_else(|| error.to_string(), answer)
}

#[cfg(test)]
mod tests;
