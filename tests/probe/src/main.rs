//! Runs inside containers, needs no other file there, and reports facts as JSON. It judges nothing.
//!
//! `probe COMMAND [ARGUMENT...]` prints one answer. `probe agent` reads commands from standard input, each a line with
//! a JSON array, and answers each with a line until its input ends. In this way a test speaks with a container whose
//! pid 1 is the agent. `probe contain` makes such a container out of plain namespaces.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that answers on its standard streams"
)]

mod agent;
mod answer;
mod attack;
mod breach;
mod contain;
mod facts;
mod files;
mod hang;
mod latencies;
mod mapped;
mod reach;
mod scan;
mod stress;
mod sysinfo;
mod timed;
mod tune;
mod ways;
mod work;

use std::process::ExitCode;

use agent::Agent;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "contain" => contain::contain(rest),
        Some((command, rest)) if command == "inside" => contain::inside(rest),
        Some((command, rest)) if command == "agent" => Agent::default().serve(rest),
        Some((command, rest)) if command == "attack" => attack::attack(rest),
        Some((command, rest)) if command == "latencies" => latencies::latencies(rest),
        Some(_) => {
            let answer = Agent::default().answer(&arguments);
            println!("{}", answer::line(&answer));
            ExitCode::from(u8::from(answer.is_err()))
        }
        None => {
            eprintln!("probe: name a command; src/agent.rs lists them");
            ExitCode::from(2)
        }
    }
}
