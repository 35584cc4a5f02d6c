//! The hostile clients: some send one attack after another, some hold many connections open and send next to nothing.

use std::time::Duration;

use fastrand::Rng;

use crate::attacks::{Attack, AttackMaker};
use crate::chance::{pick, seconds};
use crate::load::Stop;
use crate::target::Target;
use crate::wire::{ANSWER_LIMIT, AT_ONCE, NoAnswer, Wire};

/// Attackers of each server.
pub const ATTACKERS: usize = 3;
/// Connections that a crowd holds at a time.
pub const CROWD: usize = 200;
/// The most that a crowd sends on each connection.
pub const CROWD_HEAD_BYTES: usize = 30 * 1024;
const THINK_SECONDS: f64 = 0.1;

/// The outcome of an attack, and what is wrong with it, if anything.
pub type Result = (String, Option<String>);

/// Sends attacks until the run ends.
pub fn attack_on(target: &Target, number: usize, mut chance: Rng, stop: &Stop) {
    let mut maker = AttackMaker::new(chance.fork(), number, target.kind);
    while !stop.is_set() {
        let attack = maker.attack();
        let (outcome, complaint) = outcome(&attack, target.server.port(), ANSWER_LIMIT);
        target.tally().attack(attack.kind, &outcome, complaint);
        stop.wait(seconds(&mut chance, 0.0, THINK_SECONDS));
    }
}

pub fn outcome(attack: &Attack, port: u16, limit: Duration) -> Result {
    let exchange = || {
        let mut wire = Wire::connect(port, None, limit)?;
        wire.drip(&attack.pieces)?;
        wire.receive(AT_ONCE, attack.answer_has_body)
    };
    match exchange() {
        Ok(answer) => (answer.status.to_string(), attack.complaint(&answer)),
        Err(NoAnswer::Closed(_)) => ("closed".into(), None),
        Err(NoAnswer::Silence(why)) => ("silence".into(), Some(why)),
        Err(NoAnswer::Broken(why)) => ("no answer".into(), Some(why)),
    }
}

/// Opens many connections, holds them for a while and drops them, again and again.
pub fn crowd_on(target: &Target, mut chance: Rng, stop: &Stop) {
    let begun = "POST /invocations HTTP/1.1\r\nHost: localhost\r\n";
    let open = format!(
        "{begun}X: {}",
        "x".repeat(CROWD_HEAD_BYTES - begun.len() - 3)
    );
    let body = format!("{begun}Content-Length: 1000\r\n\r\n[");
    let crowds = [
        ("idle connections", ""),
        ("one byte of a body", &body),
        ("open heads", &open),
    ];
    while !stop.is_set() {
        let (kind, sent) = pick(&mut chance, &crowds);
        let mut wires = Vec::new();
        let held = (0..CROWD).try_for_each(|_| {
            wires.push(Wire::open(target.server.port())?);
            wires.last_mut().expect("just opened").send(sent.as_bytes())
        });
        let (outcome, complaint) = match held {
            Ok(()) => {
                stop.wait(seconds(&mut chance, 0.5, 10.0));
                ("all accepted and kept", None)
            }
            Err(problem) => ("no connection", Some(problem.to_string())),
        };
        wires
            .into_iter()
            .for_each(|wire| wire.hang_up(chance.bool()));
        target
            .tally()
            .attack(&format!("{CROWD} {kind}"), outcome, complaint);
    }
}
