//! The output for a person at a terminal, or at the end of a pipe.

use portwatch_tests::{agent::Agent, op::tcp, programs::Alias, scene::Scene};

#[test]
fn a_block_to_act_on() {
    let scene = Scene::new();
    let agent = Agent::start(&["run", "--format", "human", "--port", "8080"]).unwrap();
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let kill = format!("kill {}", holder.pid());
    let output = agent.output_with(&[&refused.pid.to_string(), "127.0.0.1:8080", "binder", &kill]);
    assert!(!output.contains('\u{1b}'), "there is colour, and no terminal\n{output}");
}

/// A process may have any name. Neither control characters nor those that change the text's
/// direction may reach the terminal.
#[test]
fn a_hostile_name_is_harmless() {
    let scene = Scene::new();
    let agent = Agent::start(&["run", "--format", "human", "--port", "8080"]).unwrap();
    let hostile = Alias::new("x\u{1b}[2J\u{202e}y");
    let holder = scene.helper().run_as(&hostile).holds([tcp("127.0.0.1:8080").listening()]);
    let refused =
        scene.helper().called("app \u{9b}31m\r\u{7}\n--listen").is_refused(tcp("127.0.0.1:8080"));
    let output = agent.output_with(&[&refused.pid.to_string(), &holder.pid().to_string(), "kill "]);
    let harmful = |c: &char| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c);
    let found: Vec<char> = output.chars().filter(harmful).collect();
    assert!(found.is_empty(), "{found:?} in\n{}", output.escape_debug());
}
