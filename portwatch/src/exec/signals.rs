//! Signals to this process, which are meant for the command.
//!
//! They are read from a descriptor (signalfd(2)), so that no handler is installed:
//! what was ignored when this process was started (nohup(1), a shell's background
//! job) is still ignored in the command, and what is passed on to it has no effect.
//! The signals that stop a process are left alone: the terminal sends them to the
//! whole process group, which both are in.

use std::io;

use nix::sys::{
    signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What is passed on.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// All signals that matter here, held back from their usual effect.
pub struct Signals {
    descriptor: AsyncFd<SignalFd>,
    /// What was held back before.
    before: SigSet,
}

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Who sent it, 0 if that process is of another pid namespace. `None` where it
    /// is the kernel's own, as those from a terminal: the command has it as well.
    pub sender: Option<u32>,
}

impl Received {
    /// Whether it ends a process that has not said otherwise.
    pub fn ends(self) -> bool {
        !matches!(self.signal, Signal::SIGWINCH | Signal::SIGCONT | Signal::SIGCHLD)
    }
}

impl Signals {
    /// Holds them back from here on, in this thread and all that it will start, so
    /// it must be the first. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn hold_back() -> io::Result<Self> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // Where it is ignored, the kernel does not keep how a child has ended.
        // SAFETY: no handler is installed.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let mask: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&mask, flags)?;
        // SAFETY: the descriptor is the `SignalFd`'s own, and always the same one.
        let descriptor =
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { descriptor, before })
    }

    /// What was held back before: what a command is to start with.
    pub fn before(&self) -> SigSet {
        self.before
    }

    /// Waits for the next.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub async fn next(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match self.pending()? {
                Some(received) => return Ok(received),
                None => ready.clear_ready(),
            }
        }
    }

    /// The next that is there already.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn pending(&self) -> io::Result<Option<Received>> {
        while let Some(info) = self.descriptor.get_ref().read_signal()? {
            // All that can come are in the mask.
            if let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed()) {
                // SI_USER, SI_QUEUE and SI_TKILL are 0 or less (sigaction(2)).
                let sender = (info.ssi_code <= 0).then_some(info.ssi_pid);
                return Ok(Some(Received { signal, sender }));
            }
        }
        Ok(None)
    }
}
