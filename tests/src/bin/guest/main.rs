//! "What is holding this port?", with real units on a whole Debian. Runs as root inside the
//! guest that `cargo xtask vm debian` boots, with the package and the server. Prints one line
//! for each scenario; fails if one of them did.

#![allow(clippy::print_stdout, reason = "it answers the harness, which reads all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a scenario that cannot go on has failed, and the panic says where"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use portwatch_tests::paste::Way;
use stage::Stage;

mod commands;
mod elsewhere;
mod freed;
mod journal;
mod package;
mod rights;
mod sessions;
mod stage;
mod units;

/// Where the guest's files are.
const PAYLOAD: &str = "/opt/payload";

type Scenario = (&'static str, fn(&mut Stage));

/// These are played once more, with `portwatch free` instead of the printed command.
const FREED: [&str; 17] = [
    "old_release_in_another_unit",
    "restarted_after_a_kill",
    "another_service",
    "an_instance_of_a_template",
    "squatter_in_a_login_session",
    "holder_in_a_users_unit",
    "socket_unit_holds_it",
    "another_network_namespace",
    "a_container_publishes_it",
    "a_users_podman_publishes_it",
    "a_container_of_roots_podman",
    "several_apps_of_one_unit",
    "a_leftover_of_the_unit",
    "a_forking_service",
    "a_transient_scope",
    "a_users_scope",
    "started_by_cron",
];

/// In this order: they share one machine and one agent.
const SCENARIOS: [Scenario; 40] = [
    ("the_service_is_confined", package::the_service_is_confined),
    ("old_release_in_another_unit", units::old_release_in_another_unit),
    ("restarted_after_a_kill", units::restarted_after_a_kill),
    ("another_service", units::another_service),
    ("an_instance_of_a_template", units::an_instance_of_a_template),
    ("time_wait_without_reuseaddr", units::time_wait_without_reuseaddr),
    ("time_wait_of_an_old_release_without", units::time_wait_of_an_old_release_without),
    ("time_wait_with_reuseaddr_is_silent", units::time_wait_with_reuseaddr_is_silent),
    ("hand_over_by_reuseport_is_silent", units::hand_over_by_reuseport_is_silent),
    ("squatter_in_a_login_session", sessions::squatter_in_a_login_session),
    ("holder_in_a_users_unit", sessions::holder_in_a_users_unit),
    ("refused_in_a_users_unit", sessions::refused_in_a_users_unit),
    ("socket_unit_holds_it", elsewhere::socket_unit_holds_it),
    ("socket_unit_is_refused", elsewhere::socket_unit_is_refused),
    ("another_network_namespace", elsewhere::another_network_namespace),
    ("a_container_publishes_it", elsewhere::a_container_publishes_it),
    ("a_users_podman_publishes_it", elsewhere::a_users_podman_publishes_it),
    ("a_container_of_roots_podman", elsewhere::a_container_of_roots_podman),
    ("the_agent_in_a_container", elsewhere::the_agent_in_a_container),
    ("several_apps_of_one_unit", commands::several_apps_of_one_unit),
    ("both_in_one_unit", commands::both_in_one_unit),
    ("a_leftover_of_the_unit", commands::a_leftover_of_the_unit),
    ("a_forking_service", commands::a_forking_service),
    ("a_transient_scope", commands::a_transient_scope),
    ("a_users_scope", commands::a_users_scope),
    ("a_users_socket_unit", commands::a_users_socket_unit),
    ("started_by_at", commands::started_by_at),
    ("started_by_cron", commands::started_by_cron),
    ("a_machine", commands::a_machine),
    ("free_the_worked_example", freed::the_worked_example),
    ("free_a_socket_unit_alone", freed::a_socket_unit_alone),
    ("free_a_users_socket_unit", freed::a_users_socket_unit),
    ("free_without_the_right", freed::without_the_right),
    ("the_journal_is_restarted", package::the_journal_is_restarted),
    ("each_capability_is_needed", rights::each_capability_is_needed),
    ("upgrade", package::upgrade),
    ("explained_beside_the_service", package::explained_beside_the_service),
    ("remove", package::remove),
    ("purge", package::purge),
    ("the_system_extension", package::the_system_extension),
];

fn main() -> ExitCode {
    let filter = fs::read_to_string(format!("{PAYLOAD}/filter")).unwrap_or_default();
    let mut failed = Vec::new();
    let mut stage = None;
    let mut play = |name: &str, scenario: &mut dyn FnMut()| {
        let start = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(scenario)).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("{word:<7}{name} ({:.1} s)", start.elapsed().as_secs_f32());
        if !passed {
            failed.push(name.to_owned());
        }
    };
    play("install", &mut || {
        package::install();
        stage = Some(Stage::new());
    });
    if let Some(stage) = &mut stage {
        for (name, scenario) in SCENARIOS {
            if filter.split(',').any(|part| name.contains(part)) {
                let ways = if FREED.contains(&name) { &Way::BOTH[..] } else { &Way::BOTH[..1] };
                for &way in ways {
                    stage.way = way;
                    let by = if way == Way::Free { " by portwatch free" } else { "" };
                    play(&format!("{name}{by}"), &mut || scenario(stage));
                    stage.strike();
                }
            }
        }
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => {
            println!("failed: {}", failed.join(", "));
            ExitCode::FAILURE
        }
    }
}
