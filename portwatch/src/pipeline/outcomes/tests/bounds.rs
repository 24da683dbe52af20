use proptest::prelude::*;

use super::*;

#[test]
fn an_agent_that_stops_tells_what_is_known() {
    let mut play = Play::new();
    let ended = play.fails(1, 7, 80, service);
    play.fails(1, 8, 80, nobody);
    play.does(&exits(3, 7, 0x100));
    play.told.extend(play.outcomes.all().map(|told| told.outcome));
    let [outcome] = &play.told[..] else { panic!("{:?}", play.told) };
    assert_eq!((&outcome.id, outcome.outcome), (&ended, Became::Exited));
}

/// Under load much waits in the queue: an end that is in there is no end that was not seen.
#[test]
fn nothing_is_told_before_all_that_was_before_it_is_known() {
    let mut play = Play { running: Some(Vec::new()), behind_ms: 0, ..Play::new() };
    let id = play.fails(1, 7, 80, nobody);
    play.passes_to(30_000);
    assert_eq!(play.told, []);
    play.does(&exits(3, 7, 0x100));
    play.is(&id, Became::Exited);
}

#[test]
fn whoever_has_most_cases_makes_room() {
    let mut play = Play::new();
    let mut of = |pid: u32, user: u32| {
        let mut raw = failed(1, pid, 80);
        raw.task.user = user;
        let event = event(&raw, nobody);
        play.outcomes.open(&raw, &event, None, 0);
        assert_eq!(play.outcomes.told(&event), None);
        event.id
    };
    let victim = of(1, 1001);
    (10..2_200).for_each(|pid| _ = of(pid, 1000));
    assert_eq!(play.outcomes.cases.len(), MOST_CASES);
    assert_eq!(play.outcomes.take_untracked(), 2_190 - (MOST_CASES as u64 - 1));
    play.passes_to(10_300);
    play.is(&victim, Became::RunningWithout);
}

#[test]
fn without_a_window_nothing_is_kept() {
    let mut outcomes = Outcomes::new(Duration::ZERO, WINDOW, Blind::default());
    let raw = failed(1, 7, 80);
    let event = event(&raw, nobody);
    outcomes.open(&raw, &event, None, 0);
    assert_eq!((outcomes.told(&event), outcomes.take_untracked()), (None, 0));
    assert!(outcomes.cases.is_empty() && outcomes.next(0).is_none());
}

proptest! {
    /// Whatever processes do and when, each event has one outcome, and nothing stays behind.
    #[test]
    fn each_event_has_one_outcome(
        acts in prop::collection::vec((0u64..3_000, 1u32..6, 80u16..83, 0u8..8, any::<bool>()), 0..200)
    ) {
        let mut play = Play::new();
        let (mut ms, mut ids) = (1, Vec::new());
        for &(pause, pid, port, act, managed) in &acts {
            ms += pause;
            match act {
                0 | 1 => ids.push(play.fails(ms, pid, port, if managed { service } else { nobody })),
                2 => play.outcomes.failed(&failed(ms, pid, port)),
                3 => play.does(&exits(ms, pid, u32::from(managed) << 8)),
                4 => play.does(&forks(ms, pid, pid + 1)),
                5 => play.does_in(&stranger_binds(ms, pid, port), the_service().filter(|_| managed)),
                6 => play.does(&of_child(pid, exits(ms, pid + 1, 0))),
                _ => play.does(&binds(ms, pid, port)),
            }
            play.passes_to(ms);
        }
        while !play.outcomes.cases.is_empty() {
            ms += 1_000;
            play.passes_to(ms);
        }
        ids.dedup();
        for id in &ids {
            prop_assert!(play.told.iter().any(|outcome| outcome.id == *id), "{id} has none");
        }
        prop_assert_eq!(play.told.len() as u64, play.events);
    }
}
