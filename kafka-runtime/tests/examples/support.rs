//! Runs examples as processes and watches their output.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running example. Killed when it is dropped.
pub(crate) struct Example {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Example {
    /// Starts an example with arguments and additional environment variables.
    pub(crate) fn start(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program(name))
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &lines);
        collect(child.stderr.take().unwrap(), &lines);
        Self { name: name.to_owned(), child, lines }
    }

    /// The lines written to stdout and stderr until now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until a line contains `text`.
    pub(crate) async fn wait_for_line(&self, text: &str) {
        let holds = async || self.lines().iter().any(|line| line.contains(text));
        self.eventually(&format!("a line with {text:?}"), holds).await;
    }

    /// Waits until `holds`. After 60 s it fails and shows the last lines of the output.
    pub(crate) async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            let lines = self.lines();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            panic!("{}: timed out waiting for {what}; last output:\n{last}", self.name);
        }
    }

    /// Sends SIGTERM and waits for the exit, at most 30 s.
    pub(crate) async fn stop(mut self) -> (ExitStatus, Vec<String>) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        (self.ended().await, self.lines())
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the exit, at most 30 s.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1_500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Give the reading threads a moment to drain the pipes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} does not end; its output:\n{}", self.name, self.lines().join("\n"));
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo places examples beside the directory of the tests.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p kafka-runtime --examples", path.display());
    path
}

fn collect(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    // Ends when the process closes the pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// The brokers to test against, `HOST:PORT`.
pub(crate) fn brokers() -> String {
    std::env::var("GODWIT_TEST_KAFKA")
        .expect("GODWIT_TEST_KAFKA names no Kafka broker: run tests/run, or set it to HOST:PORT")
}

/// A unique name.
pub(crate) fn unique(name: &str) -> String {
    format!("test-{name}-{}", uuid::Uuid::new_v4().simple())
}
