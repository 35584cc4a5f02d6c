use std::process::Command;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TryRecvError};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::*;
use crate::supervisor::child::Streams;
use crate::supervisor::fakes::{FakeUnit, KILLED, Program, Start, World, ms, run};
use crate::supervisor::handle::{NOT_FOUND, SupervisorHandle};
use crate::supervisor::lifecycle::Limits;
use crate::supervisor::readiness::Readiness;
use crate::supervisor::unit::StartFailure;

fn ready(name: &'static str) -> FakeUnit {
    FakeUnit::new(name, [Start::Ready])
}

/// Sends SIGTERM at this time.
fn stop_at(world: &World, time: u64) {
    world.at(time, |world| {
        world.handle.signal(SIGTERM);
    });
}

fn failure(text: &str, out_of_resources: bool) -> StartFailure {
    StartFailure {
        text: text.into(),
        out_of_resources,
    }
}

fn error(end: Result<(), StartError>) -> String {
    end.expect_err("the supervisor failed").to_string()
}

// Starts and restarts.

#[test]
fn starts_units_in_order_and_stops_them_at_the_end() {
    let (world, supervisor) = World::new();
    for name in ["a", "b", "c"] {
        world.require(ready(name));
    }
    stop_at(&world, 50);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal,
        [
            "0 a: start 1",
            "0 a: starting, 0 failures",
            "0 b: start 1",
            "0 b: starting, 0 failures",
            "0 c: start 1",
            "0 c: starting, 0 failures",
            "0 a: ready, 0 failures",
            "0 b: ready, 0 failures",
            "0 c: ready, 0 failures",
            "50 a: TERM",
            "50 b: TERM",
            "50 c: TERM",
        ]
    );
}

#[test]
fn restarts_a_unit_that_keeps_ending_after_growing_pauses() {
    let (world, supervisor) = World::new();
    let exit = Start::Exits(Exit::Code(3));
    world.require(FakeUnit::new("a", [Start::Ready, exit, Start::Ready]));
    world.at(10, |world| world.end_process(world.running()[0], KILLED));
    // Long after its restart, so this failure counts as the first.
    world.at(9000, |world| world.end_process(world.running()[0], KILLED));
    stop_at(&world, 9500);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[2..],
        [
            "0 a: ready, 0 failures",
            "10 a: down (its process was terminated by signal 9), 1 failures",
            "110 a: start 2",
            "110 a: starting, 1 failures",
            "110 a: down (its process exited with code 3), 2 failures",
            "310 a: start 3",
            "310 a: starting, 2 failures",
            "310 a: ready, 2 failures",
            "9000 a: down (its process was terminated by signal 9), 1 failures",
            "9100 a: start 4",
            "9100 a: starting, 1 failures",
            "9100 a: ready, 1 failures",
            "9500 a: TERM",
        ]
    );
}

#[test]
fn retries_a_restart_that_fails() {
    let (world, supervisor) = World::new();
    let fails = Start::Fails(failure("no processes left", true));
    world.require(FakeUnit::new("a", [Start::Ready, fails]));
    world.at(10, |world| world.end_process(world.running()[0], KILLED));
    stop_at(&world, 1000);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[4..],
        [
            "110 a: start 2",
            "110 a: down (no processes left), 2 failures",
            "310 a: start 2",
            "310 a: starting, 2 failures",
            "310 a: ready, 2 failures",
            "1000 a: TERM",
        ]
    );
}

#[test]
fn reports_that_a_unit_started() {
    let (world, supervisor) = World::new();
    let (_, started) = world.keep(ready("a"));
    stop_at(&world, 50);
    run(&world, supervisor).0.expect("a signal is no failure");
    assert_eq!(started.try_recv(), Ok(Ok(())));
}

#[test]
fn reports_why_a_unit_did_not_start_and_does_not_retry() {
    let cannot = "port 1 cannot be used";
    let exits = |exit| FakeUnit::new("a", [Start::Exits(exit)]);
    let limits = Limits {
        start: Some((ms(70), "too slow".into())),
        unresponsive: None,
    };
    for (unit, expected) in [
        (
            FakeUnit::new("a", [Start::Fails(cannot.to_owned().into())]),
            failure("a did not start: port 1 cannot be used", false),
        ),
        (
            FakeUnit::new("a", [Start::Fails(failure("no files left", true))]),
            failure("a did not start: no files left", true),
        ),
        (
            exits(Exit::Code(2)).output("bad flag"),
            failure(
                "a did not start: its process exited with code 2; its last output:\nbad flag",
                false,
            ),
        ),
        (
            exits(Exit::Code(2)).output("no memory"),
            failure(
                "a did not start: its process exited with code 2; its last output:\nno memory",
                true,
            ),
        ),
        (
            exits(KILLED),
            failure(
                "a did not start: its process was terminated by signal 9",
                true,
            ),
        ),
        (
            FakeUnit::new("a", [Start::Silent]).limits(limits),
            failure("a did not start: too slow", false),
        ),
    ] {
        let (world, supervisor) = World::new();
        let (_, started) = world.keep(unit);
        stop_at(&world, 10_000);
        let (end, journal) = run(&world, supervisor);
        assert!(end.is_ok(), "the program goes on");
        assert_eq!(started.try_recv(), Ok(Err(expected)));
        let starts = journal.iter().filter(|line| line.contains("start 1"));
        assert_eq!(starts.count(), 1);
        assert!(
            !journal.iter().any(|line| line.contains("start 2")),
            "there is no second start"
        );
    }
}

#[test]
fn fails_when_a_required_unit_does_not_start() {
    let (world, supervisor) = World::new();
    world.require(ready("a"));
    world.require(FakeUnit::new("b", [Start::Exits(Exit::Code(1))]));
    let (end, journal) = run(&world, supervisor);
    assert_eq!(
        error(end),
        "b did not start: its process exited with code 1"
    );
    assert_eq!(journal.last().unwrap(), "0 a: TERM");
}

#[test]
fn fails_when_a_required_unit_reports_failure_while_it_starts() {
    let (world, supervisor) = World::new();
    let id = world.require(FakeUnit::new("a", [Start::Silent]));
    world.at(40, move |world| {
        let readiness = Readiness::Failed {
            reason: "version 1 is END".into(),
            out_of_resources: false,
        };
        world.handle.report(id, 1, readiness);
    });
    let (end, journal) = run(&world, supervisor);
    assert_eq!(error(end), "a did not start: version 1 is END");
    assert_eq!(journal.last().unwrap(), "40 a: TERM");
}

#[test]
fn a_failed_start_of_a_redundant_unit_holds_up_no_load() {
    let (world, supervisor) = World::new();
    let unit = FakeUnit::new("a", [Start::Exits(Exit::Code(1))]);
    let (_, started) = world.keep(unit.redundant());
    stop_at(&world, 50);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(started.try_recv(), Ok(Ok(())));
    let expected = "0 a: down (its process exited with code 1), 1 failures";
    assert_eq!(journal.last().unwrap(), expected);
}

#[test]
fn kills_and_restarts_a_process_when_the_check_finds_a_reason() {
    let (world, supervisor) = World::new();
    world.require(ready("a").kill_at(500));
    stop_at(&world, 1000);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[3..],
        [
            "500 a: KILL",
            "500 a: being killed (stuck), 0 failures",
            "500 a: down (killed: stuck), 1 failures",
            "600 a: start 2",
            "600 a: starting, 1 failures",
            "600 a: ready, 1 failures",
            "1000 a: TERM",
        ]
    );
}

#[test]
fn ignores_reports_about_earlier_processes_and_unknown_units() {
    let (world, supervisor) = World::new();
    let id = world.require(ready("a"));
    world.at(10, |world| world.end_process(world.running()[0], KILLED));
    world.at(500, move |world| {
        let hanging = || Readiness::NotReady("no answer".into());
        world.handle.report(id, 1, hanging());
        world.handle.report(id + 1, 1, hanging());
    });
    stop_at(&world, 600);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert!(!journal.iter().any(|line| line.contains("unresponsive")));
}

#[test]
fn reaps_and_forgets_orphans() {
    let (world, supervisor) = World::new();
    world.at(10, World::end_orphan);
    stop_at(&world, 20);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(world.reap_one(), None);
    assert_eq!(journal, [""; 0]);
}

// The end of the program.

#[test]
fn fails_when_startup_fails() {
    let (world, supervisor) = World::new();
    world.require(ready("a"));
    world.at(30, |world| {
        world.handle.fail(StartError::failed("no model"))
    });
    let (end, journal) = run(&world, supervisor);
    assert_eq!(error(end), "no model");
    assert_eq!(journal.last().unwrap(), "30 a: TERM");
}

#[test]
fn a_signal_drains_the_server_and_then_stops_the_children() {
    let (world, supervisor) = World::new();
    world.require(ready("a"));
    world.open_server(2);
    stop_at(&world, 100);
    // The unit ends with requests in flight, which need its restart.
    world.at(150, |world| world.end_process(world.running()[0], KILLED));
    world.at(1000, |world| world.set_in_flight(0));
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[3..],
        [
            "100 server: stop accepting",
            "150 a: down (its process was terminated by signal 9), 1 failures",
            "250 a: start 2",
            "250 a: starting, 1 failures",
            "250 a: ready, 1 failures",
            "1100 server: refuse the rest",
            "1100 a: TERM",
            "1100 server: finish",
        ]
    );
}

#[test]
fn stops_draining_at_the_time_limit() {
    let (world, supervisor) = World::new();
    world.open_server(1);
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal,
        [
            "100 server: stop accepting",
            "25100 server: refuse the rest",
            "25100 server: finish",
        ]
    );
}

#[test]
fn stops_at_once_on_a_second_signal() {
    let (world, supervisor) = World::new();
    world.require(ready("a"));
    world.open_server(1);
    stop_at(&world, 100);
    world.at(300, |world| {
        world.handle.signal(SIGINT);
    });
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[3..],
        [
            "100 server: stop accepting",
            "300 server: refuse the rest",
            "300 a: TERM",
            "300 server: finish",
        ]
    );
}

#[test]
fn a_failed_start_while_draining_is_no_error() {
    let (world, supervisor) = World::new();
    world.require(FakeUnit::new("a", [Start::Silent]));
    let (_, started) = world.keep(FakeUnit::new("b", [Start::Silent]));
    world.open_server(1);
    stop_at(&world, 100);
    // Ctrl-C reached the children as well as us.
    world.at(110, |world| {
        let ids = world.running();
        ids.into_iter()
            .for_each(|pid| world.end_process(pid, Exit::Signal(SIGINT)));
        world.handle.fail(StartError::failed("pip was interrupted"));
    });
    world.at(500, |world| world.set_in_flight(0));
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal.last().unwrap(), "600 server: finish");
    let text = "b did not start: its process was terminated by signal 2";
    assert_eq!(started.try_recv(), Ok(Err(failure(text, false))));
}

#[test]
fn kills_children_that_do_not_end() {
    let (world, supervisor) = World::new();
    world.require(ready("a").ignores_term());
    world.require(ready("b"));
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal[6..], ["100 a: TERM", "100 b: TERM", "2100 a: KILL"]);
}

#[test]
fn a_panic_stops_the_children_and_finishes_the_server() {
    let (world, supervisor) = World::new();
    world.require(ready("a"));
    world.open_server(0);
    world.at(100, |world| {
        world.require(FakeUnit::new("b", [Start::Panics]));
    });
    let (end, journal) = run(&world, supervisor);
    assert_eq!(error(end), "the thread watchdog panicked");
    assert_eq!(
        journal[3..],
        [
            "100 b: start 1",
            "100 server: refuse the rest",
            "100 a: TERM",
            "100 server: finish",
        ]
    );
}

#[test]
fn every_wait_ends_when_the_supervisor_has_stopped() {
    let (world, supervisor) = World::new();
    let handle = world.handle.clone();
    // This unit is still starting when the supervisor stops, so its starter gets no result.
    let (id, started) = world.keep(FakeUnit::new("a", [Start::Silent]));
    world.add_program("pip", ENDLESS);
    let result = handle.run(handle.new_id(), Command::new("pip"), Streams::Captured);
    assert_eq!(handle.stopping().try_recv(), Err(TryRecvError::Empty));
    stop_at(&world, 100);
    run(&world, supervisor).0.expect("a signal is no failure");
    drop(world);
    assert_eq!(
        handle.stopping().try_recv(),
        Err(TryRecvError::Disconnected)
    );
    assert_eq!(started.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(result.try_recv(), Err(TryRecvError::Disconnected));
    handle.release(vec![id]);
    assert!(!handle.signal(SIGTERM));
    let late = handle.run_to_end(Command::new("pip"), Streams::Captured);
    assert!(matches!(late, Err(StartError::Stopped)));
    let late = handle.run_within(Duration::MAX, Command::new("pip"), Streams::Captured);
    assert_eq!(late, Err(RecvTimeoutError::Disconnected));
}

// Releases.

/// Releases units and tasks, and notes the end of their processes in the journal, at the next full millisecond.
fn release_at(world: &World, time: u64, ids: Vec<UnitId>) {
    world.at(time, move |world| {
        let stopped = world.handle.begin_release(ids);
        look_for_end(world, time, stopped);
    });
}

fn look_for_end(world: &World, time: u64, stopped: crossbeam_channel::Receiver<()>) {
    world.at(time, move |world| match stopped.try_recv() {
        Err(TryRecvError::Disconnected) => world.note("released"),
        _ => look_for_end(world, time + 1, stopped),
    });
}

#[test]
fn stops_a_released_unit_and_does_not_restart_it() {
    let (world, supervisor) = World::new();
    let a = world.require(ready("a"));
    world.require(ready("b"));
    release_at(&world, 100, vec![a]);
    stop_at(&world, 5000);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[6..],
        ["100 a: TERM", "100 released", "5000 b: TERM"]
    );
}

#[test]
fn kills_a_released_unit_that_does_not_end() {
    let (world, supervisor) = World::new();
    let id = world.require(ready("a").ignores_term());
    release_at(&world, 100, vec![id]);
    world.at(200, move |world| {
        world
            .handle
            .report(id, 1, Readiness::NotReady("no answer".into()))
    });
    stop_at(&world, 5000);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(
        journal[3..],
        ["100 a: TERM", "2100 a: KILL", "2101 released"]
    );
}

#[test]
fn releases_units_without_a_process_and_unknown_units_at_once() {
    let (world, supervisor) = World::new();
    let down = world.require(ready("a"));
    let fails = Start::Fails("no such program".to_owned().into());
    let (given_up, _started) = world.keep(FakeUnit::new("b", [fails]));
    world.at(90, |world| world.end_process(world.running()[0], KILLED));
    release_at(&world, 100, vec![down, given_up, 77]);
    stop_at(&world, 5000);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal.last().unwrap(), "100 released");
}

// Tasks.

const ENDLESS: Program = Program {
    runs_for: None,
    exit: Exit::Code(0),
    output: "",
};

fn task(exit: Exit) -> Program {
    Program {
        runs_for: Some(ms(70)),
        exit,
        output: "two\nlines",
    }
}

fn run_task(
    handle: &SupervisorHandle,
) -> (
    UnitId,
    crossbeam_channel::Receiver<Result<String, StartFailure>>,
) {
    let id = handle.new_id();
    (id, handle.run(id, Command::new("pip"), Streams::Captured))
}

#[test]
fn reports_the_result_of_a_task() {
    for (exit, expected) in [
        (Exit::Code(0), Ok("two\nlines".to_owned())),
        (
            Exit::Code(1),
            Err(failure(
                "its process exited with code 1; its last output:\ntwo\nlines",
                false,
            )),
        ),
        (
            KILLED,
            Err(failure(
                "its process was terminated by signal 9; its last output:\ntwo\nlines",
                true,
            )),
        ),
    ] {
        let (world, supervisor) = World::new();
        world.add_program("pip", task(exit));
        let (_, result) = run_task(&world.handle);
        stop_at(&world, 100);
        run(&world, supervisor).0.expect("a signal is no failure");
        assert_eq!(result.try_recv(), Ok(expected));
    }
}

#[test]
fn reports_not_found_for_a_task_without_a_program() {
    let (world, supervisor) = World::new();
    let (_, result) = run_task(&world.handle);
    stop_at(&world, 100);
    run(&world, supervisor).0.expect("a signal is no failure");
    assert_eq!(result.try_recv(), Ok(Err(failure(NOT_FOUND, false))));
}

#[test]
fn kills_a_released_task() {
    let (world, supervisor) = World::new();
    world.add_program("pip", ENDLESS);
    let (id, _result) = run_task(&world.handle);
    release_at(&world, 40, vec![id]);
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal, ["0 pip: start", "40 pip: KILL", "40 released"]);
}

#[test]
fn kills_a_task_that_takes_too_long() {
    let (world, supervisor) = World::new();
    world.add_program("pip", ENDLESS);
    let late = world
        .handle
        .run_within(Duration::ZERO, Command::new("pip"), Streams::Captured);
    assert_eq!(late, Err(RecvTimeoutError::Timeout));
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal, ["0 pip: start", "0 pip: KILL"]);
}

#[test]
fn a_task_runs_on_when_its_receiver_is_dropped() {
    let (world, supervisor) = World::new();
    world.add_program("pip", task(Exit::Code(1)));
    drop(run_task(&world.handle));
    world.require(ready("a"));
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal.first().unwrap(), "0 pip: start");
    assert_eq!(journal.last().unwrap(), "100 a: TERM");
}

#[test]
fn kills_tasks_at_the_end_of_the_program() {
    let (world, supervisor) = World::new();
    world.add_program("pip", ENDLESS);
    let (_, result) = run_task(&world.handle);
    stop_at(&world, 100);
    let (end, journal) = run(&world, supervisor);
    assert!(end.is_ok());
    assert_eq!(journal, ["0 pip: start", "100 pip: KILL"]);
    assert_eq!(result.try_recv(), Err(TryRecvError::Disconnected));
}
