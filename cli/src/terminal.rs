//! Lines from a person, or from a pipe. Reading blocks, so it has a thread of its own.

use anyhow::{Result, bail};
use rustyline::{
    ColorMode, Config, DefaultEditor, Editor, ExternalPrinter, Helper,
    completion::Completer,
    highlight::{CmdKind, Highlighter},
    hint::Hinter,
    history::DefaultHistory,
    validate::Validator,
};
use std::{
    borrow::Cow,
    io::{self, BufRead as _, IsTerminal as _},
    thread,
};
use tokio::sync::mpsc;

/// Lines that wait to be sent.
const QUEUE: usize = 64;

/// Lines until the end of input.
pub(crate) struct Lines {
    pub(crate) lines: mpsc::Receiver<io::Result<String>>,
    /// How to write above the line that is being edited, on a terminal.
    pub(crate) printer: Option<Box<dyn ExternalPrinter + Send>>,
}

/// Begins to read lines: with editing on a terminal, plain from a pipe.
pub(crate) fn lines(prompt: String) -> Result<Lines> {
    let (sender, lines) = mpsc::channel(QUEUE);
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        thread::Builder::new().name("stdin".into()).spawn(move || {
            for line in io::stdin().lock().lines() {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    break;
                }
            }
        })?;
        return Ok(Lines { lines, printer: None });
    }
    let mut editor = DefaultEditor::new()?;
    let printer = editor.create_external_printer()?;
    thread::Builder::new().name("terminal".into()).spawn(move || {
        // Ctrl-C and Ctrl-D are the end of input, as is a terminal that went away.
        while let Ok(line) = editor.readline(&prompt) {
            let _ = editor.add_history_entry(&line);
            if sender.blocking_send(Ok(line)).is_err() {
                break;
            }
        }
    })?;
    Ok(Lines { lines, printer: Some(Box::new(printer)) })
}

/// Shows nothing of what is typed.
struct Hidden;

impl Helper for Hidden {}
impl Completer for Hidden {
    type Candidate = String;
}
impl Hinter for Hidden {
    type Hint = String;
}
impl Validator for Hidden {}
impl Highlighter for Hidden {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        !matches!(kind, CmdKind::MoveCursor)
    }
}

/// The password that was given, or asks for one; `new`: twice.
pub(crate) async fn password(given: Option<String>, new: bool) -> Result<String> {
    if let Some(password) = given {
        return Ok(password);
    }
    tokio::task::spawn_blocking(move || {
        if !io::stdin().is_terminal() {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            let password = line.trim_end_matches(['\n', '\r']).to_owned();
            if password.is_empty() {
                bail!("no password: give --password, GODWIT_PASSWORD, or a line on stdin");
            }
            return Ok(password);
        }
        let config = Config::builder().color_mode(ColorMode::Forced).auto_add_history(false).build();
        let mut editor: Editor<Hidden, DefaultHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Hidden));
        let password = editor.readline("password: ")?;
        if new && editor.readline("once more: ")? != password {
            bail!("the two are not the same");
        }
        Ok(password)
    })
    .await?
}
