//! `portwatch run`: the agent.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;

use super::output::Output;
use crate::{
    enrich::{Enricher, host},
    event::Host,
    kernel::{
        KernelError,
        attach::{self, SourceLimit},
        features::{self, Features, KernelTypes},
        files::{Files, KernelFiles, NoFiles},
        plan::{Plan, plan},
        records::KernelRecords,
    },
    pipeline::{self, Agent},
};

/// Options of `run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: Output,
    /// Report this port only; may be given several times
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Equal failures within this time are told once at their beginning and once
    /// with their number; 0s tells each of them
    #[arg(long, value_name = "TIME", default_value = "10s")]
    storm_window: jiff::SignedDuration,
}

/// Runs until interrupted.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let missing = features::missing_capabilities();
    if !missing.is_empty() {
        return Err(KernelError::NotPermitted { missing }.into());
    }
    let sinks = args.output.open()?;
    let types = KernelTypes::read(Path::new(features::VMLINUX))?;
    let features = Features::probe(&types);
    let plan = plan(&features)?;
    let storm_window = args.storm_window.unsigned_abs();
    let limit = match storm_window.is_zero() {
        true => SourceLimit::Unlimited,
        false => SourceLimit::Counted,
    };
    let mut attached = attach::attach(&plan, &types, limit)?;
    let files = open_files(&types);
    drop(types);
    announce(&plan, &attached.misses);
    let records = Box::new(KernelRecords::open(&mut attached.ebpf)?);
    let mut enricher = Enricher::new(host::Host::current(), records, files);
    enricher.seed();
    let agent = Agent {
        attached,
        enricher,
        host: Host::current(plan.set),
        sinks,
        ports: args.ports.clone(),
        storm_window,
    };
    let ready = format!("portwatch: ready, {} hooks on {}", plan.set.name(), features.release);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(pipeline::run(agent, || {
            eprintln!("{ready}");
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::debug!(%error, "no service manager to notify");
            }
        }))?;
    Ok(ExitCode::SUCCESS)
}

/// The kernel's search of open files; without it, /proc is searched.
fn open_files(types: &KernelTypes) -> Box<dyn Files> {
    match KernelFiles::open(types) {
        Ok(files) => Box::new(files),
        Err(error) => {
            tracing::warn!(%error, "holders are searched for in /proc");
            Box::new(NoFiles(error.to_string()))
        }
    }
}

/// What was chosen, what it costs and what it cannot see.
fn announce(plan: &Plan, misses: &[String]) {
    if let Some(because) = &plan.because {
        eprintln!("portwatch: fexit hooks are not to be had ({because}); using tracepoints");
    }
    eprintln!("portwatch: cost: {}", plan.set.cost());
    for miss in plan.set.misses().iter().map(|&miss| miss.to_owned()).chain(misses.to_vec()) {
        eprintln!("portwatch: not seen: {miss}");
    }
}
