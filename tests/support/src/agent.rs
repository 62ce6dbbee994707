//! The dialogue with a `probe agent`: a line for each command, and a line for each answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use serde_json::Value;

use crate::Ran;

/// The test's end of the dialogue.
#[derive(Debug)]
pub struct Agent {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agent {
    /// Returns an agent behind these pipes.
    pub fn new(input: ChildStdin, output: ChildStdout) -> Self {
        Self {
            input,
            output: BufReader::new(output),
        }
    }

    /// Sends one command. Returns its value, or the name of the error.
    ///
    /// # Panics
    /// When the agent has ended.
    #[track_caller]
    pub fn try_ask(&mut self, command: &[&str]) -> Result<Value, String> {
        self.say(&serde_json::json!(command).to_string());
        self.hear()
    }

    /// Sends one command that must succeed. Returns its value.
    ///
    /// # Panics
    /// When the command fails.
    #[track_caller]
    pub fn ask(&mut self, command: &[&str]) -> Value {
        match self.try_ask(command) {
            Ok(value) => value,
            Err(error) => panic!("{command:?} in the container: {error}"),
        }
    }

    /// Returns the text of a file from one read.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[track_caller]
    pub fn read(&mut self, path: &str) -> String {
        match self.try_read(path) {
            Ok(text) => text,
            Err(error) => panic!("reading {path} in the container: {error}"),
        }
    }

    /// Returns the text of a file, or the name of the error.
    ///
    /// # Panics
    /// When the agent has ended.
    #[track_caller]
    pub fn try_read(&mut self, path: &str) -> Result<String, String> {
        let answer = self.try_ask(&["read", path])?;
        match &answer[path] {
            Value::String(text) => Ok(text.clone()),
            other => Err(other["error"].as_str().unwrap_or("no answer").to_owned()),
        }
    }

    /// Runs a program that must succeed. Returns its output.
    ///
    /// # Panics
    /// When the program fails.
    #[track_caller]
    pub fn run(&mut self, program: &[&str]) -> String {
        self.try_run(program).ok()
    }

    /// Runs a program. Returns its result.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn try_run(&mut self, program: &[&str]) -> Ran {
        let answer = self.ask(&[&["run"], program].concat());
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Ran {
            what: program.join(" "),
            code: answer["code"]
                .as_i64()
                .and_then(|code| code.try_into().ok()),
            stdout: text("stdout"),
            stderr: text("stderr"),
        }
    }

    /// Sends a plain line, which the probe expects before it is an agent.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        if let Err(error) = writeln!(self.input, "{line}") {
            panic!("the agent does not listen: {error}");
        }
    }

    /// Returns the next answer.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        if let Err(error) = self.output.read_line(&mut line) {
            panic!("the agent does not speak: {error}");
        }
        assert!(!line.is_empty(), "the agent has ended");
        let answer: Value = match serde_json::from_str(&line) {
            Ok(answer) => answer,
            Err(error) => panic!("the agent said {line:?}: {error}"),
        };
        match answer.get("ok") {
            Some(value) => Ok(value.clone()),
            None => Err(answer["error"].as_str().unwrap_or(&line).to_owned()),
        }
    }
}
