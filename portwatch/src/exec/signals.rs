//! Receives the signals to this process, which are meant for the command.
//!
//! They are read from a descriptor (signalfd(2)), so no handler is installed. Signals that were
//! ignored when this process was started (nohup(1), a background job of a shell) are still
//! ignored in the command, and passing them on has no effect. Signals that stop a process are
//! not handled: the terminal sends them to the whole process group, which contains both
//! processes.

use std::io;

use nix::sys::{
    signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The signals that are passed on.
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

/// All signals that are handled, blocked from their default action.
pub struct Signals {
    descriptor: AsyncFd<SignalFd>,
    /// The signal mask before that.
    before: SigSet,
}

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The signal.
    pub signal: Signal,
    /// The pid of the sender, 0 if it is in another pid namespace. `None` if the kernel sent
    /// the signal, for example because of a key at the terminal: then the command has received
    /// it too.
    pub sender: Option<u32>,
}

impl Received {
    /// Returns whether its default action ends a process.
    pub fn ends(self) -> bool {
        !matches!(self.signal, Signal::SIGWINCH | Signal::SIGCONT | Signal::SIGCHLD)
    }
}

impl Signals {
    /// Blocks the signals from here on, in this thread and all threads that it will start, so
    /// it must run first. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel returns no descriptor.
    pub fn hold_back() -> io::Result<Self> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // While SIGCHLD is ignored, the kernel discards the exit status of children. SAFETY:
        // no handler is installed.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let mask: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&mask, flags)?;
        // SAFETY: the descriptor belongs to the `SignalFd`, and is always the same one.
        let descriptor =
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { descriptor, before })
    }

    /// Returns the signal mask that applied before, with which a command must start.
    pub fn before(&self) -> SigSet {
        self.before
    }

    /// Waits for the next signal.
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

    /// Returns the next pending signal.
    ///
    /// # Errors
    /// The same as those of [`next`](Self::next).
    pub fn pending(&self) -> io::Result<Option<Received>> {
        while let Some(info) = self.descriptor.get_ref().read_signal()? {
            // Only signals of the mask can arrive.
            if let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed()) {
                // SI_USER, SI_QUEUE and SI_TKILL are 0 or less (sigaction(2)).
                let sender = (info.ssi_code <= 0).then_some(info.ssi_pid);
                return Ok(Some(Received { signal, sender }));
            }
        }
        Ok(None)
    }
}
